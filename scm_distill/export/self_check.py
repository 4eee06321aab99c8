"""The self-check of an export: stock diffusers runs the folder, and its two steps are held against the student."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from scm_distill.artifacts import files
from scm_distill.artifacts.export_record import Arguments
from scm_distill.errors import UserError
from scm_distill.export.schedulers import Grid
from scm_distill.maths.clocks import EDMClock
from scm_distill.maths.compare import largest
from scm_distill.maths.cond import Cond, on_device
from scm_distill.maths.schedules import native
from scm_distill.maths.trigflow import denoise, diffuse
from scm_distill.models import lora
from scm_distill.models.network import Network
from scm_distill.sampling import pixel_student, stock_loop
from scm_distill.teachers import Teacher
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.stock_call import StockCall
from scm_distill.teachers.trace import Step, watch
from scm_distill.training.randomness import generator
from scm_distill.training.run import Trained

TOLERANCE = 1e-4  # largest difference between stock diffusers and ourselves, pixels in [-1, 1], or relative


@dataclass(frozen=True)
class Checked:
    """Largest and relative difference of stock diffusers to the trained student, in the units of its samples."""

    largest: float
    relative: float


@torch.no_grad()
def traced(
    folder: Path,
    student: Network,
    times: tuple[float, float],
    cond: Cond,
    call: Mapping[str, Any],
    stock: StockCall,
    pipeline: Any = None,
) -> Checked:
    """Run `pipeline(**call)` of a folder and repeat it with `student`. Raises UserError.

    `pipeline` is what was read from `folder`, on the device of the student; by default it is read here, on the CPU.

    The noise of the second step is the one draw that the stock scheduler made; where it has a generator of its own
    (EDM), it is the one that its own sample implies, so that there the second step is held against the first one's
    target only through the solver's formula.
    """
    pipeline = pipeline or DiffusionPipeline.from_pretrained(str(folder))
    saved = saved_scheduler(folder) or {"": "none"}
    if any(pipeline.scheduler.config.get(name) != value for name, value in saved.items() if name[:1] != "_"):
        raise UserError(
            f"{type(pipeline).__name__} brings its own scheduler along, whatever its folder says.",
            "No folder can make stock diffusers sample it in two steps, so it cannot be exported.",
        )
    return compare(pipeline, student, times, cond, call, stock)


def saved_scheduler(folder: Path) -> dict[str, object]:
    """The settings of an export's scheduler; empty where its pipeline saves none."""
    path = folder / "scheduler" / "scheduler_config.json"
    return files.read_json(path) if path.is_file() else {}


@torch.no_grad()
def compare(
    pipeline: Any, student: Network, times: tuple[float, float], cond: Cond, call: Mapping[str, Any], stock: StockCall
) -> Checked:
    """As `traced`, with a stock pipeline that is loaded already, on the device of `student`.

    Of a call that evaluates an unused half too, the other half is compared.
    """
    seen = watch(pipeline, {stock.denoiser: getattr(pipeline, stock.denoiser)}, call, steps=2)
    seen = stock.both.conditional(seen) if stock.both else seen
    counts = [len(step.calls) for step in seen.steps]
    batch = [len(next(iter(c.arguments.values()))) for s in seen.steps for c in s.calls]
    if counts != [1, 1] or batch != [1, 1]:
        raise UserError(
            f"Stock diffusers makes {counts} network calls of batch {batch} in two steps instead of one each.",
            "This is a fault of scm-distill: please report it with the run's config.yaml.",
            code=1,
        )
    convention: Any = student.call
    ours, first = repeat(student, convention, seen.steps, times, cond)
    theirs = seen.steps[1].prev_sample
    assert theirs is not None
    difference = theirs.reshape(ours.shape).float() - ours
    return Checked(float(difference.abs().max()), largest(first, float(difference.norm() / ours.norm())))


