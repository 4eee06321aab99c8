"""Power-function EMA against its definition."""

import pytest
import torch

from scm_distill.models.ema import PowerEMA, gamma_of


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_gamma_of_the_widths_in_the_paper(std: float, gamma: float) -> None:
    assert gamma_of(std) == pytest.approx(gamma, abs=0.01)


def test_a_straight_line_is_averaged_with_weights_that_grow_as_a_power() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    ema = PowerEMA(module, 0.1)
    steps = 2000
    for step in range(1, steps + 1):
        torch.nn.init.constant_(module.weight, step / steps)
        ema.update(module, step)
    gamma = gamma_of(0.1)
    assert float(ema.shadow["weight"]) == pytest.approx((gamma + 1) / (gamma + 2), abs=1e-3)


def test_the_first_update_forgets_the_start() -> None:
    module = torch.nn.Linear(2, 2)
    ema = PowerEMA(module, 0.05)
    torch.nn.init.constant_(module.weight, 3.0)
    ema.update(module, 1)
    torch.nn.init.constant_(module.weight, 5.0)
    assert torch.equal(ema.module.weight, torch.full((2, 2), 3.0))
    assert not ema.module.weight.requires_grad


def test_widths_that_no_power_reaches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.2887"):
        gamma_of(0.3)
