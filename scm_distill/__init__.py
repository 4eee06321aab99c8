"""Distil a pretrained diffusion model into one that samples in two steps.

The functions behind the command line, for Python. They take plain values, return frozen dataclasses, print nothing and
raise `UserError`, whose `problem` and `fix` are a sentence each. This page is run as a test.

>>> import tempfile
>>> from pathlib import Path
>>> from scm_distill import UserError, evaluate, inspect, plan_push, read_recipe, sample, train
>>> home = Path(tempfile.mkdtemp())

A recipe is the name of a packaged one, a .yaml file, a mapping of its sections, or a `Recipe`, which is frozen and
checked; overrides are KEY=VALUE strings as after `-s`, or a mapping. This one runs in seconds, and learns nothing:

>>> recipe = read_recipe("digits", {
...     "train.steps": 3, "train.batch_size": 64, "train.evaluate_samples": 4, "train.stop_if_worse": False,
...     "adapt.prefit_steps": 2, "adapt.smooth_time": 20, "adapt.reclock": False,
...     "sampler.teacher_steps": 3, "export.samples": 8, "export.t_mid": [1.1],
... })
>>> recipe.train.batch_size
64

`plan_train(recipe)` says what a run would do and need. Train it, into a run folder; a `Reporter` passed as `report`
hears what the command line shows.

>>> trained = train(recipe, out=home / "run")
>>> trained.export == home / "run" / "export"
True
>>> [(row.sampler, row.nfe) for row in trained.table]
[('teacher, DDIM', 50), ('teacher, undistilled', 2), ('student', 1), ('student', 2)]

Sample the student, from a run folder, an exported pipeline folder or a Hub id:

>>> drawn = sample(home / "run", n=4, seed=7, grid=True, out=home / "samples")
>>> drawn.student.nfe, sorted(path.name for path in drawn.folder.glob("*.png"))
(2.0, ['grid.png', 'seed-00007.png', 'seed-00008.png', 'seed-00009.png', 'seed-00010.png'])

Hold it against its teacher; the figures are those of eval.json:

>>> result = evaluate(home / "run", steps=[2], n=8, extractor="blocks")
>>> [(row.who, row.steps) for row in result.record.rows]
[('student', 2), ('teacher', 2), ('teacher', 50)]
>>> result.record.ratios.nfe
25.0

What would be published? `push` sends it.

>>> sorted(plan_push(home / "run", "me/digits-scm", license="mit").files)[:2]
['README.md', 'eval.json']

What is a teacher, can it be distilled, and by which recipe?

>>> inspect("builtin:digits/teacher", export_check=False).verdict
'can be distilled'

Wrong input is one exception:

>>> try:
...     train("digits", overrides={"train.stesp": 3})
... except UserError as error:
...     print(error.problem)
train.stesp: unknown setting; did you mean 'train.steps'?
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scm_distill.commands.arguments import read_recipe
    from scm_distill.commands.evaluate import evaluate
    from scm_distill.commands.inspect import inspect
    from scm_distill.commands.push import plan_push, push
    from scm_distill.commands.results import EvaluationResult, InspectResult, SampleResult, TrainPlan, TrainResult
    from scm_distill.commands.sample import sample
    from scm_distill.commands.train import plan_train, train
    from scm_distill.config import Recipe
    from scm_distill.errors import UserError
    from scm_distill.progress import Reporter
    from scm_distill.publish.hub import PushPlan, PushResult
    from scm_distill.training.signals import Interrupted

__all__ = [
    "EvaluationResult", "InspectResult", "Interrupted", "PushPlan", "PushResult", "Recipe", "Reporter", "SampleResult",
    "TrainPlan", "TrainResult", "UserError", "evaluate", "inspect", "plan_push", "plan_train", "push", "read_recipe",
    "sample", "train",
]  # fmt: skip

_HOMES = {  # module: its public names. They are imported when they are asked for: `--version` needs no torch
    "commands.arguments": ("read_recipe",),
    "commands.evaluate": ("evaluate",),
    "commands.inspect": ("inspect",),
    "commands.push": ("plan_push", "push"),
    "commands.results": ("EvaluationResult", "InspectResult", "SampleResult", "TrainPlan", "TrainResult"),
    "commands.sample": ("sample",),
    "commands.train": ("plan_train", "train"),
    "config": ("Recipe",),
    "errors": ("UserError",),
    "progress": ("Reporter",),
    "publish.hub": ("PushPlan", "PushResult"),
    "training.signals": ("Interrupted",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
