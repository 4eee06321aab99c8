"""`inspect`: what can be found out about a teacher without training, and a recipe to start from."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scm_distill import config, teachers
from scm_distill.autodiff.forward_ad import without_tf32
from scm_distill.commands import short_of_memory
from scm_distill.commands.arguments import AnyPath, Overrides, read_recipe
from scm_distill.commands.quiet import quiet
from scm_distill.commands.results import ExportCheck, InspectResult, TangentCheck
from scm_distill.errors import UserError
from scm_distill.export import rehearsal
from scm_distill.export.self_check import TOLERANCE
from scm_distill.maths.cond import Cond, on_device
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.progress import Reporter, Silent
from scm_distill.teachers.latents import latent_map
from scm_distill.training import derivative, networks
from scm_distill.training.batches import micro_batch
from scm_distill.training.memory.plan import Planner
from scm_distill.training.student import new_student, shares

TIMES = 8  # at which the tangent is checked and smoothing is measured


@quiet()
@short_of_memory.told("Out of memory", "Ask for a smaller sample, such as -s teacher.call.height=256.")
@without_tf32()
def inspect(
    teacher: AnyPath, *, overrides: Overrides = (), export_check: bool = True, report: Reporter | None = None
) -> InspectResult:
    """What a teacher is, whether it can be distilled, and the recipe to start from; nothing is written.

    `teacher` is a pipeline folder, a Hub id, builtin:NAME or a single .safetensors file; `overrides` as in
    `read_recipe`, such as {"teacher.call.height": 512}. With `export_check` the untrained student is exported to a
    temporary folder and sampled by stock diffusers. Raises UserError for a teacher that cannot be read, or exported.
    """
    report = report or Silent()
    report.begin("inspect", 4)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe, loaded = _open(str(teacher), overrides, device, report)
    read = loaded.teacher
    report.advance(1)
    F = loaded.F_teacher
    with tempfile.TemporaryDirectory(prefix="scm-distill-") as temporary:
        prepared = rehearsal.probe_data(recipe, read, Path(temporary) / "conditions")
        cond = on_device(prepared.conditioning.for_evaluation(torch.zeros(TIMES, dtype=torch.long)), device)
        t = torch.linspace(F.clock.t_min, loaded.t_max, TIMES + 2, dtype=torch.float64, device=device)[1:-1]
        noise = torch.randn(TIMES, *read.sample_shape, generator=torch.Generator().manual_seed(0))
        x_t = F.sigma_d * noise.to(device)
        layers = low_pass.prepare(F, x_t, t, cond)
        width = low_pass.widest(F, x_t, t, cond, recipe.adapt.tolerance) if layers else 0.0
        low_pass.set_width(F.net, width)
        report.advance(2)
        # Its parameters are the teacher's own: no second copy of them is made.
        untrained = partial(new_student, loaded, recipe, x_t, t, cond, Silent(), views=not shares(recipe))
        student = untrained()
        memory = sum(Planner(student, F, x_t / F.sigma_d, t, cond, device).resident(recipe).values())
        tangent = _tangent(student, x_t, t, cond)
        adaptation = _adaptation(loaded, student, layers, width)
        del student
        report.advance(3)
        found = _latents(read) if read.reading is not None else None
        exported = None
        if export_check:
            place = Path(temporary) / "export"
            rehearsed = rehearsal.rehearse(recipe, loaded, prepared, untrained, place, report)
            exported = ExportCheck(float(f"{rehearsed.difference:.2e}"), rehearsed.call)
    report.advance(4)
    report.end()
    return InspectResult(
        **_facts(loaded),
        adaptation=adaptation,
        tangent=tangent,
        latent_map=found,
        export=exported,
        training_memory=memory,
        verdict=_verdict(tangent, exported),
        recipe=_start(loaded, recipe),
    )


def _verdict(tangent: TangentCheck, exported: ExportCheck | None) -> str:
    if exported is not None and not exported.stock_difference <= TOLERANCE:
        off = exported.stock_difference
        return f"cannot be exported: stock diffusers differs from scm-distill's sampler by {off:.1e}"
    if not tangent.exact:
        return "can be distilled with objective.tangent=difference: it has no exact derivative"
    assert tangent.difference is not None
    if not tangent.difference <= derivative.AGREE:
        return f"cannot be trusted: its exact derivative differs from a difference by {tangent.difference:.1e}"
    return "can be distilled"


def _open(
    repo: str, overrides: Overrides, device: torch.device, report: Reporter
) -> tuple[config.Recipe, networks.LoadedTeacher]:
    """The teacher, and a recipe about it that only carries settings; sigma_d follows an EDM teacher."""
    content = {"teacher": {"repo": repo}, "data": {"source": "teacher"}, "train": {"steps": 1, "batch_size": 1}}
    recipe = read_recipe({**content, "export": {"t_mid": [1.1]}}, overrides)
    loaded = networks.load_teacher(recipe, device, micro_batch(recipe, 1), own_sigma_d=True, report=report)
    sigma_d = loaded.F_teacher.sigma_d
    return read_recipe(recipe, {"objective.sigma_d": sigma_d}), loaded


def _facts(loaded: networks.LoadedTeacher) -> dict[str, Any]:
    """The fields of InspectResult that the reading of the teacher decides."""
    teacher, F, reading = loaded.teacher, loaded.F_teacher, loaded.teacher.reading
    facts: dict[str, Any] = {
        "pipeline": type(reading.stock.pipeline).__name__ if reading else "pixel pipeline of a UNet2DModel",
        "denoiser": type(teacher.family.student(teacher.net)).__name__,
        "parameters": sum(p.numel() for p in teacher.net.parameters()),
        "sample_shape": tuple(teacher.sample_shape),
        "prediction": teacher.prediction,
        "scheduler": type(teacher.scheduler).__name__,
        "t_min": F.clock.t_min,
        "t_max": loaded.t_max,
        "doubts": loaded.doubts,
        "network_time": _time(loaded),
    }
    if reading is None:
        conditions = f"{teacher.classes} classes" if teacher.classes else "none"
        return {**facts, "modality": None, "conditions": conditions, "guidance": None, "verified": None}
    convention = reading.convention
    batched = [*convention.batched, *sorted(convention.listed - {convention.x}), *sorted(convention.shared)]
    rule = reading.rule
    guidance = f"{reading.stock.guided_by}: {rule}, {rule.says_off}" if rule else None
    return {
        **facts,
        "modality": reading.modality,
        "conditions": f"{reading.stock.driver}; {', '.join(batched) or 'no arguments'}",
        "guidance": guidance or f"none: {reading.no_guidance}",
        "verified": {name: float(f"{error:.2e}") for name, error in loaded.verified.items()},
    }


def _time(loaded: networks.LoadedTeacher) -> str:
    reading = loaded.teacher.reading
    if reading is None or reading.schedule.kind == "vp":
        return f"is the index, 0 to {len(loaded.teacher.alphas_cumprod) - 1}"  # type: ignore[arg-type]
    return reading.schedule.note


def _adaptation(loaded: networks.LoadedTeacher, student: Network, layers: list[str], width: float) -> str:
    smooth = (
        f"low-pass of {width:g} steps in front of {', '.join(layers[:3])}{' ...' * (len(layers) > 3)}"
        if layers
        else "no layer reads sinusoids of the time, so none is smoothed"
    )
    before = loaded.F_teacher.prediction
    output = f"{before} becomes v" if student.prediction != before else f"{before} needs no change"
    return f"{smooth}; output: {output}"


def _tangent(F: Network, x_t: torch.Tensor, t: torch.Tensor, cond: Cond) -> TangentCheck:
    try:
        error, dtype = derivative.exactness(F, x_t, t, cond)
    except NotImplementedError as missing:
        return TangentCheck(exact=False, difference=None, dtype=None, why=str(missing).splitlines()[0])
    return TangentCheck(exact=True, difference=float(f"{error:.2e}"), dtype=dtype, why=None)


def _latents(teacher: teachers.Teacher) -> str:
    assert teacher.reading is not None
    try:
        found = latent_map(teacher.reading)
    except UserError as error:
        return error.problem
    scale, shift = (
        f"{v.min():.4g}" + (f" to {v.max():.4g}" if v.min() != v.max() else "") for v in (found.scale, found.shift)
    )
    return f"{' x '.join(map(str, found.pixels[1:]))} of data; decoder input is latents x {scale} + {shift}"


def _start(loaded: networks.LoadedTeacher, recipe: config.Recipe) -> dict[str, Any]:
    """The settings that this teacher needs, as a recipe."""
    reading = loaded.teacher.reading
    start: dict[str, Any] = {
        "teacher": recipe.teacher.model_dump(mode="json", exclude_defaults=True),
        "data": {"source": "teacher", "samples": 4096},
    }
    if reading is None:
        start["data"] = {"source": "FOLDER_OF_IMAGES"}
    else:
        if reading.stock.driver == "prompt":
            start["data"]["prompts"] = "prompts.txt"
        default = reading.stock.default_scale if reading.rule else None
        guidance = recipe.guidance.model_dump(mode="json", exclude_defaults=True)
        if default is not None and default != reading.off:
            guidance = {"scale": default, **guidance}
        if guidance:
            start["guidance"] = guidance
    if recipe.objective.sigma_d != 1:
        start["objective"] = {"sigma_d": recipe.objective.sigma_d}
    start["optimizer"] = {"lr": 1e-4 if sum(p.numel() for p in loaded.F_teacher.parameters()) < 5e8 else 2e-6}
    start["train"] = {"steps": 20000, "batch_size": 256, "micro_batch_size": 8, "evaluate_samples": 16}
    return start
