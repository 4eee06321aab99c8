"""scm_distill.json and t_mid_search.json of an export: how it is called, and all that its card and report say of it."""

from typing import ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from scm_distill.artifacts.record import Part, Record

Arguments = dict[str, JsonValue]  # of a pipeline's call, by name
Modality = Literal["image", "video", "audio"]
Driver = Literal["prompt", "labels", "none"]  # what a call is conditioned on


class TeacherCall(Part):
    """The guidance of the teacher's own call that the student learnt from; None: the call's own default."""

    scale: float | None = None  # of classifier-free guidance
    embedded: float | None = None  # told to a network that takes the scale as an input
    negative: str = ""  # prompt


class Training(Part):
    """What of a run's recipe its card tells."""

    steps: int  # of the optimizer
    batch_size: int  # samples a step, of all processes
    velocity: str
    guidance: float | tuple[float, float] | None
    teacher_call: TeacherCall
    data: str  # teacher, builtin:NAME or files
    samples: int  # of the training data
    optimizer: str
    lr: float
    precision: str
    seed: int


class Distance(Part):
    """Frechet distance to the data of a sampler at a number of network function evaluations a sample."""

    sampler: str
    nfe: int
    distance: float


class Searched(Part):
    """Distance to the data of the student's two steps with this t_mid (radians)."""

    t_mid: float
    distance: float


class Sample(Part):
    """A file of the gallery: the sample of `seed`, and the prompt or label that it was drawn for."""

    file: str  # path in the export
    seed: int
    prompt: str | None = None
    label: int | None = None
    magnified: int = 1  # of a picture: pixels of the file to one of the sample, along each side
    flagged: bool = False  # by the safety checker: it is black


class Adapter(Part):
    """The adapter that was trained. `file` is None where only its merged weights are written, for the reason `why`."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...]
    modules: int  # how many layers have one
    file: str | None = None
    call: Arguments = Field(default_factory=dict)  # of the teacher's pipeline with `file`
    difference: float | None = None  # relative, of that pipeline to the student
    why: str | None = None


class Facts(Part):
    """What an export says of itself: no path of the machine it was made on, and no token."""

    base_model: str  # the teacher's display name
    hub_id: str | None
    revision: str | None
    license: dict[str, str]  # license, license_name and license_link of a model card, as far as they are known
    pipeline: str  # class
    scheduler: str  # class
    modality: Modality
    driver: Driver
    classes: int | None
    sample_shape: tuple[int, ...]  # of what the network denoises, without the batch
    pixels: bool  # whether the network denoises pixels
    trained: Training
    sigma_d: float
    t_max: float  # radians
    t_mid: float  # radians
    prediction_type: str
    table: tuple[Distance, ...]
    search: tuple[Searched, ...]
    samples: int  # of each sampler in `table`
    reference: int  # samples of the data that they were compared with
    difference: float  # of stock diffusers to the trained student: relative, or the largest of pixels in [-1, 1]
    versions: dict[str, str]  # of packages
    example: str | int | None  # the first prompt or label of the gallery
    gallery: tuple[Sample, ...]
    safety_checker: str | None = None  # class
    doubts: tuple[str, ...] = ()  # sentences about what makes its teacher a poor one


class ExportRecord(Record):
    """scm_distill.json: the arguments of the student's two-step call beside the prompt, its adapter and its facts."""

    FIX: ClassVar[str] = "Export it again: scm-distill train RUN/config.yaml -o RUN --resume auto"

    call: Arguments
    lora: Adapter | None
    facts: Facts

    @field_validator("call")
    @classmethod
    def _has_steps(cls, call: Arguments) -> Arguments:
        if not isinstance(call.get("num_inference_steps"), int):
            raise ValueError("num_inference_steps is not there")
        return call


class SearchRecord(Record):
    """t_mid_search.json: what was tried for t_mid (radians), and what was chosen."""

    chosen: float
    search: tuple[Searched, ...]
