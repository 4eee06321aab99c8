"""EasyAnimate: its guided call fails where it is given no negative prompt."""

from scm_distill.teachers.families import Family


class EasyAnimate(Family):
    """Its text encoder takes one, an empty one too, but not None."""

    pipelines = ("EasyAnimatePipeline",)
    needs_negative = True
