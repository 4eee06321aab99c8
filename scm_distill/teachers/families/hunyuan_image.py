"""HunyuanImage 2.1: its guidance is a component, which the exported folder leaves out."""

from collections.abc import Mapping
from typing import Any

from scm_distill.teachers.families import Family

WITHOUT = {"guider": None, "ocr_guider": None}


class HunyuanImage(Family):
    """The teacher is distilled unguided: its guider mixes momentum in, which no formula of (x, t) expresses."""

    pipelines = ("HunyuanImagePipeline",)

    def prepare(self, pipeline: Any) -> None:
        """Take the guiders out."""
        pipeline.register_modules(**WITHOUT)

    def parts(self) -> Mapping[str, Any]:
        """The pipeline without its guiders."""
        return WITHOUT
