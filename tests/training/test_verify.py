"""The network that trains is held against its stock pipeline: every planted fault is found, and named."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
import zoo
from conftest import TeacherMaker
from diffusers import UNet2DConditionModel
from teachers.conftest import TeacherOf
from torch import Tensor, nn

from scm_distill import config, inspect
from scm_distill.errors import UserError
from scm_distill.maths.clocks import Clock, DiscreteSchedule, EDMClock, FlowClock
from scm_distill.maths.cond import Cond
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher, load, scheduler
from scm_distill.teachers.convention import Convention
from scm_distill.training import networks
from scm_distill.training.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")

FLOW = {"plain velocity", "time map", "first stock step", "two samples velocity"}
DISCRETE = {"plain velocity", "x_0 of the stock scheduler", "two samples velocity", "guided velocity"}
EDM = {"plain velocity", "time map", "two samples velocity", "guided velocity"}
RIGHT = {  # what is measured on each
    **dict.fromkeys(("sd15", "sdxl", "latte", "dit"), DISCRETE | {"first stock step"}),
    **dict.fromkeys(("zimage", "qwenimage", "mochi", "cogview4", "kandinsky5"), FLOW | {"guided velocity"}),
    "playground": EDM | {"x_0 of the stock scheduler", "first stock step"},
    "stable_audio": EDM,
    "flux": FLOW,
    "animatediff": DISCRETE | {"first stock step"},
}


def network(teacher: Teacher, **changes: Any) -> Network:
    """The teacher as a run has it, and what differs from that."""
    sigma_d = teacher.reading.schedule.sigma_data or 1.0
    made = {"clock": teacher.clock(sigma_d), "prediction": teacher.prediction, "rule": teacher.rule,
            "call": teacher.convention, **changes}  # fmt: skip
    return Network(teacher.net, made["clock"], made["prediction"], sigma_d, call=made["call"], rule=made["rule"]).eval()


def complaint(teacher: Teacher, **changes: Any) -> str:
    """What is named as different."""
    with pytest.raises(UserError) as caught:
        verify(network(teacher, **changes), teacher)
    assert caught.value.code == 2
    assert "teachers/families" in caught.value.fix
    before, _, rest = caught.value.problem.partition(" was not understood: the ")
    assert before == teacher.name
    return rest.partition(" differs from the stock pipeline's by ")[0]


@pytest.mark.parametrize("name", RIGHT)
def test_what_was_read_is_what_the_pipeline_does(name: str, teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name)
    found = verify(network(teacher), teacher)
    assert found.keys() == RIGHT[name]
    if teacher.prediction == "edm":  # a step from 80 to a sample of size one, in float32
        assert found.pop("first stock step", 0.0) < 1e-4
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["sd15", "flux", "mochi", "playground"])
def test_a_wrong_sign(name: str, teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name)
    call = replace(teacher.convention, sign=-teacher.convention.sign)
    assert complaint(teacher, call=call) == "plain velocity"


def test_a_clock_one_percent_off(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd3")
    assert complaint(teacher, clock=FlowClock(1010.0, 0.0, 1.0)) == "plain velocity"


@pytest.mark.parametrize(
    ("name", "kind", "clock"),
    [
        ("sd3", "flow", lambda d: FlowClock(1010.0, 0.0, d)),
        ("stable_audio", "edm", lambda d: EDMClock("log", 1.0, 0.3, 500.0)),
    ],
)
def test_a_time_map_that_was_read_wrongly(
    name: str, kind: str, clock: Callable[[float], Clock], fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(scheduler, kind)
    monkeypatch.setattr(scheduler, kind, lambda *known: replace(right(*known), clock=clock))
    complaint(fresh(name))


def test_a_discrete_schedule_that_was_read_wrongly(fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    right = scheduler.discrete
    shorter = lambda bar, d: DiscreteSchedule(bar**0.9, d)  # noqa: E731
    monkeypatch.setattr(
        scheduler, "discrete", lambda s: replace(right(s), clock=lambda d: shorter(right(s).alphas_cumprod, d))
    )
    assert complaint(fresh("sd15")) == "x_0 of the stock scheduler"


@pytest.mark.parametrize(
    ("name", "wrong", "seen"),
    [
        ("sd15", "v_prediction", "x_0 of the stock scheduler"),
        ("sd15", "sample", "x_0 of the stock scheduler"),
        ("cogvideox", "epsilon", "x_0 of the stock scheduler"),
        ("sd3", "v_prediction", "first stock step"),
    ],
)
def test_a_wrong_prediction(name: str, wrong: str, seen: str, teacher_of: TeacherOf) -> None:
    assert complaint(teacher_of(name), prediction=wrong) == seen


@pytest.mark.parametrize("name", ["animatediff", "hunyuandit", "allegro"])
def test_a_wrong_prediction_where_the_first_step_is_no_witness(name: str, teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name)
    complaint(teacher, prediction={"epsilon": "v_prediction", "v_prediction": "epsilon"}[teacher.prediction])


class Planted(Convention):
    """Calls the denoiser with conditions that `change` has spoilt."""

    change: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        return super().__call__(net, x_nat, tau, type(self).change(dict(cond)))


def planted(teacher: Teacher, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Convention:
    """The teacher's convention with this fault."""
    kind = type("Fault", (Planted,), {"change": staticmethod(spoil)})
    return kind(**{f.name: getattr(teacher.convention, f.name) for f in fields(Convention)})


