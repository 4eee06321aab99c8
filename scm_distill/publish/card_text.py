"""The generated body of a card, section by section, from facts alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scm_distill.artifacts.private import public
from scm_distill.publish.card_snippet import adapter, snippet

METRICS = {  # name in a table, and what it says
    "fd": ("Frechet distance ↓", "how far the samples' distribution is from the data's"),
    "kid": ("KID ↓", "the same by a polynomial kernel, unbiased in N"),
    "precision": ("precision ↑", "share of samples that lie among the data"),
    "recall": ("recall ↑", "share of the data that lies among the samples"),
    "endpoint": ("endpoint ↓", "distance to where the teacher's own ODE ends, from the same noise"),
    "diversity": ("diversity", "how far samples are from each other"),
    "clip_score": ("CLIP score ↑", "agreement of sample and prompt"),
}
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
    call: Mapping[str, Any],
    facts: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    licence: Mapping[str, str] | None,
    *,
    inherited: bool,
) -> str:
    """Everything below the front matter."""
    parts = [
        f"# {title}",
        *(["<Gallery />"] if facts["gallery"] else []),
        _summary(facts, evaluation),
        f"## Use\n\n{fenced(snippet(repo or 'path/to/this/folder', call, facts))}\n\n{_advice(call, facts)}",
        _sounds(facts),
        _adapter(repo or "path/to/this/folder", facts),
        f"## Student and teacher\n\n{_measured(evaluation) if evaluation else _distances(facts)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## How it was made\n\n{_made(folder, facts)}",
        f"## Licence\n\n{_licence(folder, facts, licence, inherited=inherited)}",
        f"## Citation\n\n{fenced(CITATION, 'bibtex')}\n\nCite the teacher as its own card asks.",
    ]
    return "\n\n".join(part for part in parts if part)


def caption(shown: Mapping[str, Any]) -> str:
    """What a picture of the gallery shows."""
    if "prompt" in shown:
        return str(shown["prompt"])
    return f"class {shown['label']}" if "label" in shown else f"seed {shown['seed']}"


def fenced(code: str, language: str = "python") -> str:
    """A block of code, whatever backticks it holds."""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code}{fence}"


def _teacher(facts: Mapping[str, Any]) -> str:
    """The teacher's name, with a link where it has a page."""
    hub = facts["hub_id"]
    return f"[{hub}](https://huggingface.co/{hub})" if hub else f"`{facts['base_model']}`"


