"""What of a student is published: files on a list, without local paths or tokens."""

import codecs
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from scm_distill import config
from scm_distill.artifacts import files, layout, private
from scm_distill.artifacts.evaluation_record import EvaluationRecord
from scm_distill.artifacts.export_record import SearchRecord
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.layout import StudentFolder
from scm_distill.artifacts.run_records import read_metrics
from scm_distill.errors import UserError
from scm_distill.publish.card import exported
from scm_distill.publish.card_text import LICENCE_FILES

TOP = (layout.INDEX, layout.FACTS, layout.EVALUATION, layout.SEARCH, layout.ADAPTER)
NEEDED = (layout.INDEX, layout.FACTS, layout.EVALUATION)  # damage of these is an error: `stage` reads them whole
COMPONENT = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # configuration, weights, tokenizers
CONFIGURATION = ("config.json", ".index.json")  # ends of the names of files that diffusers and transformers need
SAMPLES = ("*.png", "*.gif", "*.mp4", "*.wav")
PICTURES = (".png", ".gif")
READ_BY_CARD = ("samples/", "LICENSE", "LICENCE", "NOTICE", layout.ADAPTER)
TEXT = (".json", ".jsonl", ".yaml", ".md", ".txt", ".jinja", "")
VOCABULARY = ("vocab", "merges", "spiece", "tokenizer.json", "added_tokens")  # of a tokenizer: any text may be a token
OTHERS = ("LICENSE", "LICENCE", "NOTICE", "chat_template")  # texts that others wrote, which may name folders of anybody
RECIPE, METRICS = f"training/{layout.RECIPE}", f"training/{layout.METRICS}"  # in the repository
BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


@dataclass(frozen=True)
class Selection:
    """What of a student is published beside its card."""

    files: dict[str, Path]  # by path in the repository
    passed_over: list[str]  # a sentence for each file that would be published and is damaged, without a full stop


def select(model: StudentFolder) -> Selection:
    """The files of a student that are published, as they lie there.

    Damaged files that others can do without are passed over. Raises UserError where one is damaged without which
    nobody could load the student.
    """
    export = model.export
    found = [path for path in (export / name for name in TOP) if path.exists()]
    for folder, patterns in ((export, LICENCE_FILES), (export / layout.GALLERY, SAMPLES)):
        found += _matching(folder, patterns)
    for name in components(export):
        found += _matching(export / name, COMPONENT)
    candidates = {path.relative_to(export).as_posix(): path for path in found}
    if model.run is not None:
        inside = {RECIPE: model.run / layout.RECIPE, METRICS: model.run / layout.METRICS}
        candidates |= {name: path for name, path in inside.items() if path.exists()}
    damages = {name: _damage(name, path) for name, path in candidates.items() if name not in NEEDED}
    kept = {name: path for name, path in candidates.items() if damages.get(name) is None}
    return Selection(kept, [f"{candidates[name]} {damage}: left out" for name, damage in damages.items() if damage])


def _damage(name: str, path: Path) -> str | None:
    """What is wrong with a file that a student can do without, to follow its path in a sentence; None where nothing is.

    Raises UserError for a configuration that cannot be read.
    """
    if name.endswith(CONFIGURATION):
        files.read_json(path)
        return None
    try:
        if not path.is_file():
            return "is a folder, not a file"
        if name == layout.SEARCH:
            SearchRecord.read(path)
        elif name == METRICS:
            files.read_text(path)
            metrics = read_metrics(path)
            if metrics.passed_over and not (metrics.steps or metrics.evaluations):
                return "holds no line of a training step"
        elif path.suffix in PICTURES:
            files.read_picture(path)
    except Damaged as error:
        return error.reason
    return None


