"""What of a student is published: a whitelist of its files, without local paths or tokens."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scm_distill import config
from scm_distill.artifacts import private
from scm_distill.artifacts.layout import EVALUATION, FACTS, StudentFolder
from scm_distill.errors import UserError
from scm_distill.publish.card import ADAPTER
from scm_distill.publish.card_text import LICENCE_FILES

TOP = ("model_index.json", FACTS, EVALUATION, "t_mid_search.json", ADAPTER)
COMPONENT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # configuration, weights, tokenizers
SAMPLES = ("*.png", "*.gif", "*.mp4", "*.wav")
READ_BY_CARD = ("samples/", "LICENSE", "LICENCE", "NOTICE", ADAPTER)
TEXT = (".json", ".jsonl", ".yaml", ".md", ".txt", ".jinja", "")
VOCABULARY = ("vocab", "merges", "spiece", "tokenizer.json", "added_tokens")  # of a tokenizer: any text may be a token
OTHERS = ("LICENSE", "LICENCE", "NOTICE", "chat_template")  # texts that others wrote, which may name folders of anybody


def files_of(model: StudentFolder) -> dict[str, Path]:
    """Path in the repo to file, of all that is published beside the card."""
    export = model.export
    found = [export / name for name in TOP if (export / name).is_file()]
    for folder, patterns in ((export, LICENCE_FILES), (export / "samples", SAMPLES)):
        found += _matching(folder, patterns)
    for name in components(export):
        found += _matching(export / name, COMPONENT)
    files = {path.relative_to(export).as_posix(): path for path in found}
    for name in ("config.yaml", "metrics.jsonl"):
        if model.run is not None and (model.run / name).is_file():
            files[f"training/{name}"] = model.run / name
    return files


def components(export: Path) -> list[str]:
    """The folders of a pipeline's parts."""
    index = json.loads((export / "model_index.json").read_text(encoding="utf-8"))
    return [name for name, value in index.items() if isinstance(value, list) and (export / name).is_dir()]


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in sorted(folder.glob(pattern)) if path.is_file())


def stage(model: StudentFolder, into: Path, license: Mapping[str, str]) -> dict[str, Path]:
    """Path in the repo to file: what needs cleaning is written to `into`, weights stay where they are.

    `into` also gets what the card is made of: the facts with `license`, eval.json and samples/. Raises UserError for
    a config.yaml that is no recipe.
    """
    files, hub_id = files_of(model), model.facts["hub_id"]
    for name, path in files.items():
        cleaned: str | None = None
        if name == FACTS:
            told = private.without_paths(json.loads(path.read_text(encoding="utf-8")), private.tokenless)
            cleaned = _json({**told, "facts": {**told["facts"], "license": dict(license)}})
        elif name == EVALUATION:
            cleaned = _json(_measured(json.loads(path.read_text(encoding="utf-8")), hub_id))
        elif name == "training/config.yaml":
            cleaned = _recipe(path, hub_id)
        if cleaned is None and not name.startswith(READ_BY_CARD):
            continue
        files[name] = into / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        if cleaned is None:
            shutil.copyfile(path, files[name])
        else:
            files[name].write_text(cleaned, encoding="utf-8")
    return files


def refuse_leaks(files: Mapping[str, Path], model: StudentFolder, token: str | None) -> None:
    """Raise UserError when a text that would be published holds a token, or a path of this or another machine."""
    places = [str(path.resolve()) for path in (model.export, model.run) if path is not None]
    for name, path in files.items():
        if path.suffix not in TEXT or path.name.startswith(VOCABULARY):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if private.TOKEN.search(text) or (token and token in text):
            raise UserError(f"{name} holds an access token.", f"Remove it from {path}, and revoke that token.")
        place = next((place for place in places if place in text), None)
        if place is None and not path.name.startswith(OTHERS):
            place = next(filter(None, map(private.leak, _texts(path, text))), None)
        if place is not None:
            raise UserError(f"{name} names a folder: {place}.", f"Remove it from {_origin(model, name, path)}.")


def _origin(model: StudentFolder, name: str, path: Path) -> Path:
    """The user's own file that was cleaned into `path`."""
    return files_of(model).get(name, path)


def _texts(path: Path, text: str) -> Iterator[str]:
    """The texts in a file: of JSON its strings, since an escape beside a path would hide it."""
    try:
        yield from _strings(json.loads(text)) if path.suffix == ".json" else (text,)
    except ValueError:
        yield text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
    if isinstance(value, str):
        yield value


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _measured(said: dict[str, Any], hub_id: str | None) -> dict[str, Any]:
    """eval.json, cleaned."""
    cleaned: dict[str, Any] = private.without_paths(said)
    for key in ("teacher", "data"):
        if said.get(key):
            cleaned[key] = private.named(said[key], hub_id)
    for key in ("extractor", "clip"):
        if said.get(key):
            cleaned[key]["id"] = private.public(said[key]["id"])
    return cleaned


def _recipe(path: Path, hub_id: str | None) -> str:
    """The recipe of the run, every setting written out, cleaned. Raises UserError for another file of this name."""
    try:
        recipe = config.read(str(path))
    except UserError as error:
        raise UserError(
            f"{path} would be published, and is no recipe of this version: {error.problem}",
            "Mend it, or move the export elsewhere and push that folder alone.",
        ) from error
    return yaml.safe_dump(private.recipe(recipe.model_dump(mode="json"), hub_id), sort_keys=False, allow_unicode=True)
