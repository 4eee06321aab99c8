"""Guidance in the TrigFlow form of a denoiser: which arguments go where, in one call or in two."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from scm_distill.maths.clocks import FlowClock
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.models.network import Network


class Sum:
    """x + a condition's sum, and what each call was given."""

    def __init__(self, *, batchable: bool) -> None:
        self.batchable, self.calls = batchable, []

    def __call__(self, net: nn.Module, x_nat: Tensor, tau: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        self.calls.append((len(x_nat), sorted(cond)))
        return x_nat + cond["text"].flatten(1).sum(1)[:, None] + tau[:, None]


X, T = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, 1.2]).double()
TEXT, NEGATIVE, W = torch.tensor([[0.1], [0.2]]), torch.tensor([[-0.5], [0.7]]), torch.tensor([3.0, 5.0])


def network(call: Sum, rule: GuidanceRule | None) -> Network:
    return Network(nn.Linear(1, 1), FlowClock(10.0, 0.0, 1.0), "flow", 1.0, call=call, rule=rule)


def F(call: Sum, rule: GuidanceRule | None, **cond: Tensor) -> Tensor:
    with torch.no_grad():
        return network(call, rule)(X, T, {name.replace("u_", "u/"): value for name, value in cond.items()})


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    ("batchable", "negative", "calls"),
    [(True, NEGATIVE, [4]), (False, NEGATIVE, [2, 2]), (True, NEGATIVE.expand(2, 3), [2, 2])],
    ids=["one call", "not batchable", "of another shape"],
)
def test_a_guided_prediction_is_the_rule_of_its_two_halves(
    offset: int, batchable: bool, negative: Tensor, calls: list[int]
) -> None:
    call, alone = Sum(batchable=batchable), Sum(batchable=True)
    guided = F(call, GuidanceRule(offset), text=TEXT, u_text=negative, w=W)
    c, u = F(alone, None, text=TEXT), F(alone, None, text=negative)
    w = (W + offset)[:, None]
    assert torch.allclose(guided, u + w * (c - u), atol=1e-5)  # F is affine in the prediction, whose weights sum to 1
    assert [n for n, _ in call.calls] == calls
    assert all(names == ["text"] for _, names in call.calls)


def test_without_a_rule_or_a_scale_only_the_conditions_are_used() -> None:
    plain = F(Sum(batchable=True), None, text=TEXT)
    for rule, cond in ((None, {"u_text": NEGATIVE}), (GuidanceRule(), {"u_text": NEGATIVE}), (GuidanceRule(), {})):
        call = Sum(batchable=True)
        assert torch.equal(F(call, rule, text=TEXT, **cond), plain)
        assert call.calls == [(2, ["text"])]
