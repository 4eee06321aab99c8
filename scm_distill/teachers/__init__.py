"""Reading a diffusers teacher: a pipeline folder or Hub id becomes a denoiser, its schedule and its conventions."""

from scm_distill.teachers.unet2d import Teacher, load

__all__ = ["Teacher", "load"]
