"""From a recipe to all that a run needs before its first step.

`build` goes through five stages, each a function below: the teacher, data and conditions, adaptation, placement, the
derivative. What a stage returns is final: no later one changes it.

x_t     noised data                                          (B, ...)
t       time in radians, of the teacher's own grid           (B,)
cond    what the network is given beside them                {name: (B, ...)}
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from scm_distill import config, ranks
from scm_distill.autodiff.derivatives import Derivative, Memory, OnePass, Velocity
from scm_distill.maths.cond import Cond, on_device
from scm_distill.maths.trigflow import diffuse
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Reporter
from scm_distill.training import (
    checkpoint,
    compiling,
    derivative,
    distributed,
    networks,
    optimizer,
    prefit,
    source,
    teacher_weights,
)
from scm_distill.training.batches import BatchSource, evaluation_batch, micro_batch
from scm_distill.training.checkpoint import TrainState
from scm_distill.training.distributed import Distributed
from scm_distill.training.endpoint import Comparison
from scm_distill.training.latents import TrainingData, prepare
from scm_distill.training.memory import host, out_of_memory
from scm_distill.training.memory.plan import Planner, available, gib
from scm_distill.training.networks import LoadedTeacher
from scm_distill.training.randomness import Draws, generator
from scm_distill.training.student import new_student

PROBE = 256  # noised samples on which the teacher's change is measured
LATENT_PROBE = 8  # of latents, which are large
NOTICED = 0.02  # share of a host's free memory that weights must take before it is planned: tracing takes seconds


class Probe(NamedTuple):
    """A few noised samples at times of the teacher's own grid, on the device of the run."""

    x_t: Tensor
    t: Tensor
    cond: Cond


@dataclass(frozen=True)
class Setup:
    """One process's share of a run before its first step; its members are final.

    `loaded.F_teacher` and `distributed.wrapped` are where and as they are called in training, `derivative` is how
    F_theta is derived, `velocity` the teacher's F in a step. `step` is 0, or that of the checkpoint `resumed`. `start`
    are the sums of the parameters at step 0 (see run.py), `smooth_time` is the width of the low-pass in native steps.
    """

    recipe: config.Recipe
    out: Path
    report: Reporter
    accelerator: Accelerator
    loaded: LoadedTeacher
    data: TrainingData
    batches: BatchSource
    planner: Planner
    memory: Memory
    distributed: Distributed
    state: TrainState
    derivative: Derivative
    velocity: Velocity
    comparison: Comparison
    smooth_time: float
    start: tuple[float, ...]
    step: int
    resumed: Path | None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device


def build(
    recipe: config.Recipe,
    out: Path,
    resume: Path | None,
    report: Reporter,
    look: Callable[[LoadedTeacher], None] = lambda _: None,
) -> Setup:
    """Set a run up in `out`, which exists, from the checkpoint `resume` or afresh. Raises UserError.

    Of a new run the first process calls `look` on the teacher before anything is drawn, while the others wait.
    """
    saved = checkpoint.read_state(resume) if resume else None
    if saved:
        checkpoint.same_student(recipe, saved, resume)
    source.check_paths(recipe)
    accelerator = distributed.accelerator_for(recipe)

    with ranks.together("loading the teacher"):
        loaded = load_teacher(recipe, accelerator, report)
    with ranks.first("looking at the teacher"):
        if accelerator.is_main_process and not saved:
            look(loaded)
    with ranks.together("preparing the data"):
        data, batches, probe = gather_data(recipe, loaded, out, accelerator, report)
    with ranks.together("adapting the teacher"):
        width = saved.smooth_time if saved else None
        network, smooth_time = adapt(recipe, loaded, probe, width, report, views=recipe.train.shard != "off")
    placed = place(recipe, loaded, network, batches, probe, resume, accelerator, report)
    if saved:
        report.say(f"resumed {resume} at step {saved.step}")
    with out_of_memory.explained(placed.planner, recipe, placed.memory, lambda: resume):
        chosen, velocity = choose_derivative(recipe, placed, batches.draws.micro, probe, report)
        yardstick = comparison(recipe, placed.loaded, data, accelerator.device)
    return Setup(
        recipe, out, report, accelerator, placed.loaded, data, batches, placed.planner, placed.memory,
        placed.distributed, placed.state, chosen, velocity, yardstick, smooth_time,
        saved.start if saved else tuple(placed.state.sums()), saved.step if saved else 0, resume,
    )  # fmt: skip


