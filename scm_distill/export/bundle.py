"""Export: search t_mid, put it on the stock scheduler's grid, write the folder, check it against ourselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDPMPipeline
from torch import Tensor

from scm_distill import config
from scm_distill.artifacts import files, layout, private
from scm_distill.artifacts.export_record import Arguments, Distance, ExportRecord, Searched, SearchRecord
from scm_distill.artifacts.files import atomically, save_tensors
from scm_distill.errors import UserError
from scm_distill.export import facts, gallery, lora, schedulers, self_check
from scm_distill.export.reversed_flow import reverse
from scm_distill.export.schedulers import Grid
from scm_distill.export.self_check import Checked, check
from scm_distill.export.t_mid import data_reference, distance_table, distance_to_data, grids
from scm_distill.maths.clocks import EDMClock, alphas_cumprod_of, flow_time
from scm_distill.maths.cond import on_device
from scm_distill.models import low_pass, reclock
from scm_distill.models.network import Network
from scm_distill.progress import Reporter
from scm_distill.publish import card, licence
from scm_distill.training.run import Trained

TOLERANCE = 1e-4  # largest difference between stock diffusers and ourselves, pixels in [-1, 1], or relative


@dataclass(frozen=True)
class Exported:
    """Where the student is, and what was measured on the way."""

    folder: Path
    t_max: float  # radians
    t_mid: float  # radians
    table: tuple[Distance, ...]
    search: tuple[Searched, ...]
    difference: float  # stock diffusers against ourselves, relative (pixels: largest)
    call: Arguments  # of the two-step stock call, beside the prompt


def write(trained: Trained, out: Path, report: Reporter) -> Exported:
    """Write `out` (the run's export folder), complete or not at all. Raises UserError if it does not check."""
    network = trained.student
    files.recover(out)
    card.check(out / layout.CARD)
    reference, eps, cond = data_reference(trained)
    report.begin("export", 3)
    found = grids(trained)
    search = tuple(
        Searched(t_mid=grid.t_mid, distance=distance_to_data(network, reference, eps, cond, (grid.t_max, grid.t_mid)))
        for grid in found
    )
    best = found[min(range(len(found)), key=lambda i: search[i].distance)]
    report.say("t_mid search, distance to the data: " + ", ".join(f"{s.t_mid:.3g}: {s.distance:.4g}" for s in search))
    report.advance(1)
    table = distance_table(trained, reference, eps, cond, best)
    report.advance(2)
    with atomically(out) as beside:
        call, checked = fill(beside, trained, best, table, search, report)
        card.write(beside, out / layout.CARD)
    report.advance(3)
    report.end()
    report.say(f"stock diffusers reproduces the student's two steps to {checked.relative:.1e}")
    return Exported(out, best.t_max, best.t_mid, table, search, checked.relative, call)


def fill(
    folder: Path,
    trained: Trained,
    best: Grid,
    table: tuple[Distance, ...],
    search: tuple[Searched, ...],
    report: Reporter,
) -> tuple[Arguments, Checked]:
    """Write all of an export but its card; the two-step call, and the check. Raises UserError if it does not check."""
    network = trained.student
    metadata = {
        "base_model": trained.loaded.teacher.name,
        "sigma_d": repr(network.sigma_d),
        "t_max": repr(best.t_max),
        "t_mid": repr(best.t_mid),
        "steps": "2",
        "prediction_type": network.prediction,
    }
    student = self_check.alone(network)
    call = save(trained, student, best, folder, metadata, report)
    private.forget_paths(folder)
    licence.copy_licence(trained.loaded.teacher.source.repo, folder)
    SearchRecord(chosen=best.t_mid, search=search).write(folder / layout.SEARCH)
    checked = check(folder, student, best, trained, call)
    if not checked.relative <= TOLERANCE:
        raise UserError(
            f"The export differs from the student by {checked.relative:.2e} when stock diffusers runs it.",
            "This is a fault of scm-distill: please report it with the run's config.yaml.",
            code=1,
        )
    adapter = lora.write(folder, trained, student, best, call, report)
    gallery_samples = gallery.write(folder, trained, call, report)
    known = facts.collect(folder, trained, best, table, search, checked, gallery_samples)
    ExportRecord(call=call, lora=adapter, facts=known).write(folder / layout.FACTS)
    files.follow_umask(folder)
    return call, checked


def save(
    trained: Trained, student: Network, best: Grid, folder: Path, metadata: dict[str, str], report: Reporter
) -> Arguments:
    """Write the pipeline folder and student.safetensors; the arguments of its two-step call."""
    teacher = trained.loaded.teacher
    if teacher.reading is None:
        net, bar = _pixel(student, best, trained.recipe, report)
        scheduler = schedulers.discrete(bar, student.prediction, best.original)
        DDPMPipeline(unet=net, scheduler=scheduler).save_pretrained(str(folder))
        call: Arguments = {"num_inference_steps": 2}
    else:
        net, scheduler, call = _traced(trained, student, best)
        parts = {teacher.reading.stock.denoiser: net, "scheduler": scheduler, **teacher.parts()}
        teacher.source.load(**parts).save_pretrained(str(folder))
    save_tensors(net.state_dict(), folder / layout.WEIGHTS, {"format": "pt", **metadata})
    return call


def _pixel(student: Network, best: Grid, recipe: config.Recipe, report: Reporter) -> tuple[Any, Tensor]:
    """A pixel UNet as a stock network, and the schedule (alphas_cumprod) it runs by."""
    clock: Any = student.clock
    if recipe.adapt.reclock is False:
        return low_pass.fold(student.net), alphas_cumprod_of(clock.phi, student.sigma_d)
    t = reclock.clock(clock.t_min, best.t_mid, best.t_max)
    stock_network, error = reclock.reclock(student, t)
    report.say(
        f"clock: t_mid {best.t_mid:.4g} and t_max {best.t_max:.4g} on the grid; "
        f"elsewhere the time embedding is off by {error:.2%}"
    )
    return stock_network.net, alphas_cumprod_of(t, student.sigma_d)


def _traced(trained: Trained, student: Network, best: Grid) -> tuple[Any, Any, Arguments]:
    """Any other denoiser as a stock network, its scheduler, and the arguments of the call beside the prompt."""
    teacher, conditioning = trained.loaded.teacher, trained.data.conditioning
    reading, family = teacher.reading, teacher.family
    assert reading is not None
    net = low_pass.fold(student.net)
    kind, old = reading.schedule.kind, teacher.scheduler
    scheduler: Any
    if kind == "vp":
        assert teacher.alphas_cumprod is not None
        scheduler = schedulers.discrete(teacher.alphas_cumprod, student.prediction, best.original)
        if "variance_type" in old.config:  # some pipelines ask whether their scheduler takes a learned variance
            scheduler.register_to_config(variance_type="fixed_small")
    elif kind == "flow":
        scheduler = schedulers.flow(old, best, student.sigma_d, in_call=family.times_in_call)
    else:
        scheduler = schedulers.edm(old, best, cast(EDMClock, student.clock))
    if kind == "flow" and old.config.get("invert_sigmas", False):
        reference_step = reading.reference_steps[0]
        total = float(student.clock.network_time(torch.tensor(0.0)).round())
        cond = on_device(reference_step.cond, torch.device("cpu"))
        net = reverse(student, net, reference_step.x_nat.cpu(), cond, total)
    call: Arguments = {"num_inference_steps": 2, **reading.stock.extra}
    if reading.convention.scale_of or isinstance(trained.recipe.guidance.scale, tuple):
        call["guidance_scale"] = conditioning.evaluation_scale
    elif reading.stock.guided_by == "guidance_scale" and not family.carries_no_guidance:
        call["guidance_scale"] = reading.off
    if family.times_in_call:
        t_mid = torch.tensor(best.t_mid, dtype=torch.float64)
        top = float(student.clock.network_time(torch.tensor(best.t_max, dtype=torch.float64)).round())
        call["timesteps"] = [int(top), int(student.clock.network_time(t_mid).round())]
        call["sigmas"] = [1.0, float(flow_time(t_mid, student.sigma_d))]
    return family.exported(net), scheduler, call
