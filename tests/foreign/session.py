"""Families on the foreign device, in a process of its own: `python session.py REQUESTS`; a line of JSON answers each.

REQUESTS is a JSON list of {"name": a family of the zoo or "digits", "out": a folder, "precision": "fp32" or "bf16",
"set": settings of the recipe, "do": some of "cpu" (three steps on the CPU), "step" (the same on the device), "plant"
(one more with each of FAULTS in it), "train" (the command, with an export), "resume", "sample", "eval", "plan"}.
"""

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import foreign

RECIPE = """
teacher: {{repo: {teacher}, call: {call}}}
data: {{source: {data}}}
objective: {{warmup_steps: 100, tangent: jvp}}
adapt: {{prefit_steps: 3, smooth_time: 20, reclock: false}}
train: {{steps: 3, batch_size: 4, micro_batch_size: 2, evaluate_samples: 2, checkpoint_every: 2, evaluate_every: 2,
        stop_if_worse: false, threads: 1, precision: {precision}}}
sampler: {{teacher_steps: 2}}
export: {{t_mid: [1.1], samples: 2}}
"""


def recipe_of(name: str, out: Path, precision: str) -> Path:
    """The recipe of a family in `out`, whose tiny pipeline is saved beside it."""
    out.mkdir(parents=True, exist_ok=True)
    teacher, call, data = "builtin:digits/teacher", "{}", "builtin:digits/data.npz"
    if name != "digits":
        import zoo

        family = zoo.load_all()[name]
        teacher, call = str(out / "teacher"), json.dumps(family.call)
        family.pipeline().save_pretrained(teacher)
        (out / "prompts.txt").write_text("a cat\na dog\n")
        if family.conditions != "none":
            prompts = f", prompts: {out}/prompts.txt" if family.conditions == "prompt" else ""
            data = f"teacher, samples: 4{prompts}"
    recipe = out / "recipe.yaml"
    recipe.write_text(RECIPE.format(teacher=teacher, call=call, data=data, precision=precision))
    return recipe


FAULTS = ("item", "cpu", "mixed")


@contextmanager
def planting(fault: str) -> Iterator[None]:
    """Within it the objective, which every step calls, has a fault."""
    from scm_distill.objectives import scm

    diffuse: Callable[..., Any] = scm.diffuse

    def faulty(x_0: Any, z: Any, t: Any) -> Any:
        if fault == "item":
            t.max().item()
        elif fault == "cpu":
            x_0 = x_0.cpu().to(x_0.device)
        elif fault == "mixed":
            z = z.cpu()
        return diffuse(x_0, z, t)

    scm.diffuse = faulty  # type: ignore[assignment]
    try:
        yield
    finally:
        scm.diffuse = diffuse


@contextmanager
def watched(seen: dict[str, Any]) -> Iterator[None]:
    """Note what waits within the optimizer steps and within the pre-fit, and the losses."""
    from scm_distill.training import prefit, run

    step, fit, log = run.Run._step, prefit.fit, run.Run._log
    seen.update(steps=[], prefit=[], losses=[], operators=[])

    def counted_step(self: Any, *arguments: Any) -> None:
        with foreign.counting() as c:
            step(self, *arguments)
        seen["steps"] += [f"{wait} < {' < '.join(wait.stack[1:4])}" for wait in c.synchronisations]
        seen["operators"].append(c.operators)

    def counted_fit(*arguments: Any, **named: Any) -> None:
        with foreign.counting() as c:
            fit(*arguments, **named)
        seen["prefit"] += map(str, c.synchronisations)

    def logged(self: Any, number: int, figures: Any) -> int:
        seen["losses"].append(float(figures[:, 0].mean()))
        return log(self, number, figures)

    run.Run._step, prefit.fit, run.Run._log = counted_step, counted_fit, logged  # type: ignore[method-assign]
    try:
        yield
    finally:
        run.Run._step, prefit.fit, run.Run._log = step, fit, log  # type: ignore[method-assign]