def components(export: Path) -> list[str]:
    """The names of a pipeline's components that have a folder. Raises UserError for a damaged model_index.json."""
    path = export / layout.INDEX
    index = files.read_json(path)
    if not isinstance(index.get("_class_name"), str):
        raise Damaged(path, "names no pipeline")
    names = (name for name, value in index.items() if isinstance(value, list) and name.isidentifier())
    return [name for name in names if (export / name).is_dir()]


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """What in a folder has a name of these patterns, in the order of the patterns."""
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def stage(model: StudentFolder, into: Path, license: Mapping[str, str]) -> Selection:
    """As `select`; what needs cleaning is written to the folder `into`, weights stay where they are.

    `into` also gets what the card is made of: the facts with the fields `license`, eval.json and samples/. Raises
    UserError for a file that is needed and damaged, and for a config.yaml that is no recipe.
    """
    selection, hub_id = select(model), exported(model.export).facts.hub_id
    staged = dict(selection.files)
    for name, path in selection.files.items():
        cleaned: str | None = None
        if name == layout.FACTS:
            cleaned = _json(_cleaned_facts(model.export, license))
        elif name == layout.EVALUATION:
            cleaned = _json(_cleaned_evaluation(path, hub_id))
        elif name == RECIPE:
            cleaned = _cleaned_recipe(path, hub_id)
        if cleaned is None and not name.startswith(READ_BY_CARD):
            continue
        staged[name] = into / name
        staged[name].parent.mkdir(parents=True, exist_ok=True)
        if cleaned is None:
            shutil.copyfile(path, staged[name])
        else:
            staged[name].write_text(cleaned, encoding="utf-8")
    return Selection(staged, selection.passed_over)


def refuse_leaks(staged: Mapping[str, Path], model: StudentFolder, token: str | None) -> None:
    """Raise UserError when a text that would be published holds a token, or a path of this or another machine.

    `staged`: the files to publish, by path in the repository; `token`: the one by which they will be.
    """
    folders = [str(path.resolve()) for path in (model.export, model.run) if path is not None]
    for name, path in staged.items():
        if path.suffix not in TEXT or path.name.startswith(VOCABULARY):
            continue
        text = _decoded(path)
        if private.TOKEN.search(text) or (token and token in text):
            raise UserError(f"{name} holds an access token.", f"Remove it from {path}, and revoke that token.")
        leak = next((folder for folder in folders if folder in text), None)
        if leak is None and not path.name.startswith(OTHERS):
            leak = next(filter(None, map(private.leak, _texts(path, text))), None)
        if leak is not None:
            raise UserError(f"{name} names a folder: {leak}.", f"Remove it from {_origin(model, name, path)}.")


def _origin(model: StudentFolder, name: str, path: Path) -> Path:
    """The user's own file of which `path`, published as `name`, is a cleaned copy."""
    return select(model).files.get(name, path)


def _decoded(path: Path) -> str:
    """The text of a file by its byte order mark, or as UTF-8 with U+FFFD for what is none."""
    content = path.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def _texts(path: Path, text: str) -> Iterator[str]:
    """The texts in a file: of JSON its strings, since an escape beside a path would hide it."""
    try:
        yield from _strings(json.loads(text)) if path.suffix == ".json" else (text,)
    except (ValueError, RecursionError):
        yield text


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, keys among them."""
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
    if isinstance(value, str):
        yield value


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _cleaned_facts(export: Path, license: Mapping[str, str]) -> dict[str, object]:
    """scm_distill.json without tokens, with these licence fields."""
    record = exported(export)
    facts = record.facts.model_copy(update={"license": dict(license)})
    cleaned: dict[str, object] = private.without_paths(
        record.model_copy(update={"facts": facts}).content(), private.tokenless
    )
    return cleaned


def _cleaned_evaluation(path: Path, hub_id: str | None) -> dict[str, object]:
    """eval.json with the last names of folders in place of their paths; a teacher that is `hub_id` keeps its name."""
    record = EvaluationRecord.read(path)
    identities = {
        name: identity.model_copy(update={"id": private.public(identity.id)})
        for name, identity in (("extractor", record.extractor), ("clip", record.clip))
        if identity is not None
    }
    names = {"teacher": private.named(record.teacher, hub_id), "data": private.named(record.data, hub_id)}
    cleaned: dict[str, object] = private.without_paths(record.model_copy(update=identities).content())
    return cleaned | names


def _cleaned_recipe(path: Path, hub_id: str | None) -> str:
    """The recipe of the run, every setting written out, cleaned. Raises UserError for another file of this name."""
    try:
        recipe = config.read(str(path))
    except UserError as error:
        raise UserError(
            f"{path} would be published, and is no recipe of this version: {error.problem}",
            "Mend it, or move the export elsewhere and push that folder alone.",
        ) from error
    return yaml.safe_dump(private.recipe(recipe.model_dump(mode="json"), hub_id), sort_keys=False, allow_unicode=True)
