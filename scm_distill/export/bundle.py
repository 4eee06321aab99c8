"""Export: search t_mid, put it on the stock scheduler's grid, write the folder, check it against ourselves."""

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DiffusionPipeline, LCMScheduler
from safetensors.torch import save_file
from torch import Tensor

from scm_distill import config
from scm_distill.data import Images
from scm_distill.errors import UserError
from scm_distill.evaluation import stock
from scm_distill.evaluation.metrics import block_features, frechet
from scm_distill.export import card
from scm_distill.export import student as students
from scm_distill.maths.schedules import alphas_cumprod_of
from scm_distill.models import adapt
from scm_distill.models.student import Cond, Network, in_chunks
from scm_distill.teachers import Teacher
from scm_distill.training.compare import sample
from scm_distill.training.draws import generator
from scm_distill.training.loop import Trained
from scm_distill.training.report import Reporter

MOST_STEPS = 8  # of an exported student; its two-step times are the same for any even number
TOLERANCE = 1e-4  # largest difference between stock diffusers and ourselves, pixels in [-1, 1]


@dataclass(frozen=True)
class Exported:
    """Where the student is, and what was measured on the way."""

    folder: Path
    t_max: float
    t_mid: float
    table: list[dict[str, float | str | int]]  # sampler, network evaluations, distance to the data
    search: list[dict[str, float]]  # t_mid, distance
    difference: float  # stock diffusers against ourselves


@dataclass(frozen=True)
class Grid:
    """Times that an LCMScheduler can express: `original` is its original_inference_steps."""

    original: int
    t_max: float
    t_mid: float


