"""CogView4: its denoiser's times are not shifted while its sigmas are, so the stock call takes both."""

from scm_distill.teachers.families import Family


class CogView4(Family):
    """The two times are arguments of the stock call, not settings of the scheduler."""

    pipelines = ("CogView4Pipeline",)
    times_in_call = True
