"""bf16 rounds the time of some families before any sinusoid is taken of it; it must not."""

from collections.abc import Callable

import pytest
import torch

from scm_distill.autodiff.forward_ad import jvp
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher

pytestmark = pytest.mark.filterwarnings("ignore")
N = 8


@pytest.mark.parametrize(
    ("name", "rounds"), [("flux", True), ("chroma", True), ("qwenimage", True), ("sd3", False), ("wan", False)]
)
def test_the_tangent_in_bf16_is_close_without_any_low_pass(
    name: str, rounds: bool, fresh: Callable[[str], Teacher]
) -> None:
    teacher = fresh(name)
    F = Network(teacher.net, teacher.clock(1.0), teacher.prediction, 1.0, call=teacher.convention)
    one = teacher.reading.reference_steps[0].cond
    cond = {path: value.expand(N, *value.shape[1:]).contiguous() for path, value in one.items()}
    x, dx = (torch.randn(N, *teacher.sample_shape, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    t = torch.linspace(0.2, 1.5, N).double()
    assert low_pass.prepare(F, x, t, cond)

    def tangent(autocast: torch.dtype | None) -> torch.Tensor:
        narrow = F.with_autocast(autocast)
        return jvp(lambda x, t: narrow(x, t, cond), (x, t), (dx, t.cos() * t.sin()))[1]

    exact, before = tangent(None), tangent(torch.bfloat16)
    assert ((before - exact).norm() > 0.2 * exact.norm()) == rounds
    assert low_pass.exact_time(F, x, t, cond, torch.bfloat16) < low_pass.ROUNDED
    assert (tangent(torch.bfloat16) - exact).norm() < 0.02 * exact.norm()