def write(trained: Trained, out: Path, report: Reporter) -> Exported:
    """Write `out` (the run's export folder), complete or not at all. Raises UserError if it does not check."""
    recipe, network = trained.recipe, trained.student
    reference, eps, cond = _reference(trained)
    report.begin("export", 3)
    grids = _grids(trained)
    search = [
        {"t_mid": grid.t_mid, "distance": _distance(network, reference, eps, cond, (grid.t_max, grid.t_mid))}
        for grid in grids
    ]
    best = grids[min(range(len(grids)), key=lambda i: search[i]["distance"])]
    report.say(
        "t_mid search, distance to the data: " + ", ".join(f"{s['t_mid']:.3g}: {s['distance']:.4g}" for s in search)
    )
    report.advance(1)
    table = _table(trained, reference, eps, cond, best)
    report.advance(2)
    beside = out.with_name(out.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    facts = {
        "base_model": trained.parts.teacher.name,
        "sigma_d": repr(network.sigma_d),
        "t_max": repr(best.t_max),
        "t_mid": repr(best.t_mid),
        "steps": "2",
        "prediction_type": network.prediction,
    }
    student = copy.deepcopy(network).cpu()
    student.autocast = None
    try:
        _save(*_stock(student, best, recipe, report), best, beside, facts)
        (beside / "t_mid_search.json").write_text(json.dumps({"chosen": best.t_mid, "search": search}, indent=1) + "\n")
        difference = check(beside, student, (best.t_max, best.t_mid), trained.parts.teacher)
        if not difference <= TOLERANCE:
            raise UserError(
                f"The export differs from the student by {difference:.2e} when stock diffusers runs it.",
                "This is a fault of scm-distill: please report it with the run's config.yaml.",
                code=1,
            )
        card.write(beside, trained, facts, table, difference)
        _swap(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    report.advance(3)
    report.end()
    report.say(f"stock diffusers reproduces the student's two steps to {difference:.1e}")
    return Exported(out, best.t_max, best.t_mid, table, search, difference)


def _swap(new: Path, out: Path) -> None:
    """Put `new` where `out` was; a complete one is on disk at every moment."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _stock(student: Network, best: Grid, recipe: config.Recipe, report: Reporter) -> tuple[Network, Tensor]:
    """The student as a stock network, and the schedule (alphas_cumprod) it runs by."""
    if not recipe.adapt.reclock:
        stock_network = Network(adapt.fold(student.net), student.clock, student.prediction, student.sigma_d)
        return stock_network, alphas_cumprod_of(student.clock.phi, student.sigma_d)
    t = adapt.clock(student.clock.t_min, best.t_mid, best.t_max)
    stock_network, error = adapt.reclock(student, t)
    report.say(
        f"clock: t_mid {best.t_mid:.4g} and t_max {best.t_max:.4g} on the grid; "
        f"elsewhere the time embedding is off by {error:.2%}"
    )
    return stock_network, alphas_cumprod_of(t, student.sigma_d)


@torch.no_grad()
def check(folder: Path, student: Network, times: tuple[float, float], teacher: Teacher, n: int = 4) -> float:
    """Largest difference between stock diffusers on `folder` and the trained student, two steps, pixels in [-1, 1].

    A class-conditional pipeline takes no labels; there its own network and scheduler are run by the card's loop.
    """
    cond = teacher.cond(None if teacher.classes is None else torch.arange(n) % teacher.classes)
    mine = students.as_stock_does(student, stock.seeded_noise(range(n), teacher.sample_shape, 2), times, cond)
    pipeline: Any = DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    if teacher.classes is None:
        images = pipeline(batch_size=n, num_inference_steps=2, generator=generators, output_type="np").images
        return float((torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1 - mine.clamp(-1, 1)).abs().max())
    x = torch.cat([torch.randn(1, *teacher.sample_shape, generator=g) for g in generators])
    theirs = stock.loop(pipeline.unet, pipeline.scheduler, x, cond, 2, generators)
    return float((theirs.clamp(-1, 1) - mine.clamp(-1, 1)).abs().max())


def _reference(trained: Trained) -> tuple[Tensor, Tensor, Cond]:
    """Features of real images, as many noises, and those images' conditions."""
    images: Images = trained.parts.images
    n, seed = trained.recipe.export.samples, trained.recipe.train.seed
    device = next(trained.student.parameters()).device
    order = torch.randperm(len(images), generator=generator(seed, "export images"))[:n].tolist()
    pairs = [images.__getitems__(order[i : i + 256]) for i in range(0, len(order), 256)]
    x_0, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    eps = torch.randn(2, n, *x_0.shape[1:], generator=generator(seed, "export noise")).to(device)
    labels = labels[torch.arange(n) % len(labels)]
    return block_features(x_0), eps, {k: v.to(device) for k, v in trained.parts.teacher.cond(labels).items()}


def _grids(trained: Trained) -> list[Grid]:
    """The (t_max, t_mid) to search: the recipe's, or without re-clocking what the teacher's own schedule offers."""
    recipe, clock = trained.recipe, trained.student.clock
    if recipe.adapt.reclock:
        return [Grid(MOST_STEPS, trained.parts.t_max, t_mid) for t_mid in recipe.export.t_mid]
    scheduler = LCMScheduler(num_train_timesteps=len(clock.phi))
    found: dict[tuple[int, int], int] = {}
    for original in range(2, min(50, len(clock.phi)) + 1):
        scheduler.set_timesteps(2, original_inference_steps=original)
        top, middle = (int(k) for k in scheduler.timesteps)
        found.setdefault((top, middle), original)
    return [
        Grid(original, float(clock.phi[top]), float(clock.phi[middle])) for (top, middle), original in found.items()
    ]


def _distance(network: Network, reference: Tensor, eps: Tensor, cond: Cond, times: tuple[float, ...]) -> float:
    x = sample(network, eps, cond, times).clamp(-1, 1)
    return frechet(reference, block_features(x).cpu()) if x.isfinite().all() else float("inf")


def _table(
    trained: Trained, reference: Tensor, eps: Tensor, cond: Cond, best: Grid
) -> list[dict[str, float | str | int]]:
    """Distance to the data of the teacher and the student, by network evaluations."""
    parts, times = trained.parts, (best.t_max, best.t_mid)

    def ddim(draw: Tensor, cond: Cond) -> Tensor:
        return stock.ddim(parts.teacher.net, parts.teacher.scheduler, draw, cond, stock.TEACHER_STEPS)

    with adapt.original(parts.F_teacher.net):
        teacher = in_chunks(ddim, parts.F_teacher.chunk, eps[0], cond=cond).clamp(-1, 1)
        undistilled = _distance(parts.F_teacher, reference, eps, cond, times)
    rows: Sequence[tuple[str, int, float]] = (
        ("teacher, DDIM", stock.TEACHER_STEPS, frechet(reference, block_features(teacher).cpu())),
        ("teacher, undistilled", 2, undistilled),
        ("student", 1, _distance(trained.student, reference, eps, cond, times[:1])),
        ("student", 2, _distance(trained.student, reference, eps, cond, times)),
    )
    return [{"sampler": name, "evaluations": steps, "distance": distance} for name, steps, distance in rows]


def _save(network: Network, alphas_cumprod: Tensor, grid: Grid, folder: Path, facts: dict[str, str]) -> None:
    bar = alphas_cumprod.double()
    betas = 1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    scheduler = LCMScheduler(
        num_train_timesteps=len(bar),
        trained_betas=betas.tolist(),
        prediction_type=network.prediction,
        original_inference_steps=grid.original,
        timestep_scaling=1e10,  # c_skip = 0, c_out = 1 to float32 from index 1 on: a consistency model without a skip
        clip_sample=False,
        rescale_betas_zero_snr=False,
    )
    net: Any = network.net
    DDPMPipeline(unet=net, scheduler=scheduler).save_pretrained(str(folder))
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, folder / "student.safetensors", metadata={"format": "pt", **facts})
