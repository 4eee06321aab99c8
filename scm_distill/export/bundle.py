"""Export: search t_mid, put it on the stock scheduler's grid, write the folder, check it against ourselves."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDPMPipeline, DiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from scm_distill import config
from scm_distill.errors import UserError
from scm_distill.evaluation import stock
from scm_distill.evaluation.metrics import block_features, frechet
from scm_distill.export import card, facts, gallery, lora, schedulers
from scm_distill.export import check as checks
from scm_distill.export import student as students
from scm_distill.export.check import Checked
from scm_distill.export.reverse import reverse
from scm_distill.export.schedulers import Grid
from scm_distill.maths.clocks import EDMClock, spaced
from scm_distill.maths.sampling import ode
from scm_distill.maths.schedules import alphas_cumprod_of, flow_time
from scm_distill.models import adapt
from scm_distill.models.student import Cond, Network
from scm_distill.teachers import Teacher
from scm_distill.training import build
from scm_distill.training.compare import sample
from scm_distill.training.draws import generator
from scm_distill.training.given import on
from scm_distill.training.loop import Trained
from scm_distill.training.report import Reporter

CALL = card.FACTS  # in an export: the arguments of its two-step call, and what its card says
TOLERANCE = 1e-4  # largest difference between stock diffusers and ourselves, pixels in [-1, 1], or relative


@dataclass(frozen=True)
class Exported:
    """Where the student is, and what was measured on the way."""

    folder: Path
    t_max: float
    t_mid: float
    table: list[dict[str, float | str | int]]  # sampler, network evaluations, distance to the data
    search: list[dict[str, float]]  # t_mid, distance
    difference: float  # stock diffusers against ourselves, relative (pixels: largest)
    call: dict[str, Any]  # the arguments of the two-step stock call, beside the prompt


def write(trained: Trained, out: Path, report: Reporter) -> Exported:
    """Write `out` (the run's export folder), complete or not at all. Raises UserError if it does not check."""
    network = trained.student
    _recover(out)
    card.check(out / "README.md")
    reference, eps, cond = _reference(trained)
    report.begin("export", 3)
    found = grids(trained)
    search = [
        {"t_mid": grid.t_mid, "distance": _distance(network, reference, eps, cond, (grid.t_max, grid.t_mid))}
        for grid in found
    ]
    best = found[min(range(len(found)), key=lambda i: search[i]["distance"])]
    report.say(
        "t_mid search, distance to the data: " + ", ".join(f"{s['t_mid']:.3g}: {s['distance']:.4g}" for s in search)
    )
    report.advance(1)
    table = _table(trained, reference, eps, cond, best)
    report.advance(2)
    beside = out.with_name(out.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        call, checked = fill(beside, trained, best, table, search, report)
        card.write(beside, out / "README.md")
        _swap(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    report.advance(3)
    report.end()
    report.say(f"stock diffusers reproduces the student's two steps to {checked.relative:.1e}")
    return Exported(out, best.t_max, best.t_mid, table, search, checked.relative, call)


def fill(
    folder: Path,
    trained: Trained,
    best: Grid,
    table: list[dict[str, float | str | int]],
    search: list[dict[str, float]],
    report: Reporter,
) -> tuple[dict[str, Any], Checked]:
    """Write all of an export but its card; the two-step call, and the check. Raises UserError if it does not check."""
    network = trained.student
    metadata = {
        "base_model": trained.parts.teacher.name,
        "sigma_d": repr(network.sigma_d),
        "t_max": repr(best.t_max),
        "t_mid": repr(best.t_mid),
        "steps": "2",
        "prediction_type": network.prediction,
    }
    student = checks.alone(network)
    call = save(trained, student, best, folder, metadata, report)
    facts.forget_paths(folder)
    facts.copy_licence(trained.parts.teacher.source.repo, folder)
    (folder / "t_mid_search.json").write_text(json.dumps({"chosen": best.t_mid, "search": search}, indent=1) + "\n")
    checked = check(folder, student, best, trained, call)
    if not checked.relative <= TOLERANCE:
        raise UserError(
            f"The export differs from the student by {checked.relative:.2e} when stock diffusers runs it.",
            "This is a fault of scm-distill: please report it with the run's config.yaml.",
            code=1,
        )
    adapter = lora.write(folder, trained, student, best, call, report)
    shown = gallery.write(folder, trained, call, report)
    known = facts.collect(folder, trained, best, table, search, checked, shown)
    (folder / CALL).write_text(json.dumps({"call": call, "lora": adapter, "facts": known}, indent=1) + "\n")
    return call, checked


def _recover(out: Path) -> None:
    """Put back an export that a killed process had moved aside."""
    old = out.with_name(out.name + ".old")
    if old.exists() and not out.exists():
        old.rename(out)


def _swap(new: Path, out: Path) -> None:
    """Put `new` where `out` was; one of them is on disk at every moment, if only as `.old`."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def save(
    trained: Trained, student: Network, best: Grid, folder: Path, metadata: dict[str, str], report: Reporter
) -> dict[str, Any]:
    """Write the pipeline folder and student.safetensors; the arguments of its two-step call."""
    teacher = trained.parts.teacher
    if teacher.reading is None:
        net, bar = _pixel(student, best, trained.recipe, report)
        scheduler = schedulers.discrete(bar, student.prediction, best.original)
        DDPMPipeline(unet=net, scheduler=scheduler).save_pretrained(str(folder))
        call: dict[str, Any] = {"num_inference_steps": 2}
    else:
        net, scheduler, call = _traced(trained, student, best)
        parts = {teacher.reading.stock.denoiser: net, "scheduler": scheduler, **teacher.family.parts()}
        teacher.source.load(**parts).save_pretrained(str(folder))
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, folder / "student.safetensors", metadata={"format": "pt", **metadata})
    return call


def _pixel(student: Network, best: Grid, recipe: config.Recipe, report: Reporter) -> tuple[Any, Tensor]:
    """A pixel UNet as a stock network, and the schedule (alphas_cumprod) it runs by."""
    clock: Any = student.clock
    if recipe.adapt.reclock is False:
        return adapt.fold(student.net), alphas_cumprod_of(clock.phi, student.sigma_d)
    t = adapt.clock(clock.t_min, best.t_mid, best.t_max)
    stock_network, error = adapt.reclock(student, t)
    report.say(
        f"clock: t_mid {best.t_mid:.4g} and t_max {best.t_max:.4g} on the grid; "
        f"elsewhere the time embedding is off by {error:.2%}"
    )
    return stock_network.net, alphas_cumprod_of(t, student.sigma_d)


def _traced(trained: Trained, student: Network, best: Grid) -> tuple[Any, Any, dict[str, Any]]:
    """Any other denoiser as a stock network, its scheduler, and the arguments of the call beside the prompt."""
    teacher, given = trained.parts.teacher, trained.prepared.given
    reading, family = teacher.reading, teacher.family
    assert reading is not None
    net = adapt.fold(student.net)
    kind, old = reading.schedule.kind, teacher.scheduler
    scheduler: Any
    if kind == "vp":
        assert teacher.alphas_cumprod is not None
        scheduler = schedulers.discrete(teacher.alphas_cumprod, student.prediction, best.original)
    elif kind == "flow":
        scheduler = schedulers.flow(old, best, student.sigma_d, in_call=family.times_in_call)
    else:
        scheduler = schedulers.edm(old, best, cast(EDMClock, student.clock))
    if kind == "flow" and old.config.get("invert_sigmas", False):
        witness = reading.witnesses[0]
        total = float(student.clock.index(torch.tensor(0.0)).round())
        net = reverse(student, net, witness.x_nat.cpu(), on(witness.cond, torch.device("cpu")), total)
    call: dict[str, Any] = {"num_inference_steps": 2, **reading.stock.extra}
    if reading.convention.scale_of or isinstance(trained.recipe.guidance.scale, tuple):
        call["guidance_scale"] = given.typical_scale
    elif reading.stock.guided_by == "guidance_scale" and not family.carries_no_guidance:
        call["guidance_scale"] = reading.off
    if family.times_in_call:
        t_mid = torch.tensor(best.t_mid, dtype=torch.float64)
        top = float(student.clock.index(torch.tensor(best.t_max, dtype=torch.float64)).round())
        call["timesteps"] = [int(top), int(student.clock.index(t_mid).round())]
        call["sigmas"] = [1.0, float(flow_time(t_mid, student.sigma_d))]
    return family.exported(net), scheduler, call


@torch.no_grad()
def check(folder: Path, student: Network, best: Grid, trained: Trained, call: dict[str, Any]) -> Checked:
    """Stock diffusers on `folder` against the trained student, two steps."""
    teacher, times = trained.parts.teacher, (best.t_max, best.t_mid)
    if teacher.reading is not None:
        stock_call, given = teacher.reading.stock, trained.prepared.given
        ids = given.some(1, generator(0, "check"))
        prompt = [trained.prepared.prompts[int(ids[0])]]
        driven = stock_call.arguments(prompt, 2)
        return checks.traced(folder, student, times, given.typical(ids), {**driven, **call}, stock_call.denoiser)
    return _check_pixel(folder, student, times, teacher)


def _check_pixel(folder: Path, student: Network, times: tuple[float, float], teacher: Teacher, n: int = 4) -> Checked:
    """Four images. A class-conditional pipeline takes no labels; there its parts are run by the card's loop."""
    cond = teacher.cond(None if teacher.classes is None else torch.arange(n) % teacher.classes)
    mine = students.as_stock_does(student, stock.seeded_noise(range(n), teacher.sample_shape, 2), times, cond)
    pipeline: Any = DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    if teacher.classes is None:
        images = pipeline(batch_size=n, num_inference_steps=2, generator=generators, output_type="np").images
        theirs = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1
    else:
        x = torch.cat([torch.randn(1, *teacher.sample_shape, generator=g) for g in generators])
        theirs = stock.loop(pipeline.unet, pipeline.scheduler, x, cond, 2, generators).clamp(-1, 1)
    largest = float((theirs - mine.clamp(-1, 1)).abs().max())
    return Checked(largest, largest)


def _reference(trained: Trained) -> tuple[Tensor, Tensor, Cond]:
    """Features of the data, as many noises, and conditions: those of the data where they may share a batch."""
    data, given = trained.prepared.data, trained.prepared.given
    n, seed = trained.recipe.export.samples, trained.recipe.train.seed
    device = next(trained.student.parameters()).device
    order = torch.randperm(len(data), generator=generator(seed, "export images"))[:n].tolist()
    pairs = [data.__getitems__(order[i : i + 256]) for i in range(0, len(order), 256)]
    x_0, ids = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    eps = torch.randn(2, n, *x_0.shape[1:], generator=generator(seed, "export noise")).to(device)
    ids = ids[torch.arange(n) % len(ids)]
    if given.conditions is not None and (given.conditions.bucket[ids] != given.conditions.bucket[ids[0]]).any():
        ids = given.some(n, generator(seed, "export conditions"))
    return block_features(x_0), eps, on(given.typical(ids), device)


def grids(trained: Trained) -> list[Grid]:
    """The (t_max, t_mid) to search: the recipe's, or what the teacher's own schedule offers."""
    recipe, student, teacher = trained.recipe, trained.student, trained.parts.teacher
    clock: Any = student.clock
    if build.reclocks(recipe, teacher):
        return [Grid(trained.parts.t_max, t_mid, schedulers.MOST_STEPS) for t_mid in recipe.export.t_mid]
    if teacher.alphas_cumprod is not None:
        return schedulers.discrete_grid(clock.phi, recipe.export.t_mid)
    if isinstance(clock, EDMClock):
        return [Grid(clock.t_max, t_mid) for t_mid in recipe.export.t_mid]
    return schedulers.flow_grid(recipe.export.t_mid, clock, student.sigma_d, whole=teacher.family.times_in_call)


def _distance(network: Network, reference: Tensor, eps: Tensor, cond: Cond, times: tuple[float, ...]) -> float:
    x = sample(network, eps, cond, times)
    return frechet(reference, block_features(x).cpu()) if x.isfinite().all() else float("inf")


def _table(
    trained: Trained, reference: Tensor, eps: Tensor, cond: Cond, best: Grid
) -> list[dict[str, float | str | int]]:
    """Distance to the data of the teacher and the student, by network evaluations."""
    parts, times = trained.parts, (best.t_max, best.t_mid)
    F = parts.F_teacher
    path = spaced(F.clock, best.t_max, stock.TEACHER_STEPS)
    with adapt.original(F.net):
        x_T = F.sigma_d * eps[0]
        ddim = ode(lambda x, t: F(x, t, cond), x_T, path, F.sigma_d, heun=False)
        undistilled = _distance(F, reference, eps, cond, times)
    rows: Sequence[tuple[str, int, float]] = (
        ("teacher, DDIM", len(path), frechet(reference, block_features(ddim).cpu())),
        ("teacher, undistilled", 2, undistilled),
        ("student", 1, _distance(trained.student, reference, eps, cond, times[:1])),
        ("student", 2, _distance(trained.student, reference, eps, cond, times)),
    )
    return [{"sampler": name, "evaluations": steps, "distance": distance} for name, steps, distance in rows]
