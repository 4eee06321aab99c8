"""What the public functions return: frozen dataclasses. Knows neither torch nor pydantic: the CLI may import it.

Times t are radians; NFE are network function evaluations; distances are Frechet distances, lower is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydantic, which `--version` and `--help` do without
    from scm_distill.artifacts.evaluation_record import EvaluationRecord
    from scm_distill.artifacts.export_record import Driver


@dataclass(frozen=True)
class Distance:
    """The distance of a sampler's samples to the data, at `nfe` network function evaluations a sample."""

    sampler: str
    nfe: int
    distance: float


@dataclass(frozen=True)
class MidTime:
    """A time at which the second step could start, and the distance to the data of the samples drawn so."""

    t_mid: float
    distance: float


@dataclass(frozen=True)
class TrainResult:
    """A finished run: where it lies, and what was measured when its student was exported."""

    run: Path
    export: Path  # the student as a stock diffusers pipeline folder
    steps: int  # optimizer steps
    t_max: float  # where the first step starts
    t_mid: float  # where the second one starts
    table: tuple[Distance, ...]  # of the teacher and of the student
    t_mid_search: tuple[MidTime, ...]
    stock_difference: float  # of stock diffusers to the trained student, relative (pixels: the largest)
    call: Mapping[str, Any]  # arguments of the exported pipeline's two-step call, beside prompt or labels
    driver: "Driver"
    url: str | None  # of the repository, where the recipe asked for a push


@dataclass(frozen=True)
class TrainPlan:
    """What a run would do, found from its real teacher and data."""

    repo: str  # of the teacher, as the recipe names it
    denoiser: str  # its class
    prediction: str  # of the denoiser: epsilon, v_prediction, sample or flow
    parameters: int
    sample_shape: tuple[int, ...]  # of what the denoiser works on, without the batch
    t_min: float
    t_max: float
    samples: int  # of the data
    classes: int | None  # None: the teacher knows no classes
    conditions: int | None  # different prompts or labels; None for a pixel UNet, as are the two below
    driver: "Driver | None"
    guidance: str | None
    verified: Mapping[str, float]  # relative difference of our reading to the stock pipeline, by what was compared
    doubts: tuple[str, ...]  # sentences about what makes it a poor teacher
    memory: str  # of one process, by phase and part
    memory_needed: int  # bytes of one process at its peak
    memory_free: int  # bytes
    device: str
    memory_short: bool
    memory_advice: tuple[tuple[str, int], ...]  # where it is short: settings, and the bytes that each of them saves
    push: tuple[str, ...]  # what was found about the push that the recipe plans
    processes: int
    steps: int  # optimizer steps
    epochs: float


@dataclass(frozen=True)
class TangentCheck:
    """Whether the denoiser has an exact derivative along its ODE, and how far it is from a central difference."""

    exact: bool
    difference: float | None  # relative, where it is exact
    dtype: str | None  # in which the difference was taken
    why: str | None  # where it is not exact


@dataclass(frozen=True)
class ExportCheck:
    """The untrained student, written as an export and sampled by stock diffusers."""

    stock_difference: float  # relative, to scm-distill's own sampler
    call: Mapping[str, Any]  # arguments of its two-step call


@dataclass(frozen=True)
class InspectResult:
    """What a teacher is, and the recipe to start from."""

    pipeline: str
    denoiser: str  # its class
    parameters: int
    sample_shape: tuple[int, ...]  # of what the denoiser works on, without the batch
    prediction: str  # of the denoiser: epsilon, v_prediction, sample or flow
    scheduler: str  # its class
    t_min: float
    t_max: float
    network_time: str  # what the denoiser is told of the time
    modality: str | None  # None for a pixel UNet
    conditions: str
    guidance: str | None  # None for a pixel UNet
    verified: Mapping[str, float] | None  # relative difference to the stock pipeline; None for a pixel UNet
    doubts: tuple[str, ...]  # sentences about what makes it a poor teacher
    adaptation: str
    tangent: TangentCheck
    latent_map: str | None  # how data become latents; None for a pixel UNet
    export: ExportCheck | None  # None where it was not asked for
    training_memory: int  # bytes of weights and states in float32, without activations
    verdict: str
    recipe: Mapping[str, Any]  # sections of a recipe, as they stand in its YAML file


@dataclass(frozen=True)
class DeviceCheck:
    """A device of this machine, and the derivative of attention on it."""

    device: str  # cpu, cuda:0, ...
    name: str
    tangent_error: float  # relative, to a central difference in float64
    attention: str  # the kernel that the derivative takes in bf16


@dataclass(frozen=True)
class DoctorResult:
    """What this machine has."""

    versions: Mapping[str, str]  # by package
    threads: int  # of torch on the CPU
    devices: tuple[DeviceCheck, ...]


@dataclass(frozen=True)
class SamplingCost:
    """What a sampler's samples cost."""

    scheduler: str  # its class
    steps: int
    nfe: float  # a sample, counted
    ms_per_sample: float
    samples_per_second: float
    batch: int  # samples a call
    one_by_one: str | None  # why samples are drawn one at a time
    compile_seconds: float | None  # of the first calls, which the speed leaves out; None where nothing is compiled
    flagged: int  # samples that a safety checker flagged: they are black


@dataclass(frozen=True)
class Speedup:
    """The cost of the teacher's samples over that of the student's."""

    wall_clock: float
    nfe: float


@dataclass(frozen=True)
class SampleResult:
    """Samples on disk: seed-00000.png and so on in `folder`, each with a line in its index.jsonl."""

    folder: Path
    samples: int  # of each sampler
    device: str
    dtype: str
    student: SamplingCost
    teacher: SamplingCost | None  # as is `speedup`, None where no teacher was sampled
    grid: Path | None  # the picture of all samples, where it was asked for
    speedup: Speedup | None


@dataclass(frozen=True)
class EvaluationResult:
    """The figures of a student and its teacher, and the file that holds them."""

    record: "EvaluationRecord"
    file: Path | None  # None where none was written: a student on the Hub, and no `out`
