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
    assert float(ema.module.weight) == pytest.approx((gamma + 1) / (gamma + 2), abs=1e-3)


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


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_three_steps_by_the_formula_of_the_paper(std: float) -> None:
    """beta = (1 - 1 / t)^(gamma + 1), theta_ema = beta theta_ema + (1 - beta) theta (arXiv 2312.02696, equation 2)."""
    gamma = gamma_of(std)
    module = torch.nn.Linear(1, 1, bias=False)
    ema = PowerEMA(module, std)
    first, second, third = 2.0, -3.0, 7.0
    found = []
    for step, value in enumerate((first, second, third), 1):
        torch.nn.init.constant_(module.weight, value)
        ema.update(module, step)
        found.append(float(ema.module.weight))
    two, three = 0.5 ** (gamma + 1), (2 / 3) ** (gamma + 1)
    after_two = two * first + (1 - two) * second
    assert found == pytest.approx([first, after_two, three * after_two + (1 - three) * third], rel=1e-6)
    # The closed form of the same average: weights proportional to t^gamma, up to the sum's own error.
    assert (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(std, rel=1e-9)


def test_the_average_is_float32_and_frozen_parameters_stay_the_modules_own() -> None:
    module = torch.nn.Linear(2, 2).bfloat16()
    module.bias.requires_grad_(False)
    own, shared = PowerEMA(module, 0.1), PowerEMA(module.float(), 0.1, shared=True)
    assert {p.dtype for p in own.module.parameters()} == {torch.float32}
    assert shared.module.bias is module.bias
    assert shared.module.weight is not module.weight
    before = own.module.bias.clone()
    torch.nn.init.constant_(module.bias, 9.0)
    own.update(module, 1)
    assert torch.equal(own.module.bias, before)
