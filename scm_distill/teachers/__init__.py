"""Reading a diffusers teacher: a pipeline becomes a denoiser, its schedule and its conventions.

`traced` is the one generic reading, by watching the pipeline's own stock call; `families` holds what few do
differently.
"""

from scm_distill.teachers.conditions import Conditions, record
from scm_distill.teachers.loading import hub_id_of, index, license_of, load, load_pipeline, resolve
from scm_distill.teachers.teacher import Source, Teacher

__all__ = [
    "Conditions", "Source", "Teacher", "hub_id_of", "index", "license_of", "load", "load_pipeline", "record", "resolve",
]  # fmt: skip
