"""README.md of an export, from what its folder holds: scm_distill.json, eval.json, samples/ and the licence files.

The generated text lies between two HTML comments; what a user writes outside them, or adds to the front matter, stays.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from scm_distill.artifacts.layout import EVALUATION, _read_json, read_facts
from scm_distill.artifacts.private import public
from scm_distill.errors import UserError, one_line
from scm_distill.publish import card_text
from scm_distill.publish.licence import licence

BEGIN, END = "<!-- scm-distill: begin -->", "<!-- scm-distill: end -->"
TOOL = "scm-distill"  # marks our results in a model-index
KEYS = (
    "library_name", "pipeline_tag", "license", "license_name", "license_link", "base_model", "base_model_relation",
    "datasets", "tags", "widget", "model-index",
)  # fmt: skip
TAGS = ("diffusers", "diffusers-training", "consistency-distillation", "scm", "distillation", "few-step")
RELATIONS = {"full": "finetune", "adapter": "adapter"}  # the Hub has no "distilled" (huggingface_hub issue 3985)
ADAPTER = "pytorch_lora_weights.safetensors"
FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:\r?\n|(?<=\n))---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def render(folder: Path, repo: str | None = None, license: str | None = None) -> str:
    """The text of the card of an export that is, or will be, the Hub repository `repo`.

    `license` replaces the teacher's. Raises UserError where the folder holds no facts.
    """
    call, facts = read_facts(folder)
    evaluation = _read_json(folder / EVALUATION) if (folder / EVALUATION).is_file() else None
    known = licence(facts, license, folder)
    title = f"Two-step student of {facts['base_model']}"
    data = _front(folder, facts, evaluation, known, repo.rsplit("/", maxsplit=1)[-1] if repo else title)
    body = card_text.body(folder, title, repo, call, facts, evaluation, known, inherited=license is None)
    return f"---\n{data}\n---\n\n{BEGIN}\n{body}\n{END}\n"


def write(folder: Path, existing: Path | None = None) -> None:
    """Write `folder`/README.md, and keep what a user added to the one before (`existing`, or the folder's own)."""
    path = folder / "README.md"
    before, text = existing or path, render(folder)
    if before.is_file():
        text = merged(text, before.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


def check(path: Path) -> None:
    """Raise UserError for a card with which `write` could not go on; before the work whose figures it is to hold."""
    if path.is_file() and BEGIN in (text := path.read_text(encoding="utf-8")):
        merged(f"{BEGIN}{END}", text)


def merged(fresh: str, existing: str) -> str:
    """`fresh`, with the user's share of `existing`: front matter that we do not set, and prose outside the comments.

    Prose of a card without the comments stays above the generated text. Raises UserError where that cannot be told.
    """
    ours, body = _split(fresh)
    theirs, prose = _split(existing)
    generated = body[body.index(BEGIN) : body.index(END) + len(END)]
    if BEGIN in prose:
        above, _, rest = prose.partition(BEGIN)
        _, closed, below = rest.partition(END)
        if not closed:
            raise UserError(
                f"The card has a line {BEGIN}, and none {END} after it.",
                "Put the second line back below the generated text, or remove the first and that text.",
            )
        text = above + generated + below
    else:
        text = f"{prose.strip()}\n\n{generated}\n".lstrip()
    return f"---\n{_yaml(_united(ours, theirs))}\n---\n\n{text.lstrip()}"


def _united(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The front matter of both; where both set a key of ours, ours holds."""
    both = {**theirs, **ours}
    if ours.get("license", theirs.get("license")) != theirs.get("license"):  # its name and link go with it
        both = {name: v for name, v in both.items() if name in ours or name not in ("license_name", "license_link")}
    for name in ("tags", "datasets"):
        if name in both:
            both[name] = list(dict.fromkeys([*_list(ours.get(name)), *_list(theirs.get(name))]))
    both["widget"] = [*_list(ours.get("widget")), *(one for one in _list(theirs.get("widget")) if not _sample(one))]
    both["model-index"] = _results(_list(ours.get("model-index")), _list(theirs.get("model-index")))
    order = [*(name for name in KEYS if name in both), *(name for name in both if name not in KEYS)]
    return {name: both[name] for name in order if both[name] not in (None, [])}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _sample(widget: Any) -> bool:
    """Whether an entry shows a picture of ours."""
    output = widget.get("output") if isinstance(widget, dict) else None
    return isinstance(output, dict) and str(output.get("url", "")).startswith("samples/")


def _results(ours: list[Any], theirs: list[Any]) -> list[Any]:
    """Evaluations, under the one name that the Hub's client reads: ours anew, those of others as they are."""
    entries = [*ours, *(one for one in theirs if isinstance(one, dict))]
    kept = [one for entry in entries[len(ours) :] for one in _list(entry.get("results")) if f"'{TOOL}'" not in str(one)]
    results = [*(one for entry in ours for one in entry["results"]), *kept]
    return [{**entries[0], "results": results}] if results else []


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and text. Raises UserError for a front matter that is none."""
    found = FRONT.match(card)
    if found is None:
        return {}, card
    try:
        data = yaml.safe_load(found.group(1)) or {}
        if not isinstance(data, dict):
            raise TypeError(f"it is a {type(data).__name__}, not a mapping")
    except (yaml.YAMLError, TypeError) as error:
        reason = one_line(error)
        raise UserError(
            f"The front matter of the card that is there cannot be read: {reason}",
            "Mend it, or remove the lines between the two ---.",
        ) from error
    return data, card[found.end() :]


def _front(
    folder: Path, facts: dict[str, Any], evaluation: dict[str, Any] | None, known: dict[str, str] | None, name: str
) -> str:
    task = task_of(facts)
    relation = RELATIONS["adapter" if (facts["lora"] or {}).get("file") == ADAPTER else "full"]
    base = {"base_model": facts["hub_id"], "base_model_relation": relation} if facts["hub_id"] else {}
    evaluated = _evaluated(evaluation, task or "other")
    data = {
        "library_name": "diffusers",
        "pipeline_tag": task,
        **(known or {}),
        **base,
        "tags": list(dict.fromkeys([*TAGS, *([task] if task else [])])),
        "widget": _widget(folder, facts),
        "model-index": eval_results_to_model_index(name, evaluated) if evaluated else None,
    }
    return _yaml({key: data[key] for key in KEYS if data.get(key)})


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000).strip()


def task_of(facts: dict[str, Any]) -> str | None:
    """The Hub's name of the task, by what the samples are; None where it has none."""
    if facts["driver"] == "prompt":
        return f"text-to-{facts['modality']}"
    return "unconditional-image-generation" if facts["modality"] == "image" else None


def _widget(folder: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"text": card_text.caption(one), "output": {"url": one["file"]}}
        for one in facts["gallery"]
        if (folder / one["file"]).is_file()
    ]


def _evaluated(evaluation: dict[str, Any] | None, task: str) -> list[EvalResult]:
    """What `eval` measured of the student's two steps."""
    rows = [row for row in (evaluation or {}).get("rows", ()) if row["who"] == "student" and row["steps"] == 2]
    if evaluation is None or not rows:
        return []
    extractor, data = evaluation["extractor"], public(evaluation["data"])
    args = {
        "extractor": public(extractor["id"]), "sha256": extractor.get("sha256"), "n": evaluation["n"],
        "steps": 2, "seed": evaluation["seed"], "by": TOOL,
    }  # fmt: skip
    about = f"({extractor['name']}, N={evaluation['n']}, 2 steps)"
    return [
        EvalResult(
            task_type=task,
            dataset_name=data,
            dataset_type=data,
            metric_type=name,
            metric_value=value,
            metric_name=f"{card_text.METRICS.get(name, (name, ''))[0].rstrip(' ↑↓')} {about}",
            metric_args={key: one for key, one in args.items() if one is not None},
        )
        for name, value in rows[0]["metrics"].items()
        if value is not None and math.isfinite(value)
    ]
