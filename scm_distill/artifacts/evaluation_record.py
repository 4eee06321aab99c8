"""eval.json of an export: student and teacher side by side, and the names of what is measured."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from scm_distill.artifacts.export_record import TeacherCall
from scm_distill.artifacts.record import Part, Record


@dataclass(frozen=True)
class Metric:
    """A figure of eval.json: its key there, a short heading, its name, which way is better, and what it says."""

    key: str
    heading: str
    name: str
    better: Literal["lower", "higher"] | None
    meaning: str

    @property
    def title(self) -> str:
        """The name with an arrow in the better direction."""
        arrow = {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑", None: ""}[self.better]
        return self.name + arrow


METRICS = {
    metric.key: metric
    for metric in (
        Metric("fd", "FD", "Fréchet distance", "lower", "how far the samples' distribution is from the data's"),
        Metric("kid", "KID", "KID", "lower", "the same by a polynomial kernel, unbiased in N"),
        Metric("precision", "prec.", "Precision", "higher", "share of samples that lie among the data"),
        Metric("recall", "recall", "Recall", "higher", "share of the data that lies among the samples"),
        Metric("diversity", "divers.", "Diversity", None, "how far samples are from each other, the data's being 1"),
        Metric(
            "endpoint", "endpoint", "Distance to the endpoint", "lower",
            "distance to where the teacher's own ODE ends, from the same noise",
        ),
        Metric("clip_score", "CLIP", "CLIP score", "higher", "agreement of sample and prompt"),
    )
}  # fmt: skip


def metric(key: str) -> Metric:
    """The metric of this key; one that a later version added goes by its key."""
    return METRICS.get(key) or Metric(key, key, key.replace("_", " ").capitalize(), None, "")


class ExtractorIdentity(Part):
    """The network whose features were compared, and how samples were made its input."""

    name: str
    id: str  # a Hub id, the name of a folder, or as `name`
    sha256: str | None = None  # of its weights
    revision: str | None = None
    resize: str | None = None
    features: str | None = None  # which of them, in words


class Row(Part):
    """A sampler at a number of steps. Times were taken with all samplers in turn."""

    who: Literal["student", "teacher"]
    scheduler: str  # class
    steps: int
    nfe: float  # network function evaluations a sample, counted
    batch: int = 1  # samples a call
    ms_per_sample: float
    metrics: dict[str, float]  # by key of METRICS; not finite where it could not be computed
    kid_std: float | None = None  # over the subsets of KID


class Ratios(Part):
    """The student's two steps and the teacher's default: FD student / teacher, the others teacher / student."""

    fd: float
    nfe: float
    wall_clock: float


class EvaluationRecord(Record):
    """eval.json: what was compared, on which machine, and what came of it."""

    FIX: ClassVar[str] = "Measure again: scm-distill eval RUN; or remove the file."

    date: str  # YYYY-MM-DD
    teacher: str
    data: str
    n: int  # samples of each sampler that were compared
    flagged: int = 0  # seeds left out beside them, since a safety checker flagged a sample of theirs
    reference: int  # samples of the data
    seed: int  # sample i is drawn from seed + i
    device: str
    processes: int = 1
    threads: int = 1
    dtype: str
    versions: dict[str, str]  # of packages
    extractor: ExtractorIdentity
    clip: ExtractorIdentity | None = None
    rows: tuple[Row, ...] = Field(min_length=1)
    ratios: Ratios | None  # None where the student did not take two steps
    guidance: TeacherCall  # of the teacher
    notes: tuple[str, ...] = ()
