"""README.md of an export, from what its folder holds: scm_distill.json, eval.json, samples/ and the licence files.

The generated text lies between two HTML comments; what a user writes outside them, or adds to the front matter, stays.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from scm_distill.artifacts import files, layout
from scm_distill.artifacts.evaluation_record import EvaluationRecord, metric
from scm_distill.artifacts.export_record import ExportRecord, Facts
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.private import public
from scm_distill.errors import UserError, one_line
from scm_distill.publish import card_text
from scm_distill.publish.licence import licence, of_teacher

FrontMatter = dict[str, object]  # the YAML block on top of a card

BEGIN, END = "<!-- scm-distill: begin -->", "<!-- scm-distill: end -->"
TOOL = "scm-distill"  # marks our results in a model-index
KEYS = (
    "library_name", "pipeline_tag", "license", "license_name", "license_link", "base_model", "base_model_relation",
    "datasets", "tags", "widget", "model-index",
)  # fmt: skip
TAGS = ("diffusers", "diffusers-training", "consistency-distillation", "scm", "distillation", "few-step")
RELATIONS = {"full": "finetune", "adapter": "adapter"}  # the Hub has no "distilled" (huggingface_hub issue 3985)
FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:\r?\n|(?<=\n))---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def exported(folder: Path) -> ExportRecord:
    """scm_distill.json of an export, which its card is made of. Raises UserError where it cannot be used."""
    try:
        return ExportRecord.read(folder / layout.FACTS)
    except Damaged as error:
        problem = f"{folder} has no facts to write a card from: its {layout.FACTS} {error.reason}."
        raise UserError(problem, error.fix) from error


def render(folder: Path, repo: str | None = None, license: str | None = None) -> str:
    """The text of the card of an export that is, or will be, the Hub repository `repo`.

    `license` replaces the teacher's. Raises UserError where scm_distill.json or eval.json cannot be used.
    """
    export, path = exported(folder), folder / layout.EVALUATION
    evaluation = EvaluationRecord.read(path) if path.exists() else None
    fields = licence(of_teacher(export.facts), license, folder)
    title = f"Two-step student of {export.facts.base_model}"
    name = repo.rsplit("/", maxsplit=1)[-1] if repo else title
    front = _yaml(_front(folder, export, evaluation, fields, name))
    body = card_text.body(folder, title, repo, export, evaluation, fields, inherited=license is None)
    return f"---\n{front}\n---\n\n{BEGIN}\n{body}\n{END}\n"


def write(folder: Path, existing: Path | None = None) -> None:
    """Write `folder`/README.md, and keep what a user added to the one before (`existing`, or the folder's own).

    Raises UserError where one of the files that it is made of cannot be used.
    """
    path = folder / layout.CARD
    before, text = existing or path, render(folder)
    if before.exists():
        text = merged(text, files.read_text(before))
    files.write_text(path, text)


def check(path: Path) -> None:
    """Raise UserError for a card into which `write` could not put its text, before hours of work on its figures."""
    if path.exists() and BEGIN in (text := files.read_text(path)):
        merged(f"{BEGIN}{END}", text)


def merged(generated: str, existing: str) -> str:
    """The card `generated`, with a user's share of `existing`: front matter of other keys, and text outside the marks.

    The text of a card without our marks stays above what is generated. Raises UserError for a mark without its other,
    and for a front matter that cannot be read.
    """
    ours, body = _split(generated)
    theirs, prose = _split(existing)
    marked = body[body.index(BEGIN) : body.index(END) + len(END)]
    if BEGIN in prose:
        above, _, rest = prose.partition(BEGIN)
        _, closed, below = rest.partition(END)
        if not closed:
            raise UserError(
                f"The card has a line {BEGIN}, and none {END} after it.",
                "Put the second line back below the generated text, or remove the first and that text.",
            )
        text = above + marked + below
    else:
        text = f"{prose.strip()}\n\n{marked}\n".lstrip()
    return f"---\n{_yaml(_united(ours, theirs))}\n---\n\n{text.lstrip()}"


def _united(ours: FrontMatter, theirs: FrontMatter) -> FrontMatter:
    """The front matter of both; where both set a key of ours, ours holds."""
    both = {**theirs, **ours}
    if ours.get("license", theirs.get("license")) != theirs.get("license"):  # its name and link go with it
        both = {name: v for name, v in both.items() if name in ours or name not in ("license_name", "license_link")}
    for name in ("tags", "datasets"):
        if name in both:
            added = [value for value in _list(theirs.get(name)) if value not in _list(ours.get(name))]
            both[name] = [*_list(ours.get(name)), *added]
    widgets = [widget for widget in _list(theirs.get("widget")) if not _shows_our_sample(widget)]
    both["widget"] = [*_list(ours.get("widget")), *widgets]
    both["model-index"] = _results(_list(ours.get("model-index")), _list(theirs.get("model-index")))
    order = [*(name for name in KEYS if name in both), *(name for name in both if name not in KEYS)]
    return {name: both[name] for name in order if both[name] not in (None, [])}


def _list(value: object) -> list[object]:
    """A value of the front matter as a list: itself, of one value, or empty where it is not set."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _shows_our_sample(widget: object) -> bool:
    """Whether an entry of the key `widget` shows a picture of our gallery."""
    output = widget.get("output") if isinstance(widget, dict) else None
    return isinstance(output, dict) and str(output.get("url", "")).startswith("samples/")


def _results(ours: list[object], theirs: list[object]) -> list[object]:
    """A model-index of our new results and those of other tools, under the first name: the Hub's client reads one."""
    entries = [entry for entry in [*ours, *theirs] if isinstance(entry, dict)]
    own = [result for entry in entries[: len(ours)] for result in _list(entry.get("results"))]
    others = [result for entry in entries[len(ours) :] for result in _list(entry.get("results"))]
    results = [*own, *(result for result in others if f"'{TOOL}'" not in str(result))]
    return [{**entries[0], "results": results}] if results else []


def _split(card: str) -> tuple[FrontMatter, str]:
    """Front matter and text. Raises UserError where the front matter is no YAML mapping."""
    found = FRONT.match(card)
    if found is None:
        return {}, card
    try:
        data = yaml.safe_load(found.group(1)) or {}
        if not isinstance(data, dict):
            raise TypeError(f"it is a {type(data).__name__}, not a mapping")
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"The front matter of the existing card cannot be read: {one_line(error)}",
            "Mend it, or remove the lines between the two ---.",
        ) from error
    return data, card[found.end() :]