def load_teacher(recipe: config.Recipe, accelerator: Accelerator, report: Reporter) -> LoadedTeacher:
    """Stage 1: the teacher on the device, held against its stock pipeline."""
    world, device = accelerator.num_processes, accelerator.device
    micro = micro_batch(recipe, world)
    loaded = networks.load_teacher(recipe, device, micro, report=report)
    for doubt in loaded.doubts:
        report.say(f"warning: {doubt}")
    batch = recipe.train.batch_size
    report.say(
        f"processes {world}, device {device.type}, {recipe.train.precision}, global batch {batch} = "
        f"{world} x {batch // world // micro} x {micro} (processes, accumulation, images), "
        f"{sum(p.numel() for p in loaded.F_teacher.parameters()):,} parameters"
    )
    return loaded


def gather_data(
    recipe: config.Recipe, loaded: LoadedTeacher, out: Path, accelerator: Accelerator, report: Reporter
) -> tuple[TrainingData, BatchSource, Probe]:
    """Stage 2: conditions recorded and latents on disk, the batches made of them, and a probe of both."""
    settings, objective, device = recipe.train, recipe.objective, accelerator.device
    data = prepare(recipe, loaded, out, report)
    report.say(f"data: {len(data.samples):,} samples")
    draws = Draws(
        seed=settings.seed, shape=loaded.teacher.sample_shape, batch=settings.batch_size,
        micro=micro_batch(recipe, accelerator.num_processes),
        rank=accelerator.process_index, world=accelerator.num_processes,
        P_mean=objective.P_mean, P_std=objective.P_std, sigma_d=objective.sigma_d,
        t_min=loaded.F_teacher.clock.t_min, t_max=loaded.t_max, flip=recipe.data.flip,
    )  # fmt: skip
    batches = BatchSource(draws, data.samples, data.conditioning, recipe.data.workers, pin=device.type == "cuda")
    return data, batches, probe(loaded, data, draws, device)


def probe(loaded: LoadedTeacher, data: TrainingData, draws: Draws, device: torch.device) -> Probe:
    """A few noised samples that share a bucket of conditions, whatever the number of processes and micro-batches."""
    n, samples = PROBE if loaded.teacher.pixels else LATENT_PROBE, data.samples
    groups = samples.groups
    together = torch.arange(len(samples)) if groups is None else (groups == groups.mode().values).nonzero()
    indices = torch.randint(len(together), (n,), generator=generator(draws.seed, "probe images"))
    x_0, ids = samples.__getitems__(together.flatten()[indices].tolist())
    z, t, _, _ = next(replace(draws, batch=n, micro=n, rank=0, world=1).step("probe", 0))
    t = loaded.F_teacher.clock.snap(t)
    x_t = diffuse(x_0, z, t.float()).to(device)
    return Probe(x_t, t.to(device), on_device(data.conditioning.for_evaluation(ids), device))


def adapt(
    recipe: config.Recipe,
    loaded: LoadedTeacher,
    probe: Probe,
    width: float | None,
    report: Reporter,
    *,
    views: bool,
) -> tuple[Network, float]:
    """Stage 3: the teacher's time made smooth and exact, and the student's network, made of it; the low-pass's width.

    `width` is that of an earlier session, None to choose it. With `views` the student's parameters are views of the
    teacher's: of one that will be shared out no process ever holds a copy.
    """
    F_teacher = loaded.F_teacher
    low_pass.prepare(F_teacher, *probe)
    networks.keep_time_exact(F_teacher, recipe, *probe, report)
    if width is None:
        width = networks.smooth(loaded, *probe, recipe, report)
    low_pass.set_width(F_teacher.net, width)
    return new_student(loaded, recipe, *probe, report, views=views), width


@dataclass(frozen=True)
class Placed:
    """Teacher, student, EMA and optimizer where they stay, the plan of their memory, and its layout."""

    loaded: LoadedTeacher
    planner: Planner
    memory: Memory
    distributed: Distributed
    state: TrainState


