"""The generated body of a card, section by section: Markdown made of scm_distill.json and eval.json alone."""

from collections.abc import Mapping
from pathlib import Path

from scm_distill.artifacts.evaluation_record import METRICS, EvaluationRecord, Row, metric
from scm_distill.artifacts.export_record import Adapter, ExportRecord, Facts, Sample
from scm_distill.artifacts.private import public
from scm_distill.publish.card_snippet import adapter, snippet

LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")
PAPER = "https://arxiv.org/abs/2410.11081"
CITATION = """\
@inproceedings{lu2025simplifying,
  title     = {Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models},
  author    = {Lu, Cheng and Song, Yang},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  url       = {https://arxiv.org/abs/2410.11081}
}
"""


def body(
    folder: Path,
    title: str,
    repo: str | None,
    export: ExportRecord,
    evaluation: EvaluationRecord | None,
    licence: Mapping[str, str] | None,
    *,
    inherited: bool,
) -> str:
    """Everything below the front matter.

    `folder` is the export, looked at for licence files and training/config.yaml; `repo` its name on the Hub. `licence`
    are the front matter's licence fields, `inherited` whether they are the teacher's.
    """
    facts, path = export.facts, repo or "path/to/this/folder"
    parts = [
        f"# {title}",
        *(["<Gallery />"] if facts.gallery else []),
        _summary(facts, evaluation),
        f"## Use\n\n{fenced(snippet(path, export.call, facts))}\n\n{_advice(export)}",
        _sounds(facts),
        _adapter(path, export.lora, facts) if export.lora else "",
        f"## Student and teacher\n\n{_measured(evaluation) if evaluation else _distances(facts)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## How it was made\n\n{_made(folder, facts)}",
        f"## Licence\n\n{_licence(folder, facts, licence, inherited=inherited)}",
        f"## Citation\n\n{fenced(CITATION, 'bibtex')}\n\nCite the teacher as its own card asks.",
    ]
    return "\n\n".join(part for part in parts if part)


def caption(sample: Sample) -> str:
    """What a sample of the gallery was drawn for: its prompt or class, or else its seed."""
    if sample.prompt is not None:
        return sample.prompt
    return f"class {sample.label}" if sample.label is not None else f"seed {sample.seed}"


def fenced(code: str, language: str = "python") -> str:
    """A Markdown block of code, whatever backticks it holds."""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code}{fence}"


def guidance_text(scale: float | tuple[float, float] | None) -> str:
    """The scale of classifier-free guidance that a student learnt, or the range of scales, in words."""
    if scale is None:
        return "none"
    return f"{scale[0]:g} to {scale[1]:g}" if isinstance(scale, tuple) else f"{scale:g}"


def _teacher(facts: Facts) -> str:
    """The teacher's name, with a link where it has a page."""
    hub = facts.hub_id
    return f"[{hub}](https://huggingface.co/{hub})" if hub else f"`{facts.base_model}`"


def _summary(facts: Facts, evaluation: EvaluationRecord | None) -> str:
    """What the model is and, in ratios to the teacher, how good and fast."""
    size = " x ".join(map(str, facts.sample_shape))
    samples = f"{size} pixels" if facts.pixels else f"{facts.modality}; latents {size}"
    driven = {"prompt": "driven by prompts", "labels": f"{facts.classes} classes", "none": "unconditional"}
    text = (
        f"{_teacher(facts)}, distilled by scm-distill with continuous-time consistency distillation (sCM, [Lu & Song "
        f"2024]({PAPER})), so that it makes a sample in **two network evaluations** "
        f"({samples}; {driven[facts.driver]}).\n"
        "Stock diffusers runs it: no code of its own, no `trust_remote_code`."
    )
    if evaluation is None or evaluation.ratios is None:
        return (
            f"{text}\n\nNot measured yet by a metric on features, such as FID (`scm-distill eval`): below is what the "
            "run itself measured."
        )
    ratios = evaluation.ratios
    return (
        f"{text}\n\nAgainst the teacher at its default steps: {ratios.fd:.3g} times the Fréchet distance, "
        f"{ratios.nfe:.3g} times fewer network evaluations, {ratios.wall_clock:.3g} times less time on "
        f"{evaluation.device}."
    )


def _advice(export: ExportRecord) -> str:
    """What a user of the stock call must know."""
    lines = _advice_on_pixels(export.facts) if export.facts.pixels else _advice_on_latents(export)
    return "\n".join(f"- {line}" for line in lines)


