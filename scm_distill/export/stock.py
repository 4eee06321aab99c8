"""A student as stock diffusers has it: network, scheduler and call, and the pipeline folder that holds them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from diffusers import DDPMPipeline, DiffusionPipeline
from torch import Tensor, nn

from scm_distill import config
from scm_distill.artifacts.export_record import Arguments
from scm_distill.export import schedulers
from scm_distill.export.reversed_flow import reverse
from scm_distill.export.schedulers import Grid
from scm_distill.maths.clocks import EDMClock, alphas_cumprod_of, flow_time
from scm_distill.maths.cond import on_device
from scm_distill.models import low_pass, reclock
from scm_distill.models.network import Network
from scm_distill.models.sharing import filled
from scm_distill.progress import Reporter
from scm_distill.teachers.trace import patched
from scm_distill.training.run import Trained


@dataclass(frozen=True)
class Stock:
    """A student in stock parts. `parts` are all components and settings that differ from its teacher's pipeline."""

    denoiser: str  # the name of the component
    net: Any
    parts: Mapping[str, Any]  # the denoiser and the scheduler among them
    call: Arguments  # of the two-step call, beside the prompt


def made(
    trained: Trained, student: Network, best: Grid, report: Reporter, *, iterations: int = reclock.ITERATIONS
) -> Stock:
    """The stock parts of `student`, whose adapters are merged; what export does not change, its network shares with it.

    A clock of its own is fitted in at most so many iterations.
    """
    teacher, reading = trained.loaded.teacher, trained.loaded.teacher.reading
    if reading is None:
        net, bar = _pixel(student, best, trained.recipe, report, iterations)
        parts = {"unet": net, "scheduler": schedulers.discrete(bar, student.prediction, best.original)}
        return Stock("unet", net, parts, {"num_inference_steps": 2})
    net, scheduler, call = _traced(trained, student, best)
    name = reading.stock.denoiser
    return Stock(name, net, {name: net, "scheduler": scheduler, **teacher.parts()}, call)


def pipeline(trained: Trained, stock: Stock) -> Any:
    """The student's pipeline; the teacher's other components are loaded once more, as they are in its own folder."""
    teacher = trained.loaded.teacher
    return DDPMPipeline(**stock.parts) if teacher.reading is None else teacher.source.load(**stock.parts)


def shared_pipeline(trained: Trained, stock: Stock) -> Any:
    """The student's pipeline; its other components are those of the teacher in memory."""
    reading = trained.loaded.teacher.reading
    if reading is None:
        return DDPMPipeline(**stock.parts)
    made = copy.copy(reading.stock.pipeline)
    components = {n: part for n, part in stock.parts.items() if isinstance(made.config.get(n), list | tuple)}
    made.register_modules(**components)
    made.register_to_config(**{n: value for n, value in stock.parts.items() if n not in components})
    return made


def modules(pipeline: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline by the names of their components."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def size(pipeline: Any) -> int:
    """The bytes of all weights of a pipeline."""
    tensors = {id(x): x for part in modules(pipeline).values() for x in (*part.parameters(), *part.buffers())}
    return sum(x.nbytes for x in tensors.values())


def save_without_weights(pipeline: Any, folder: Path) -> None:
    """As `pipeline.save_pretrained(folder)`, but of a network the configuration only."""
    with ExitStack() as stack:
        for part in modules(pipeline).values():
            stack.enter_context(_weightless(part))
        pipeline.save_pretrained(str(folder))


@contextmanager
def _weightless(part: Any) -> Iterator[None]:
    """A context in which the `save_pretrained` of a network of diffusers or transformers writes no weights."""
    write = part.save_config if hasattr(part, "save_config") else part.config.save_pretrained
    with patched(part, "save_pretrained", lambda folder, **_: write(folder)):
        yield


def read_back(folder: Path, written: Any, denoiser: str) -> Any:
    """The pipeline in a folder of `save_without_weights`, read by stock diffusers, with the weights of `written`.

    Where its `from_pretrained` would read a network's files, the denoiser is built from the written configuration,
    with the weights themselves and no copy of them, and the others are those of `written`. Raises RuntimeError where
    the denoiser's weights do not fit its configuration.
    """
    held = modules(written)

    def from_memory(path: str, **_: Any) -> Any:
        part: Any = held[Path(path).name]
        if Path(path).name != denoiser:
            return part
        settings = part.load_config(path)
        return filled(lambda: part.from_config(settings), part.state_dict())

    with ExitStack() as stack:
        for kind in set(map(type, held.values())):
            stack.enter_context(mock.patch.object(kind, "from_pretrained", from_memory))
        return DiffusionPipeline.from_pretrained(str(folder))


def _pixel(
    student: Network, best: Grid, recipe: config.Recipe, report: Reporter, iterations: int
) -> tuple[Any, Tensor]:
    """A pixel UNet as a stock network, and the schedule (alphas_cumprod) it runs by."""
    clock: Any = student.clock
    if recipe.adapt.reclock is False:
        return low_pass.fold(student.net), alphas_cumprod_of(clock.phi, student.sigma_d)
    t = reclock.clock(clock.t_min, best.t_mid, best.t_max)
    stock_network, error = reclock.reclock(student, t, iterations)
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
        reference_step, device = reading.reference_steps[0], next(net.parameters()).device
        total = float(student.clock.network_time(torch.tensor(0.0)).round())
        cond = on_device(reference_step.cond, device)
        net = reverse(student, net, reference_step.x_nat.to(device), cond, total)
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
