"""CogView4: its denoiser is told unshifted steps while its sigmas are shifted, so the stock call carries both."""

from scm_distill.teachers.families import Family


class CogView4(Family):
    """The two times are arguments of the stock call, not settings of the scheduler."""

    pipelines = ("CogView4Pipeline",)
    times_in_call = True