def place(
    recipe: config.Recipe,
    loaded: LoadedTeacher,
    network: Network,
    batches: BatchSource,
    probe: Probe,
    resume: Path | None,
    accelerator: Accelerator,
    report: Reporter,
) -> Placed:
    """Stage 4: what fits where; the teacher narrowed or offloaded, the student wrapped, and fitted or resumed."""
    copies = distributed.meta_copies(network, loaded.F_teacher)
    x, device = probe.x_t / network.sigma_d, accelerator.device
    planner = Planner(*copies, x, probe.t, probe.cond, device, accelerator.num_processes)
    with ranks.together("planning the host's memory"):
        host.check(recipe, planner)
    memory = layout(recipe, planner, accelerator, report)
    chunk = evaluation_batch(batches.draws.micro, memory)
    F_teacher = loaded.F_teacher.with_chunk(chunk)
    student = Student(network.with_chunk(chunk), adaptive=recipe.objective.weighting == "adaptive")
    with out_of_memory.explained(planner, recipe, memory, lambda: resume):
        spread = distributed.place(accelerator, student, F_teacher, recipe, *probe, report)
        with ranks.together("narrowing the teacher"):  # the student's views of it are gone
            teacher_weights.quantize(F_teacher, recipe.teacher, *probe, report)
        if recipe.train.shard == "all":
            distributed.share_teacher(accelerator, F_teacher, *probe)
        if "teacher" in recipe.train.offload:
            teacher_weights.offload(F_teacher, device, report)
        if resume is None and network.prediction != F_teacher.prediction:
            prefit.run(recipe, accelerator, spread.wrapped, F_teacher, batches, probe, report)
            spread.ema.update(student, 1)  # all of it
        state = TrainState(student, optimizer.build(student.parameters(), recipe.optimizer), spread.ema)
        if resume:
            state.load(resume)
    return Placed(replace(loaded, F_teacher=F_teacher), planner, memory, spread, state)


def layout(recipe: config.Recipe, planner: Planner, accelerator: Accelerator, report: Reporter) -> Memory:
    """The recipe's memory layout; `auto` is fast where that fits into what every process has."""
    device = accelerator.device
    free = int(distributed.min_over_ranks(accelerator, torch.tensor([available(device)], device=device)))
    weights = sum(planner.resident(recipe).values())
    if device.type != "cuda" and weights <= NOTICED * free:
        return "lean" if recipe.train.memory == "lean" else "fast"
    memory: Memory = "fast" if recipe.train.compiles else planner.fit(recipe, free)
    report.say(f"memory a process: {planner.estimate(recipe, memory)}; {gib(free)} are free")
    return memory


def choose_derivative(
    recipe: config.Recipe, placed: Placed, micro: int, probe: Probe, report: Reporter
) -> tuple[Derivative, Velocity]:
    """Stage 5: how F_theta is derived, after the exact derivative was held against a difference on this network.

    And the teacher's F in a step, whose blocks are compiled where the student's are.
    """
    F_teacher, student = placed.loaded.F_teacher, placed.state.student
    x, t, cond = probe.x_t / F_teacher.sigma_d, probe.t, probe.cond
    with torch.no_grad():
        v = F_teacher(x, t, cond)
    trial = derivative.Trial(placed.distributed.wrapped, student, x, t, cond, v)
    h = networks.difference_step(placed.loaded, recipe.objective)
    chosen = derivative.choose(trial, recipe, placed.memory, micro, h, report)
    if not isinstance(chosen, OnePass) or chosen.compile == "off":
        return chosen, F_teacher
    few = trial.first(micro)
    return chosen, compiling.teacher(F_teacher, recipe, few.x, few.t, few.cond, report)


def comparison(recipe: config.Recipe, loaded: LoadedTeacher, data: TrainingData, device: torch.device) -> Comparison:
    """The undistilled teacher's figures, from noise that only the seed decides, for the student to be held against."""
    n, g = recipe.train.evaluate_samples, generator(recipe.train.seed, "evaluate")
    eps = torch.randn(2, n, *loaded.teacher.sample_shape, generator=g)
    cond = on_device(data.conditioning.for_evaluation(data.conditioning.draw_ids(n, g)), device)
    times = (loaded.t_max, recipe.export.t_mid[len(recipe.export.t_mid) // 2])
    return Comparison(loaded.F_teacher, eps.to(device), cond, times, recipe.sampler.teacher_steps)
