"""The rules of classifier-free guidance against their formulas."""

import pytest
import torch
from torch import Tensor

from scm_distill.maths.guidance import GuidanceRule

RULES = [GuidanceRule(offset, renormalize) for offset in (0, 1) for renormalize in (False, True)]
W = torch.tensor([0.5, 1.0, 7.5])
OFF = {0: 1.0, 1: 0.0}  # the scale at which a rule of this offset gives c


def halves() -> tuple[Tensor, Tensor]:
    """Eighths: sums and differences of them are exact in float32."""
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randint(-64, 65, (3, 4, 5, 6), generator=g) / 8 for _ in "cu")


def test_the_classic_rule() -> None:
    c, u = halves()
    w = W[:, None, None, None]
    assert torch.allclose(GuidanceRule()(c, u, W), (1 - w) * u + w * c)


def test_the_rule_that_adds_to_the_conditional_one() -> None:
    c, u = halves()
    assert torch.allclose(GuidanceRule(offset=1)(c, u, W), c + W[:, None, None, None] * (c - u))


def test_a_scale_of_the_second_rule_is_one_less_of_the_first() -> None:
    c, u = halves()
    assert torch.equal(GuidanceRule(offset=1)(c, u, W - 1), GuidanceRule()(c, u, W))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_off_is_the_conditional_prediction_exactly(rule: GuidanceRule) -> None:
    c, u = halves()
    assert torch.equal(rule(c, u, torch.full((3,), OFF[rule.offset])), c)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_any_other_scale_is_not(rule: GuidanceRule) -> None:
    c, u = halves()
    assert not torch.allclose(rule(c, u, torch.full((3,), OFF[rule.offset] + 0.1)), c, rtol=1e-3)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_renormalised_one_keeps_the_norm_and_the_direction(offset: int) -> None:
    c, u = halves()
    plain, scaled = GuidanceRule(offset)(c, u, W), GuidanceRule(offset, renormalize=True)(c, u, W)
    assert torch.allclose(scaled.norm(dim=-1), c.norm(dim=-1), rtol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(plain, scaled, dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine))
    assert not torch.allclose(plain[2].norm(dim=-1), c[2].norm(dim=-1), rtol=0.1)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_sample_has_its_own_scale(rule: GuidanceRule) -> None:
    c, u = halves()
    together = rule(c, u, W)
    for i in range(3):
        assert torch.equal(together[i : i + 1], rule(c[i : i + 1], u[i : i + 1], W[i : i + 1]))


def test_the_scale_takes_the_dtype_of_the_prediction() -> None:
    c, u = (x.bfloat16() for x in halves())
    assert GuidanceRule()(c, u, W.double()).dtype == torch.bfloat16


def test_rules_in_words() -> None:
    assert [str(rule) for rule in RULES] == [
        "u + w (c - u)",
        "u + w (c - u), renormalised to |c|",
        "c + w (c - u)",
        "c + w (c - u), renormalised to |c|",
    ]
