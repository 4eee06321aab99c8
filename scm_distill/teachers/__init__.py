"""Reading a diffusers teacher: its denoiser, its schedule, and how its pipeline calls the denoiser.

`reading` is the one generic way, by watching the pipeline's own call (its stock call); `families` holds the overrides
of the few pipelines that need them, and `unet2d` reads pixel pipelines by their configuration.
"""

from scm_distill.teachers.card import license_of
from scm_distill.teachers.conditions import Conditions, record
from scm_distill.teachers.loading import load, load_pipeline
from scm_distill.teachers.pipeline_index import index
from scm_distill.teachers.places import hub_id_of, resolve
from scm_distill.teachers.teacher import Source, Teacher

__all__ = [
    "Conditions", "Source", "Teacher", "hub_id_of", "index", "license_of", "load", "load_pipeline", "record", "resolve",
]  # fmt: skip
