"""The network that trains is held against its stock pipeline: every planted fault is found, and named."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from teachers.conftest import TeacherOf
from torch import Tensor, nn

from scm_distill.errors import UserError
from scm_distill.maths.clocks import FlowClock
from scm_distill.maths.guidance import Rule
from scm_distill.maths.schedules import DiscreteSchedule
from scm_distill.models.student import Cond, Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.convention import Convention
from scm_distill.training.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore")

RIGHT = {
    "sd15": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "sdxl": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "flux": {"plain velocity", "first stock step", "two samples velocity"},
    "zimage": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "qwenimage": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "mochi": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "cogview4": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "kandinsky5": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "animatediff": {"plain velocity", "two samples velocity", "guided velocity"},
    "latte": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
    "playground": {"plain velocity", "two samples velocity", "guided velocity"},
    "stable_audio": {"plain velocity", "two samples velocity", "guided velocity"},
    "dit": {"plain velocity", "first stock step", "two samples velocity", "guided velocity"},
}


def network(teacher: Teacher, **changes: Any) -> Network:
    """The teacher as a run has it, and what differs from that."""
    sigma_d = teacher.reading.schedule.sigma_data or 1.0
    made = {"clock": teacher.clock(sigma_d), "prediction": teacher.prediction, "rule": teacher.rule,
            "call": teacher.convention, **changes}  # fmt: skip
    return Network(teacher.net, made["clock"], made["prediction"], sigma_d, call=made["call"], rule=made["rule"]).eval()


def complaint(teacher: Teacher, F: Network | None = None, **changes: Any) -> str:
    """What is named as different."""
    with pytest.raises(UserError) as caught:
        verify(F or network(teacher, **changes), teacher)
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
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["sd15", "flux", "mochi", "playground"])
def test_a_wrong_sign(name: str, teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name)
    call = replace(teacher.convention, sign=-teacher.convention.sign)
    assert complaint(teacher, call=call) == "plain velocity"


def test_a_clock_one_percent_off(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd3")
    assert complaint(teacher, clock=FlowClock(1010.0, 0.0, 1.0)) == "plain velocity"


def reread(teacher: Teacher, clock: Callable[[float], Any]) -> Teacher:
    """The teacher, had another clock been read from its stock call."""
    reading = replace(teacher.reading, schedule=replace(teacher.reading.schedule, clock=clock))
    witnesses = []
    for w in reading.witnesses:
        tau = float(teacher.clock(1.0).index(torch.tensor(w.t(1.0), dtype=torch.float64)))
        witnesses.append(replace(w, t=lambda d, tau=tau: reading.schedule.t_of(tau, None, d)))
    reading.witnesses = witnesses
    return replace(teacher, clock=clock, reading=reading)


def test_a_flow_read_one_percent_off(teacher_of: TeacherOf) -> None:
    complaint(reread(teacher_of("sd3"), lambda d: FlowClock(1010.0, 0.0, d)))