@pytest.mark.parametrize("name", ["sd15", "zimage", "dit", "animatediff"])
def test_swapped_rows_of_a_batch(name: str, teacher_of: TeacherOf) -> None:
    call = planted(teacher_of(name), lambda cond: {k: v.flip(0) for k, v in cond.items()})
    assert complaint(teacher_of(name), call=call) == "two samples velocity"


def test_rows_of_two_samples_that_take_turns(teacher_of: TeacherOf) -> None:
    def woven(cond: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v.transpose(0, 1).reshape(v.shape) for k, v in cond.items()}

    teacher = teacher_of("animatediff")
    assert teacher.convention.rows == {"encoder_hidden_states": 3}
    assert complaint(teacher, call=planted(teacher, woven)) == "two samples velocity"


@pytest.mark.parametrize("name", ["sd15", "flux", "zimage", "dit"])
def test_a_dropped_condition(name: str, teacher_of: TeacherOf) -> None:
    call = planted(teacher_of(name), lambda cond: {k: torch.zeros_like(v) for k, v in cond.items()})
    assert complaint(teacher_of(name), call=call) == "plain velocity"


def test_a_condition_taken_for_a_constant(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("flux")
    call = replace(teacher.convention, batched={"encoder_hidden_states": 0})
    assert complaint(teacher, call=call) == "two samples velocity"


def test_a_scale_told_in_another_unit(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("flux")
    call = replace(teacher.convention, scale_of=("guidance", lambda w: 1000 * w))
    assert complaint(teacher, call=call) == "plain velocity"


def test_appended_channels_that_are_left_away(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("kandinsky5")
    dim, zeros = teacher.convention.extra
    assert complaint(teacher, call=replace(teacher.convention, extra=(dim, zeros + 1))) == "plain velocity"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sd15", GuidanceRule(offset=1)),
        ("sd15", GuidanceRule(renormalize=True)),
        ("zimage", GuidanceRule()),
        ("qwenimage", GuidanceRule()),
        ("qwenimage", GuidanceRule(offset=1, renormalize=True)),
    ],
    ids=str,
)
def test_a_wrong_rule_of_guidance(name: str, rule: GuidanceRule, teacher_of: TeacherOf) -> None:
    assert complaint(teacher_of(name), rule=rule) == "guided velocity"


def test_halves_of_guidance_in_the_wrong_order(teacher_of: TeacherOf) -> None:
    class Swapped(GuidanceRule):
        def __call__(self, c: Tensor, u: Tensor, w: Tensor) -> Tensor:
            return super().__call__(u, c, w)

    assert complaint(teacher_of("sd15"), rule=Swapped()) == "guided velocity"


def test_a_prediction_that_is_not_a_number(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd15")
    call = planted(teacher, lambda cond: {k: v * float("nan") for k, v in cond.items()})
    assert complaint(teacher, call=call) == "plain velocity"


def test_a_pixel_unet_has_nothing_to_be_held_against(make_teacher: TeacherMaker) -> None:
    teacher = load(str(make_teacher()))
    F = Network(teacher.net, teacher.clock(1.0), teacher.prediction, 1.0)
    assert verify(F, teacher) == {}


def test_a_run_is_refused_before_it_starts(
    fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch, recipe_of: Callable[..., str]
) -> None:
    teacher = fresh("sd15")
    recipe = config.parse(yaml.safe_load(recipe_of("anything", "teacher")), ["guidance.scale=3"])
    assert max(networks.load_teacher(recipe, teacher=teacher).verified.values()) < 1e-5
    wrong = replace(teacher, convention=replace(teacher.convention, sign=-1.0))
    with pytest.raises(UserError, match="was not understood: the plain velocity differs"):
        networks.load_teacher(recipe, teacher=wrong)


def test_a_lack_of_memory_is_no_misreading(fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = fresh("sd15")
    F = Network(teacher.net, teacher.clock(1.0), teacher.prediction, 1.0, call=teacher.convention)

    def full(*_: object) -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(Network, "forward", full)
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        verify(F, teacher)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of"), RuntimeError("CUDA error: out of memory")])
def test_a_lack_of_memory_while_a_teacher_is_read_is_told_as_one(
    error: Exception, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    @functools.wraps(UNet2DConditionModel.forward)
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(UNet2DConditionModel, "forward", full)
    with pytest.raises(UserError, match="Out of memory: CUDA"):
        inspect(folder_of("sd15"), overrides={"teacher.call": zoo.FAMILIES["sd15"].call})


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 allowed in products and convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_every_comparison_is_made_without_tf32(
    tf32: None, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, bool]] = set()
    forward = UNet2DConditionModel.forward

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return forward(*args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", watched)
    inspect(folder_of("sd15"), overrides={"teacher.call": zoo.FAMILIES["sd15"].call})
    assert seen == {(False, False)}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (True, True)
