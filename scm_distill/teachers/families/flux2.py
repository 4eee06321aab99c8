"""FLUX.2 Klein: its folder can say that guidance is off."""

from collections.abc import Mapping
from typing import Any

from scm_distill.teachers.families import Family


class Flux2Klein(Family):
    """`is_distilled` in model_index.json turns guidance off whatever the scale."""

    pipelines = ("Flux2KleinPipeline",)
    carries_no_guidance = True

    def parts(self) -> Mapping[str, Any]:
        """The setting that turns guidance off."""
        return {"is_distilled": True}