def _summary(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    size = " x ".join(map(str, facts["sample_shape"]))
    what = f"{size} pixels" if facts["pixels"] else f"{facts['modality']}; latents {size}"
    given = {"prompt": "driven by prompts", "labels": f"{facts['classes']} classes", "none": "unconditional"}
    text = (
        f"{_teacher(facts)}, distilled by scm-distill with continuous-time consistency distillation (sCM, [Lu & Song "
        f"2024]({PAPER})), so that it makes a sample in **two network evaluations** ({what}; {given[facts['driver']]})."
        "\nStock diffusers runs it: no code of its own, no `trust_remote_code`."
    )
    ratios = (evaluation or {}).get("ratios") or {}
    said = []
    if "fd" in ratios:
        said.append(f"{ratios['fd']:.3g} times the Frechet distance")
    if "nfe" in ratios:
        said.append(f"{ratios['nfe']:.3g} times fewer network evaluations")
    if evaluation and "wall_clock" in ratios:
        said.append(f"{ratios['wall_clock']:.3g} times less time on {evaluation['device']}")
    if said:
        return f"{text}\n\nAgainst the teacher at its default steps: {', '.join(said)}."
    return (
        f"{text}\n\nNot measured yet by a metric on features, such as FID (`scm-distill eval`): below is what the run "
        "itself measured."
    )


def _advice(call: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What a user of the stock call must know."""
    if facts["pixels"]:
        lines = [
            "`num_inference_steps=2` must be given: the pipeline's own default is refused by the scheduler."
            if facts["classes"] is None
            else "`set_timesteps(2)` makes it two steps; the scheduler refuses more than a few.",
            "One generator per image makes image i independent of the batch.",
            "One step works too, at lower quality: see the table.",
            "It draws the first four pictures of the gallery, whose seeds are 0, 1, 2, ..." + _magnified(facts),
        ]
        return "\n".join(f"- {line}" for line in lines)
    lines = ["These arguments must be given as they are: " + ", ".join(f"`{k}={v!r}`" for k, v in call.items()) + "."]
    scale = facts["trained"]["guidance"]
    if isinstance(scale, list | tuple):
        lines.append(f"`guidance_scale` may be chosen from {scale[0]:g} to {scale[1]:g}.")
    elif scale is not None:
        lines.append(
            f"Guidance at scale {scale:g} is baked in: more of it, by `guidance_scale` or a negative prompt, is not "
            "what the student was trained for."
        )
    lines.append(
        "Many pipelines draw the second step's noise from the global generator: `generator=torch.manual_seed(s)`, "
        "which is that one, makes a call repeatable, `torch.Generator()` may not."
    )
    if facts["gallery"]:
        lines.append("On a CPU it draws the first sample of the gallery; the others are of seeds 1, 2, ...")
    return "\n".join(f"- {line}" for line in lines)


def _magnified(facts: Mapping[str, Any]) -> str:
    factor = facts["gallery"][0]["magnified"]
    height, width = facts["sample_shape"][-2:]
    return f" ({height} x {width} pixels, shown {factor} times larger)." if factor > 1 else "."


def _sounds(facts: Mapping[str, Any]) -> str:
    """Waveforms, linked to what they are of: a gallery shows pictures only."""
    sounds = [one for one in facts["gallery"] if one["file"].endswith(".wav")]
    rows = (f"[![seed {one['seed']}]({one['file'].removesuffix('.wav')}.png)]({one['file']})" for one in sounds)
    return "\n".join(rows)


def _adapter(path: str, facts: Mapping[str, Any]) -> str:
    """How the teacher's own pipeline becomes the student, where this folder holds the adapter."""
    lora = facts["lora"]
    if lora is None:
        return ""
    trained = f"The student was trained as an adapter of rank {lora['rank']} (alpha {lora['alpha']:g})"
    if not lora.get("file"):
        return f"{trained}; this folder holds it merged into the weights."
    return (
        f"### As an adapter\n\n{trained}. Beside the merged pipeline, `{lora['file']}` turns the teacher's own into it:"
        f"\n\n{fenced(adapter(path, facts))}"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bold(cells: list[str], *, really: bool) -> list[str]:
    return [f"**{cell}**" if really and cell else cell for cell in cells]


def _measured(evaluation: Mapping[str, Any]) -> str:
    """What `scm-distill eval` measured."""
    rows = evaluation["rows"]
    found = {name for row in rows for name in row["metrics"]}
    names = [*(name for name in METRICS if name in found), *sorted(found - set(METRICS))]
    head = ["", "scheduler", "steps", "network evaluations", "ms a sample"]
    cells = [
        _bold(
            [row["who"], row["scheduler"], str(row["steps"]), f"{row['nfe']:g}", f"{row['ms_per_sample']:.3g}"]
            + [_number(row["metrics"].get(name)) for name in names],
            really=row["who"] == "student" and row["steps"] == 2,
        )
        for row in rows
    ]
    extractor, versions = evaluation["extractor"], evaluation.get("versions") or {}
    identity = f", sha256 `{extractor['sha256'][:12]}`" if extractor.get("sha256") else ""
    resize = f", resize: {extractor['resize']}" if extractor.get("resize") else ""
    said = "; ".join(f"{METRICS[name][0].rstrip(' ↑↓')}: {METRICS[name][1]}" for name in names if name in METRICS)
    return (
        f"{_table([*head, *(METRICS.get(name, (name,))[0] for name in names)], cells)}\n\n"
        f"{evaluation['n']:,} samples against {public(evaluation['data'])}, seed {evaluation['seed']}; features of "
        f"{extractor['name']} (`{public(extractor['id'])}`{identity}{resize}). Times on {evaluation['device']}, "
        f"{evaluation['dtype']}, side by side. {evaluation['date']}"
        f"{', ' if versions else ''}{', '.join(f'{name} {v}' for name, v in versions.items())}.\n\n{said}."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _distances(facts: Mapping[str, Any]) -> str:
    """What the export itself measured, without an extractor."""
    rows = [
        _bold(
            [str(row["sampler"]), str(row["nfe"]), f"{row['distance']:.4g}"],
            really=row["sampler"] == "student" and row["nfe"] == 2,
        )
        for row in facts["table"]
    ]
    space = "pixels" if facts["pixels"] else "latents"
    count = f"{facts['samples']:,} samples against {facts.get('reference', facts['samples']):,} of the data"
    return (
        f"{_table(['sampler', 'network evaluations', 'distance to the data ↓'], rows)}\n\n"
        f"Frechet distance on the means and contrasts of blocks of the {space}, {count}, by no "
        "feature extractor:\nthese figures compare with each other, and with nothing outside this table."
    )


def _limits(facts: Mapping[str, Any]) -> str:
    flow = facts["scheduler"].startswith("FlowMatch")
    lines = [
        "Trained and checked for two steps." + (" One step is not possible." if flow else ""),
        "Checked in float32 on a CPU; half precision was not part of it.",
        "What its teacher knows, gets wrong and should not show, the student does too: nothing was filtered or added.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _made(folder: Path, facts: Mapping[str, Any]) -> str:
    made, search = facts["trained"], facts["search"]
    data = {"teacher": "samples of the teacher", "files": "samples of a data set"}.get(
        made["data"], f"`{made['data']}`"
    )
    scale = made["guidance"]
    guided = (
        "none" if scale is None else f"{scale:g}" if isinstance(scale, int | float) else f"{scale[0]:g} to {scale[1]:g}"
    )
    revision = f" at revision `{facts['revision']}`" if facts["revision"] else ""
    recipe = " ([the whole recipe](training/config.yaml))" if (folder / "training" / "config.yaml").is_file() else ""
    times = ["t_mid", *(f"{one['t_mid']:.4g}" for one in search)]
    found = ["distance", *(f"{one['distance']:.4g}" for one in search)]
    for i, one in enumerate(search, start=1):
        if one["t_mid"] == facts["t_mid"]:
            times[i], found[i] = _bold([times[i], found[i]], really=True)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"Teacher: {_teacher(facts)}{revision}, `{facts['pipeline']}`; the student's scheduler is "
        f"`{facts['scheduler']}`.",
        f"Data: {data}, {made['samples']:,} of them; guidance: {guided}.",
        f"Training{recipe}: {made['steps']:,} steps of batch {made['batch_size']:,}, {made['velocity']} velocity, "
        f"{made['optimizer']} at {made['lr']:g}, {made['precision']}, seed {made['seed']}.",
        f"Prediction: `{facts['prediction_type']}`, sigma_d {facts['sigma_d']:g}. Sampling: t_max "
        f"{facts['t_max']:.4f}, then t_mid {facts['t_mid']:.4f}, the best of those searched (below).",
        f"Check: stock diffusers, run on this folder, reproduced the trained student to {facts['difference']:.1e}.",
        f"Made with {versions}.",
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n\n" + _table(times, [found])


def _licence(folder: Path, facts: Mapping[str, Any], known: Mapping[str, str] | None, *, inherited: bool) -> str:
    files = sorted(p.name for pattern in LICENCE_FILES for p in folder.glob(pattern) if p.is_file())
    kept = f" See {', '.join(f'[{name}]({name})' for name in files)}." if files else ""
    if known is None:
        return (
            f"Not known: the teacher, {_teacher(facts)}, states none that could be read. A student derives from its "
            f"teacher\nand its data: find out what theirs allow before you use or share it.{kept}"
        )
    name = f"`{known.get('license_name') or known['license']}`"
    if link := known.get("license_link"):
        name = f"[{name}]({link})"
    whose = f"inherited from its teacher, {_teacher(facts)}" if inherited else "as given by who published it"
    return f"{name}, {whose}.{kept}"
