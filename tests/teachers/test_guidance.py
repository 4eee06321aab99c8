"""Fitting the rule of guidance to what a pipeline made of its two halves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scm_distill.maths.guidance import GuidanceRule
from scm_distill.teachers import Teacher
from scm_distill.teachers.guidance import RULES, fit

W = torch.tensor([3.0])


def halves() -> tuple[Tensor, Tensor]:
    """c and u, as far apart as a real teacher's."""
    g = torch.Generator().manual_seed(0)
    c = torch.randn(1, 4, 8, 8, generator=g)
    return c, c + 0.1 * torch.randn(1, 4, 8, 8, generator=g)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("unconditional_first", [True, False])
def test_each_rule_is_recognised_in_either_order(rule: GuidanceRule, unconditional_first: bool) -> None:
    c, u = halves()
    first, second = (u, c) if unconditional_first else (c, u)
    assert fit(first, second, rule(c, u, W), W) == (rule, unconditional_first)


def test_there_are_four_rules() -> None:
    assert {(rule.offset, rule.renormalize) for rule in RULES} == {(0, False), (1, False), (0, True), (1, True)}


def test_the_rules_are_what_their_names_say() -> None:
    c, u = halves()
    classic, shifted = u + 3 * (c - u), c + 3 * (c - u)
    assert torch.allclose(GuidanceRule()(c, u, W), classic, atol=1e-5)
    assert torch.allclose(GuidanceRule(offset=1)(c, u, W), shifted, atol=1e-5)
    for offset, guided in enumerate((classic, shifted)):
        found = GuidanceRule(offset=offset, renormalize=True)(c, u, W)
        assert torch.allclose(found.norm(dim=-1), c.norm(dim=-1), rtol=1e-5)
        assert torch.allclose(torch.cosine_similarity(found, guided, dim=-1), torch.ones(1, 4, 8), atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_guidance_is_off_at_scale_1_or_0(rule: GuidanceRule) -> None:
    c, u = halves()
    assert torch.allclose(rule(c, u, torch.tensor([1.0 - rule.offset])), c, atol=1e-6)


def rescaled(c: Tensor, u: Tensor) -> Tensor:
    """`guidance_rescale` of the stock pipelines: the standard deviation of all of c."""
    guided = u + 3 * (c - u)
    return guided * c.std() / guided.std()


def projected(c: Tensor, u: Tensor) -> Tensor:
    """Adaptive projected guidance: without the part along c."""
    d = c - u
    return c + 2 * (d - (d * c).sum() / c.square().sum() * c)


@pytest.mark.parametrize(
    "formula",
    [
        rescaled,
        projected,
        lambda c, u: u + 3.01 * (c - u),
        lambda c, u: u + 3 * (c - u) + 1e-3,
        lambda c, u: 3 * c,
        lambda c, u: c,
        lambda c, u: u,
    ],
    ids=["rescaled", "projected", "another scale", "a bias", "no unconditional half", "conditional", "unconditional"],
)
def test_another_formula_is_no_rule(formula: object) -> None:
    c, u = halves()
    assert fit(u, c, formula(c, u), W) is None
    assert fit(c, u, formula(c, u), W) is None


def test_a_norm_over_all_channels_is_not_taken_for_one_along_the_last_dimension() -> None:
    c, u = halves()
    guided = u + 3 * (c - u)
    assert fit(u, c, guided * c.norm() / guided.norm(), W) is None
    assert fit(u, c, guided * c.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True), W) is None


@pytest.mark.filterwarnings("ignore")
def test_guidance_that_changes_from_step_to_step_is_not_taken_for_constant(fresh: Callable[..., Teacher]) -> None:
    reading = fresh("lumina2", cfg_trunc_ratio=0.6).reading
    assert reading.rule is None
    assert reading.no_guidance == "its guidance changes from step to step"
