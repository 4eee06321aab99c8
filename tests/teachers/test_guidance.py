"""Guidance as the stock call has it: at which scales it is on, and the rule that is fitted to its two halves."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zoo
from diffusers import StableDiffusionPAGPipeline
from diffusers.guiders.guider_utils import rescale_noise_cfg
from teachers.conftest import TeacherOf
from torch import Tensor

from scm_distill import config, teachers
from scm_distill.errors import UserError
from scm_distill.maths.cond import SCALE
from scm_distill.maths.guidance import GuidanceRule
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.guidance import RULES, fit
from scm_distill.training.conditioning import Conditioning
from scm_distill.training.networks import load_teacher

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


def projected(c: Tensor, u: Tensor) -> Tensor:
    """Adaptive projected guidance: without the part along c."""
    d = c - u
    return c + 2 * (d - (d * c).sum() / c.square().sum() * c)


@pytest.mark.parametrize(
    "formula",
    [
        projected,
        lambda c, u: u + 3.01 * (c - u),
        lambda c, u: u + 3 * (c - u) + 1e-3,
        lambda c, u: 3 * c,
        lambda c, u: c,
        lambda c, u: u,
    ],
    ids=["projected", "another scale", "a bias", "no unconditional half", "conditional", "unconditional"],
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


def test_rescaling_is_that_of_the_stock_pipelines_and_is_recognised() -> None:
    c, u = halves()
    guided = rescale_noise_cfg(u + 3 * (c - u), c, guidance_rescale=0.7)
    rule = GuidanceRule(rescale=0.7)
    assert torch.allclose(rule(c, u, W), guided, atol=1e-6)
    assert fit(u, c, guided, W, 0.7) == (rule, True)
    assert fit(u, c, guided, W) is None
    assert fit(u, c, u + 3 * (c - u), W, 0.7) == (GuidanceRule(), True)  # a call that has the argument and ignores it


@pytest.mark.parametrize("rule", [*RULES, GuidanceRule(rescale=0.5)], ids=str)
def test_up_to_its_threshold_a_rule_gives_the_conditional_prediction_row_by_row(rule: GuidanceRule) -> None:
    c, u = (torch.cat([half] * 4) for half in halves())
    off = 1.0 - rule.offset
    w = torch.tensor([0.0, off, off + 1e-3, 4.0])
    found = replace(rule, off=off)(c, u, w)
    assert torch.allclose(found[:2], c[:2], atol=1e-6)
    assert torch.allclose(found[2:], rule(c, u, w)[2:])
    assert not torch.allclose(rule(c, u, torch.full((4,), off - 0.5)), c, atol=1e-2)  # which it would not do otherwise


# the family, and the scale up to which its call does not guide; -inf: at 1 alone
OFF = {
    "sd15": 1.0, "krea2": 0.0, "qwenimage": 1.0, "lumina2": 1.0, "wan": 1.0, "stable_audio": 1.0, "zimage": 0.0,
    "dit": 1.0, "ldm": -math.inf,
}  # fmt: skip
SCALES = (0.0, 0.5, 1.0, 1.0001, 1.5, 7.5)


@torch.no_grad()
def off_by(teacher: Teacher, w: float, folder: Path, *, told: bool = False) -> float:
    """Of the teacher's prediction as it is distilled at scale `w` to the one of its stock call, relative.

    With `told` the recipe has a range of scales, of which `w` is one.
    """
    reading = teacher.reading
    ids = ["a photo of a cat"] if reading.stock.driver == "prompt" else [1]
    guidance = teacher.in_effect(config.Guidance(scale=(0.0, 20.0) if told else w))
    guided = teacher.rule is not None and guidance.scale is not None
    conditions = teachers.record(reading, ids, folder, guided=guided, negative="", identity="")
    cond = Conditioning(teacher, conditions, guidance).for_evaluation(torch.tensor([0]))
    if told:
        cond[SCALE] = torch.tensor([w])
    scale = {"embedded": w} if teacher.convention.scale_of else {"scale": w}
    step = reading.stock.watch(reading.stock.arguments(ids, 2, **scale), steps=1).steps[0]
    arguments = step.calls[0].arguments
    tau = arguments[teacher.convention.time].flatten()[:1].float()
    F = Network(teacher.net, teacher.clock(1.0), teacher.prediction, 1.0, call=teacher.convention, rule=teacher.rule)
    ours = F._native(teacher.convention.sample(arguments), tau, cond)
    stock = reading.schedule.sign * step.model_output[:1].reshape(ours.shape)
    return float((ours - stock).norm() / stock.norm())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name in ("sd15", "krea2", "ldm") else pytest.param(name, marks=pytest.mark.wide) for name in OFF]
)
def test_at_every_scale_the_teacher_is_that_of_its_stock_call(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of(name)
    assert teacher.rule.off == OFF[name]
    for w in SCALES:
        assert off_by(teacher, w, tmp_path) < 1e-5, w
        assert off_by(teacher, w, tmp_path, told=True) < 1e-5, w
        assert teacher.reading.guidance_difference(w) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["flux", pytest.param("hunyuanvideo", marks=pytest.mark.wide)])
def test_a_network_that_is_told_the_scale_is_told_every_scale(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    for w in SCALES:
        assert off_by(teacher_of(name), w, tmp_path) < 1e-5, w


@pytest.mark.filterwarnings("ignore")
def test_rescaled_guidance_is_that_of_the_stock_call(fresh: TeacherOf, tmp_path: Path) -> None:
    teacher = fresh("sd15", guidance_rescale=0.7)
    assert str(teacher.rule) == "u + w (c - u), rescaled by 0.7 to std(c)"
    for w in (0.5, 1.0, 7.5):
        assert off_by(teacher, w, tmp_path) < 1e-5, w


@pytest.mark.parametrize("scale", [-1.0, [-1.0, 4.0], [2.0, math.inf], math.nan])
def test_a_scale_below_0_is_refused(scale: object) -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 0|finite"):
        config.Guidance(scale=scale)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        ({"scale": [0.2, 0.9]}, "guides at none"),
        ({"scale": 0.5, "dropout": 0.1}, "does not guide, so there is no unconditional half"),
    ],
)
def test_guidance_that_is_off_where_it_is_needed(guidance: dict[str, object], said: str, teacher_of: TeacherOf) -> None:
    with pytest.raises(UserError, match=said):
        load_teacher(recipe_of(guidance, teacher_of("sd15")), teacher=teacher_of("sd15"))


@pytest.mark.filterwarnings("ignore")
def test_a_scale_at_which_the_call_does_not_follow_its_rule_is_refused(
    fresh: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = fresh("sd15")
    capped = property(lambda self: min(self._guidance_scale, 5.0))
    monkeypatch.setattr(type(teacher.reading.stock.pipeline), "guidance_scale", capped)
    load_teacher(recipe_of({"scale": 4.5}, teacher), teacher=teacher)
    for scale in (7.5, [2.0, 7.5]):
        with pytest.raises(UserError, match=r"At scale 7.5 the teacher's own call does not guide by u \+ w \(c - u\)"):
            load_teacher(recipe_of({"scale": scale}, teacher), teacher=teacher)


def recipe_of(guidance: dict[str, object], teacher: Teacher) -> config.Recipe:
    return config.parse({
        "teacher": {"repo": teacher.source.repo}, "data": {"source": "teacher"}, "guidance": guidance,
        "train": {"steps": 1, "batch_size": 1}, "export": {"t_mid": [1.1]},
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_perturbed_attention_says_how_to_call_without_it(tmp_path: Path) -> None:
    plain = zoo.FAMILIES["sd15"].pipeline()
    StableDiffusionPAGPipeline(**plain.components, requires_safety_checker=False).save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match="at pag_scale 3 it adds perturbed attention") as caught:
        teachers.load(str(tmp_path))
    assert caught.value.fix.startswith("Set teacher.call={pag_scale: 0.0}")
    teacher = teachers.load(str(tmp_path), call={"pag_scale": 0.0})
    assert off_by(teacher, 5.0, tmp_path / "conditions") < 1e-5