class Heard:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, *_: Any) -> None: ...

    def advance(self, *_: Any) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


def trained(recipe: Path, out: Path, settings: list[str], resume: Any = None) -> dict[str, Any]:
    """What the command `train` showed: see `watched`; and how far off stock diffusers is."""
    from accelerate.state import AcceleratorState

    import scm_distill

    heard, seen = Heard(), dict[str, Any]()
    with watched(seen):
        result = scm_distill.train(recipe, overrides=settings, out=out, report=heard, resume=resume)
    AcceleratorState._reset_state(reset_partial_state=True)
    return seen | {"said": heard.said, "difference": result.stock_difference}


def stepped(recipe: Path, out: Path, settings: list[str], faults: Sequence[str] = ()) -> dict[str, Any]:
    """What a run without an export showed, and under "planted" what one more step showed with each of `faults`."""
    from accelerate.state import AcceleratorState

    from scm_distill import config
    from scm_distill.artifacts import layout
    from scm_distill.objectives.scm import Objective
    from scm_distill.training import run, setup

    heard, seen = Heard(), dict[str, Any]()
    for part in (layout.PREVIEWS, layout.CHECKPOINTS):
        (out / part).mkdir(parents=True)
    with watched(seen):
        made = run.Run(setup.build(config.read(str(recipe), settings), out, None, heard))
        made.train()
    seen["said"], seen["planted"] = heard.said, {}
    batches = made.setup.batches.steps("train", 0, made.step)
    for fault in faults:
        of_fault: dict[str, Any] = {}
        seen["planted"][fault] = of_fault
        with planting(fault), watched(of_fault):
            try:
                made._step(Objective(1.0, 0.1, "rms", 100, "teacher"), next(batches), [])
            except RuntimeError as error:
                of_fault["error"] = str(error)
    AcceleratorState._reset_state(reset_partial_state=True)
    return seen


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """All that a request asks for; "error" where something raised."""
    import scm_distill

    out, do, settings = Path(request["out"]), request.get("do", []), request.get("set", [])
    recipe = recipe_of(request["name"], out, request.get("precision", "fp32"))
    seen: dict[str, Any] = {"name": request["name"], "precision": request.get("precision", "fp32"), "set": settings}
    try:
        if "cpu" in do:
            seen["cpu"] = stepped(recipe, out / "cpu", [*settings, "train.device=cpu"])
        if "step" in do:
            seen["device"] = stepped(recipe, out / "run", settings, FAULTS if "plant" in do else ())
        if "train" in do:
            seen["device"] = trained(recipe, out / "run", settings)
        if "resume" in do:
            seen["resumed"] = trained(recipe, out / "run", [*settings, "train.steps=4"], resume="auto")
        if "sample" in do:
            prompts = {} if request["name"] == "digits" else {"prompts": ["a cat"]}
            seen["sample"] = scm_distill.sample(out / "run", n=2, out=out / "samples", **prompts).device
        if "eval" in do:
            seen["eval"] = scm_distill.evaluate(out / "run", n=8).record.device
        if "plan" in do:
            seen["plan"] = scm_distill.plan_train(recipe, overrides=settings).memory
    except Exception as error:
        traceback.print_exc()
        seen["error"] = f"{type(error).__name__}: {error}"
    return seen


def prepare() -> None:
    """What tests/conftest.py does to keep these runs short."""
    import torch

    from scm_distill.training import setup

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    setup.PROBE = 32
    lbfgs = torch.optim.LBFGS
    torch.optim.LBFGS = lambda p, **s: lbfgs(p, **{**s, "max_iter": 60, "max_eval": 90})  # type: ignore[misc, assignment]


if __name__ == "__main__":
    foreign.activate()
    prepare()
    for request in json.loads(sys.argv[1]):
        print(json.dumps(answer(request)), flush=True)
