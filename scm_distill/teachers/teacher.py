"""A teacher: what was read from a checkpoint, and where it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scm_distill import builtin
from scm_distill.config import Guidance
from scm_distill.maths.clocks import Clock
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.maths.schedules import Prediction
from scm_distill.teachers import guider
from scm_distill.teachers.convention import Convention
from scm_distill.teachers.families import Family
from scm_distill.teachers.reading import Reading


@dataclass(frozen=True)
class Source:
    """Where a pipeline comes from, and how to load it again.

    `repo` is the name that the user gave, `hub_id` its Hub id, None for a folder, a file or a builtin. `load(**parts)`
    is the pipeline with these components and settings in place of its own.
    """

    repo: str
    hub_id: str | None
    license: Mapping[str, str]
    load: Callable[..., Any]

    @property
    def name(self) -> str:
        """A name for cards: the Hub id, the builtin's, or the folder's own name without its path."""
        return self.hub_id or (self.repo if builtin.path(self.repo) else Path(self.repo).resolve().name)


@dataclass(frozen=True)
class Teacher:
    """A denoiser, its schedule, and how it is called.

    `net` is called by `convention` (None: net(x_nat, k, **cond)); `sample_shape` is that of one sample as the scheduler
    has it: pixels in [-1, 1], latents, or packed latents. `clock(sigma_d)` is the denoiser's clock. `classes` is the
    number of class labels, None where the teacher is not driven by labels. `rule` is that of its guidance, None where
    it has none. `reading` is None for a pixel UNet, which is not traced.
    """

    source: Source
    family: Family
    net: nn.Module
    scheduler: Any
    prediction: Prediction
    clock: Callable[[float], Clock]
    sample_shape: tuple[int, ...]
    classes: int | None = None
    alphas_cumprod: Tensor | None = None
    convention: Convention | None = None
    rule: GuidanceRule | None = None
    reading: Reading | None = None

    @property
    def name(self) -> str:
        """The source's name, for cards."""
        return self.source.name

    @property
    def pixels(self) -> bool:
        """Whether samples are pixels, and may be mirrored and clipped."""
        return self.reading is None

    def parts(self) -> dict[str, Any]:
        """The components and settings of the exported pipeline that differ from the teacher's, by name."""
        off = guider.disabled(self.reading.stock.pipeline) if self.reading else {}
        return {**off, **self.family.parts()}

    def in_effect(self, guidance: Guidance) -> Guidance:
        """`guidance` with no scale where the teacher's own call does not guide at its scale."""
        scale = guidance.scale
        off = isinstance(scale, float) and self.rule is not None and self.rule.turned_off(scale)
        return guidance.model_copy(update={"scale": None}) if off else guidance

    def cond(self, labels: Tensor | None) -> dict[str, Tensor]:
        """The `cond` of a pixel UNet: its class labels (B,), or nothing for an unconditional one. Raises ValueError."""
        if self.classes is None:
            return {}
        if labels is None:
            raise ValueError("A class-conditional model needs labels.")
        return {"class_labels": labels}