def repeat(
    student: Network, convention: Convention, steps: list[Step], times: tuple[float, float], cond: Cond
) -> tuple[Tensor, float]:
    """x_0 (1, ...) in two steps of our own from the noise of a stock call's steps.

    Also the relative difference of the first x_0 to the stock call's, where the noise had to be inferred from it.
    """
    sigma_d, device = student.sigma_d, next(student.parameters()).device
    cond = on_device(cond, device)
    t_max, t_mid = (torch.tensor([t], dtype=torch.float64, device=device) for t in times)
    start, middle = (native(student.prediction, t, sigma_d) for t in (t_max, t_mid))
    x_T = convention.sample(steps[0].calls[0].arguments).float()
    x = x_T / start.rho.to(x_T).reshape(-1, *[1] * (x_T.ndim - 1))
    x_0 = denoise(x, student(x / sigma_d, t_max, cond), t_max.float(), sigma_d)
    first = 0.0
    draws = [d for d in steps[0].draws if d.numel() == x.numel()]
    if len(draws) == 1:
        z = sigma_d * draws[0].reshape(x.shape).to(x)
        if isinstance(student.clock, EDMClock):  # the solver keeps a little of x_T, and adds that much less noise
            kept = float((t_mid.tan() / t_max.tan()) ** 2)
            x_T_edm = x / float(t_max.cos())
            x = float(t_mid.cos()) * (kept * x_T_edm + (1 - kept) * x_0 + float(t_mid.tan()) * (1 - kept) ** 0.5 * z)
        else:
            x = diffuse(x_0, z, t_mid.float())
    elif not isinstance(student.clock, EDMClock):
        raise UserError(
            f"The stock scheduler draws {len(draws)} noises for its second step, and not one.",
            "This is a fault of scm-distill: please report it with the run's config.yaml.",
            code=1,
        )
    else:  # a solver that draws from a process of its own
        wanted = sigma_d * float(t_mid.tan())
        first = abs((steps[1].sigma or wanted) - wanted) / wanted
        first_call = steps[0].calls[0]
        F_stock = start.to_F(convention.prediction(first_call.output, 1, first_call.arguments).float(), x)
        x_0_stock = denoise(x, F_stock, t_max.float(), sigma_d)
        first = largest(first, float((x_0_stock - x_0).norm() / x_0.norm()))
        x_in = convention.sample(steps[1].calls[0].arguments).float()
        x = x_in / middle.rho.to(x_in).reshape(-1, *[1] * (x_in.ndim - 1))
    return denoise(x, student(x / sigma_d, t_mid, cond), t_mid.float(), sigma_d), first


def alone(student: Network) -> Network:
    """A copy on the CPU in float32 with its adapters merged, to be run beside a reloaded folder."""
    copied = copy.deepcopy(student).cpu()
    lora.merge(copied.net)
    return copied.with_autocast(None)


@torch.no_grad()
def check(
    folder: Path, student: Network, best: Grid, trained: Trained, call: Arguments, pipeline: Any = None
) -> Checked:
    """Stock diffusers on `folder` against the trained student, two steps; `pipeline` as in `traced`."""
    teacher, times = trained.loaded.teacher, (best.t_max, best.t_mid)
    if teacher.reading is not None:
        stock_call, conditioning = teacher.reading.stock, trained.data.conditioning
        ids = conditioning.draw_ids(1, generator(0, "check"))
        prompt = trained.data.prompts[int(ids[0]) :][:1]
        driven = stock_call.arguments(prompt, 2)
        cond = conditioning.for_evaluation(ids)
        return traced(folder, student, times, cond, {**driven, **call}, stock_call, pipeline)
    return _check_pixel(pipeline or DiffusionPipeline.from_pretrained(str(folder)), student, times, teacher)


def _check_pixel(pipeline: Any, student: Network, times: tuple[float, float], teacher: Teacher, n: int = 4) -> Checked:
    """Four images. A class-conditional pipeline takes no labels; there its parts are run by the card's loop."""
    cond = teacher.cond(None if teacher.classes is None else torch.arange(n) % teacher.classes)
    mine = pixel_student.as_stock_does(student, stock_loop.seeded_noise(range(n), teacher.sample_shape, 2), times, cond)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    if teacher.classes is None:
        images = pipeline(batch_size=n, num_inference_steps=2, generator=generators, output_type="np").images
        theirs = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1
    else:
        x = torch.cat([torch.randn(1, *teacher.sample_shape, generator=g) for g in generators])
        theirs = stock_loop.loop(pipeline.unet, pipeline.scheduler, x, cond, 2, generators).clamp(-1, 1)
    difference = float((theirs - mine.clamp(-1, 1)).abs().max())
    return Checked(difference, difference)