def _advice_on_pixels(facts: Facts) -> list[str]:
    """For pipelines that are called as DDPM's."""
    return [
        "`num_inference_steps=2` must be given: the pipeline's own default is refused by the scheduler."
        if facts.classes is None
        else "`set_timesteps(2)` makes it two steps; the scheduler refuses more than a few.",
        "One generator per image makes image i independent of the batch.",
        "One step works too, at lower quality: see the table.",
        "It draws the first four pictures of the gallery, whose seeds are 0, 1, 2, ..." + _magnified(facts),
    ]


def _advice_on_latents(export: ExportRecord) -> list[str]:
    """For pipelines that decode latents."""
    arguments = ", ".join(f"`{name}={value!r}`" for name, value in export.call.items())
    lines = [f"These arguments must be given as they are: {arguments}."]
    scale = export.facts.trained.guidance
    if isinstance(scale, tuple):
        lines.append(f"`guidance_scale` may be chosen from {guidance_text(scale)}.")
    elif scale is not None:
        lines.append(
            f"Guidance at scale {guidance_text(scale)} is baked in: more of it, by `guidance_scale` or a negative "
            "prompt, is not what the student was trained for."
        )
    lines.append(
        "Many pipelines draw the second step's noise from the global generator: `generator=torch.manual_seed(s)`, "
        "which is that one, makes a call repeatable, `torch.Generator()` may not."
    )
    if export.facts.gallery:
        lines.append("On a CPU it draws the first sample of the gallery; the others are of seeds 1, 2, ...")
    return lines


def _magnified(facts: Facts) -> str:
    """The end of a sentence about the gallery: how much larger it shows small pictures."""
    factor = facts.gallery[0].magnified if facts.gallery else 1
    if factor == 1:
        return "."
    height, width = facts.sample_shape[-2:]
    return f" ({height} x {width} pixels, shown {factor} times larger)."


def _sounds(facts: Facts) -> str:
    """Links to the sounds of the gallery, each on a picture of its waveform; a gallery itself shows pictures only."""
    sounds = [sample for sample in facts.gallery if sample.file.endswith(".wav")]
    return "\n".join(
        f"[![seed {sample.seed}]({sample.file.removesuffix('.wav')}.png)]({sample.file})" for sample in sounds
    )