def _front(
    folder: Path, export: ExportRecord, evaluation: EvaluationRecord | None, fields: Mapping[str, str] | None, name: str
) -> FrontMatter:
    """The front matter of a generated card; `fields` are the licence's, `name` is that of the model."""
    facts, task = export.facts, task_of(export.facts)
    relation = RELATIONS["adapter" if export.lora and export.lora.file == layout.ADAPTER else "full"]
    base = {"base_model": facts.hub_id, "base_model_relation": relation} if facts.hub_id else {}
    results = _eval_results(evaluation, task or "other") if evaluation else []
    data: FrontMatter = {
        "library_name": "diffusers",
        "pipeline_tag": task,
        **_listed(fields or {}),
        **base,
        "tags": list(dict.fromkeys([*TAGS, *([task] if task else [])])),
        "widget": _widgets(folder, facts),
        "model-index": eval_results_to_model_index(name, results) if results else None,
    }
    return {key: data[key] for key in KEYS if data.get(key)}


def _listed(fields: Mapping[str, str]) -> FrontMatter:
    """Licence fields as front matter: several licences, which commas separate, become a list."""
    licences = fields.get("license", "").split(", ")
    return {**fields, "license": licences} if len(licences) > 1 else dict(fields)


def _yaml(data: FrontMatter) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000).strip()


def task_of(facts: Facts) -> str | None:
    """The Hub's name of the task, by what the samples are; None where it has none."""
    if facts.driver == "prompt":
        return f"text-to-{facts.modality}"
    return "unconditional-image-generation" if facts.modality == "image" else None


def _widgets(folder: Path, facts: Facts) -> list[dict[str, object]]:
    """An entry of the gallery for each of its files that is there."""
    return [
        {"text": card_text.caption(sample), "output": {"url": sample.file}}
        for sample in facts.gallery
        if (folder / sample.file).is_file()
    ]


def _eval_results(evaluation: EvaluationRecord, task: str) -> list[EvalResult]:
    """What `eval` measured of the student's two steps, as the Hub's model-index has it; finite values only."""
    two = next((row for row in evaluation.rows if row.who == "student" and row.steps == 2), None)
    if two is None:
        return []
    extractor, data = evaluation.extractor, public(evaluation.data)
    args = {
        "extractor": public(extractor.id), "sha256": extractor.sha256, "n": evaluation.n,
        "steps": 2, "seed": evaluation.seed, "by": TOOL,
    }  # fmt: skip
    how = f"({extractor.name}, N={evaluation.n}, 2 steps)"
    return [
        EvalResult(
            task_type=task,
            dataset_name=data,
            dataset_type=data,
            metric_type=key,
            metric_value=value,
            metric_name=f"{metric(key).name} {how}",
            metric_args={name: arg for name, arg in args.items() if arg is not None},
        )
        for key, value in two.metrics.items()
        if math.isfinite(value)
    ]
