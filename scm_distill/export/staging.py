"""What of a student is published: a whitelist of its files, without local paths or tokens."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from scm_distill.errors import UserError
from scm_distill.export.card import ADAPTER, EVALUATION, FACTS, read
from scm_distill.export.sections import public
from scm_distill.export.student import EXPORT, run_of

TOP = ("model_index.json", FACTS, EVALUATION, "t_mid_search.json", ADAPTER)
LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*")
COMPONENT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # configuration, weights, tokenizers
SAMPLES = ("*.png", "*.gif", "*.mp4", "*.wav")
READ_BY_CARD = ("samples/", "LICENSE", "LICENCE", "NOTICE", ADAPTER)
LOCAL = (("teacher", "repo"), ("teacher", "config"), ("data", "source"), ("data", "prompts"))  # of a recipe
TEXT = (".json", ".jsonl", ".yaml", ".md", ".txt", ".jinja", "")
VOCABULARY = ("vocab", "merges", "spiece", "tokenizer.json")  # of a tokenizer: any text may be a token of it
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


@dataclass(frozen=True)
class Model:
    """Where a student lies: its pipeline folder, and its run where that is known."""

    export: Path
    run: Path | None

    @property
    def facts(self) -> dict[str, Any]:
        """What the card is made of. Raises UserError for an export that has none."""
        return read(self.export)[1]


def locate(model: str) -> Model:
    """A run folder, or an export folder. Raises UserError for anything else."""
    path = Path(model).expanduser()
    for export in (path, path / EXPORT):
        if (export / "model_index.json").is_file():
            return Model(export, run_of(str(export)))
    if (path / "config.yaml").is_file():
        raise UserError(f"The run {model} holds no export yet.", "Let it finish: its command, with --resume auto.")
    raise UserError(
        f"{model} is no student: neither a run folder nor a pipeline folder.", "Give the folder that `train` wrote."
    )


def files_of(model: Model) -> dict[str, Path]:
    """Path in the repo to file, of all that is published beside the card."""
    export = model.export
    found = [export / name for name in TOP if (export / name).is_file()]
    for folder, patterns in ((export, LEGAL), (export / "samples", SAMPLES)):
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


def stage(model: Model, into: Path, license: Mapping[str, str]) -> dict[str, Path]:
    """Path in the repo to file: what needs cleaning is written to `into`, weights stay where they are.

    `into` also gets what the card is made of: the facts with `license`, eval.json and samples/.
    """
    files, hub_id = files_of(model), model.facts["hub_id"]
    for name, path in files.items():
        cleaned: str | None = None
        if name == FACTS:
            told = json.loads(path.read_text(encoding="utf-8"))
            cleaned = _json({**told, "facts": {**told["facts"], "license": dict(license)}})
        elif name == EVALUATION:
            said = json.loads(path.read_text(encoding="utf-8"))
            named: dict[str, Any] = {key: public(said[key]) for key in ("teacher", "data") if said.get(key)}
            if extractor := said.get("extractor"):
                named["extractor"] = {**extractor, "id": public(extractor["id"])}
            cleaned = _json({**said, **named})
        elif name == "training/config.yaml":
            cleaned = _recipe(path.read_text(encoding="utf-8"), hub_id)
        if cleaned is None and not name.startswith(READ_BY_CARD):
            continue
        files[name] = into / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        if cleaned is None:
            shutil.copyfile(path, files[name])
        else:
            files[name].write_text(cleaned, encoding="utf-8")
    return files


def refuse_leaks(files: Mapping[str, Path], model: Model, token: str | None) -> None:
    """Raise UserError when a text that would be published holds a token or a path of this machine."""
    places = {str(path.resolve()) for path in (model.export, model.run) if path is not None}
    if len(Path.home().parts) > 1:
        places.add(f"{Path.home()}/")
    for name, path in files.items():
        if path.suffix not in TEXT or path.name.startswith(VOCABULARY):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if TOKEN.search(text) or (token and token in text):
            raise UserError(f"{name} holds an access token.", f"Remove it from {path}, and revoke that token.")
        if place := next((place for place in places if place in text), None):
            raise UserError(f"{name} names a folder of this machine: {place}.", f"Remove it from {path}.")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _public(value: object, hub_id: str | None) -> object:
    """A setting that may be a local path: builtin:NAME, `teacher` and the teacher's Hub id stay, else its last name."""
    if not isinstance(value, str) or value in ("teacher", hub_id) or value.startswith("builtin:"):
        return value
    return PureWindowsPath(value).name  # parts at / and at \


def _recipe(text: str, hub_id: str | None) -> str:
    recipe = yaml.safe_load(text)
    for section, key in LOCAL:
        if key in recipe.get(section, {}):
            recipe[section][key] = _public(recipe[section][key], hub_id)
    return yaml.safe_dump(_anywhere(recipe), sort_keys=False, allow_unicode=True)


def _anywhere(value: Any) -> Any:
    """Absolute paths in other settings, shortened likewise."""
    if isinstance(value, dict):
        return {key: _anywhere(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_anywhere(item) for item in value]
    absolute = isinstance(value, str) and (value.startswith(("~", "/")) or PureWindowsPath(value).is_absolute())
    return PureWindowsPath(value).name if absolute else value