def _adapter(path: str, lora: Adapter, facts: Facts) -> str:
    """How the teacher's own pipeline becomes the student, where this folder holds the adapter."""
    trained = f"The student was trained as an adapter of rank {lora.rank} (alpha {lora.alpha:g})"
    if not lora.file:
        return f"{trained}; this folder holds it merged into the weights."
    return (
        f"### As an adapter\n\n{trained}. Beside the merged pipeline, `{lora.file}` turns the teacher's own into it:"
        f"\n\n{fenced(adapter(path, lora, facts))}"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bold(cells: list[str], *, when: bool) -> list[str]:
    return [f"**{cell}**" if when and cell else cell for cell in cells]


def _measured(evaluation: EvaluationRecord) -> str:
    """What `scm-distill eval` measured: a table, the circumstances, and what each metric says."""
    found = {key for row in evaluation.rows for key in row.metrics}
    keys = [*(key for key in METRICS if key in found), *sorted(found - set(METRICS))]
    head = ["", "scheduler", "steps", "network evaluations", "ms a sample", *(metric(key).title for key in keys)]
    cells = [_bold(_cells(row, keys), when=row.who == "student" and row.steps == 2) for row in evaluation.rows]
    extractor = evaluation.extractor
    identity = f", sha256 `{extractor.sha256[:12]}`" if extractor.sha256 else ""
    resize = f", resize: {extractor.resize}" if extractor.resize else ""
    flagged = f" ({evaluation.flagged:,} left out, flagged by a safety checker)" if evaluation.flagged else ""
    packages = "".join(f", {name} {version}" for name, version in evaluation.versions.items())
    meanings = "; ".join(f"{METRICS[key].name}: {METRICS[key].meaning}" for key in keys if key in METRICS)
    return (
        f"{_table(head, cells)}\n\n"
        f"{evaluation.n:,} samples against {public(evaluation.data)}, seed {evaluation.seed}{flagged}; features of "
        f"{extractor.name} (`{public(extractor.id)}`{identity}{resize}). Times on {evaluation.device}, "
        f"{evaluation.dtype}, side by side. {evaluation.date}{packages}.\n\n{meanings}."
    )


def _cells(row: Row, keys: list[str]) -> list[str]:
    """A row of the table, with the metrics of `keys`; empty where a metric was not measured."""
    figures = [f"{row.metrics[key]:.4g}" if key in row.metrics else "" for key in keys]
    return [row.who, row.scheduler, str(row.steps), f"{row.nfe:g}", f"{row.ms_per_sample:.3g}", *figures]


def _distances(facts: Facts) -> str:
    """What the export itself measured, without a feature extractor."""
    rows = [
        _bold(
            [row.sampler, str(row.nfe), f"{row.distance:.4g}"],
            when=row.sampler == "student" and row.nfe == 2,
        )
        for row in facts.table
    ]
    space = "pixels" if facts.pixels else "latents"
    return (
        f"{_table(['sampler', 'network evaluations', 'distance to the data ↓'], rows)}\n\n"
        f"Fréchet distance on the means and contrasts of blocks of the {space}, {facts.samples:,} samples against "
        f"{facts.reference:,} of the data, by no feature extractor:\n"
        "these figures compare with each other, and with nothing outside this table."
    )


def _limits(facts: Facts) -> str:
    flow = facts.scheduler.startswith("FlowMatch")
    lines = [
        "Trained and checked for two steps." + (" One step is not possible." if flow else ""),
        *(f"{doubt}." for doubt in facts.doubts),
        *_safety(facts),
        "Checked in float32 on a CPU; half precision was not part of it.",
        "What its teacher knows, gets wrong and should not show, the student does too: nothing was filtered or added.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _safety(facts: Facts) -> list[str]:
    """What a reader should know of the safety checker, where there is one."""
    if facts.safety_checker is None:
        return []
    count = sum(sample.flagged for sample in facts.gallery)
    shown = f" It flagged {count} of the {len(facts.gallery)} samples of the gallery." if count else ""
    return [f"Its safety checker, `{facts.safety_checker}`, is its teacher's: what it flags is returned black.{shown}"]


def _made(folder: Path, facts: Facts) -> str:
    """The run: teacher, data, training, times, check and versions."""
    trained = facts.trained
    data = {"teacher": "samples of the teacher", "files": "samples of a data set"}.get(
        trained.data, f"`{trained.data}`"
    )
    revision = f" at revision `{facts.revision}`" if facts.revision else ""
    recipe = " ([the whole recipe](training/config.yaml))" if (folder / "training" / "config.yaml").is_file() else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    lines = [
        f"Teacher: {_teacher(facts)}{revision}, `{facts.pipeline}`; the student's scheduler is `{facts.scheduler}`.",
        f"Data: {data}, {trained.samples:,} of them; guidance: {guidance_text(trained.guidance)}.",
        f"Training{recipe}: {trained.steps:,} steps of batch {trained.batch_size:,}, {trained.velocity} velocity, "
        f"{trained.optimizer} at {trained.lr:g}, {trained.precision}, seed {trained.seed}.",
        f"Prediction: `{facts.prediction_type}`, sigma_d {facts.sigma_d:g}. Sampling: t_max "
        f"{facts.t_max:.4f}, then t_mid {facts.t_mid:.4f}, the best of those searched (below).",
        f"Check: stock diffusers, run on this folder, reproduced the trained student to {facts.difference:.1e}.",
        f"Made with {versions}.",
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n\n" + _search(facts)


def _search(facts: Facts) -> str:
    """The distances to the data that were found for each t_mid, with the chosen one in bold."""
    columns = [
        _bold([f"{tried.t_mid:.4g}", f"{tried.distance:.4g}"], when=tried.t_mid == facts.t_mid)
        for tried in facts.search
    ]
    times, distances = (list(cells) for cells in zip(("t_mid", "distance"), *columns, strict=True))
    return _table(times, [distances])


def _licence(folder: Path, facts: Facts, fields: Mapping[str, str] | None, *, inherited: bool) -> str:
    """Under which licence, whose it is, and the files with its text."""
    files = sorted(p.name for pattern in LICENCE_FILES for p in folder.glob(pattern) if p.is_file())
    texts = f" See {', '.join(f'[{name}]({name})' for name in files)}." if files else ""
    if fields is None:
        return (
            f"Not known: the teacher, {_teacher(facts)}, states none that could be read. A student derives from its "
            f"teacher\nand its data: find out what theirs allow before you use or share it.{texts}"
        )
    name = f"`{fields.get('license_name') or fields['license']}`"
    if link := fields.get("license_link"):
        name = f"[{name}]({link})"
    whose = f"inherited from its teacher, {_teacher(facts)}" if inherited else "as given by who published it"
    return f"{name}, {whose}.{texts}"
