"""What a network is given beside x and t: dropped conditions, scales, and the scale that a denoiser is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TeacherMaker
from safetensors.torch import save_file
from teachers.conftest import TeacherOf
from torch import Tensor

from scm_distill import config
from scm_distill.teachers import Conditions, Teacher, load, record
from scm_distill.training.conditioning import Conditioning

pytestmark = pytest.mark.filterwarnings("ignore")

N = 2000
ConditionsOf = Callable[..., Conditions]


@pytest.fixture
def conditions_of(tmp_path: Path) -> ConditionsOf:
    """Small made-up conditions: those of prompt i are i, or -1 without it."""

    def make(n: int = 3, **shapes: tuple[int, ...]) -> Conditions:
        files = []
        for i in range(n):
            files.append(tmp_path / f"{i}.safetensors")
            c = {name: torch.full((1, *shape), float(i)) for name, shape in shapes.items() if name[:2] != "u_"}
            u = {f"u/{name}": torch.full((1, *shapes.get(f"u_{name}", v.shape[1:])), -1.0) for name, v in c.items()}
            save_file({**c, **u}, files[-1])
        return Conditions(files)

    return make


def chance(n: int = N) -> Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0))


def given(teacher: Teacher, conditions: Conditions, **guidance: Any) -> Conditioning:
    return Conditioning(teacher, conditions, config.Guidance(**guidance))


def test_the_share_that_is_dropped(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    cond = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=3.0, dropout=0.1)(torch.arange(N) % 3, chance())
    dropped = (cond["text"] == -1).all(1)
    assert dropped.float().mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(dropped, chance()[:, 1] < 0.1)


def test_the_others_keep_their_own_condition(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    ids = torch.arange(N) % 3
    cond = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=3.0, dropout=0.1)(ids, chance())
    kept = chance()[:, 1] >= 0.1
    assert torch.equal(cond["text"][kept], ids[kept].float()[:, None].expand(-1, 4))
    assert (cond["u/text"] == -1).all()


def test_every_argument_of_a_dropped_sample_is_unconditional(
    teacher_of: TeacherOf, conditions_of: ConditionsOf
) -> None:
    known = conditions_of(text=(4, 2), pooled=(3,))
    cond = given(teacher_of("sd15"), known, scale=3.0, dropout=0.5)(torch.arange(N) % 3, chance())
    assert torch.equal((cond["text"] == -1).all((1, 2)), (cond["pooled"] == -1).all(1))


def test_nothing_is_dropped_by_default(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    cond = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=3.0)(torch.arange(N) % 3, chance())
    assert (cond["text"] >= 0).all()


def test_nothing_is_dropped_in_an_evaluation(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    cond = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=3.0, dropout=0.9).for_evaluation(
        torch.arange(N) % 3
    )
    assert (cond["text"] >= 0).all()


def test_a_dropped_sample_of_a_real_teacher_is_its_unconditional_half(teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of("sdxl")
    known = record(teacher.reading, ["a cat", "a dog"], tmp_path, guided=True, negative="", identity="")
    cond = given(teacher, known, scale=3.0, dropout=0.5)(torch.tensor([0, 1]), torch.tensor([[0.0, 0.9], [0.0, 0.1]]))
    whole = known(torch.tensor([0, 1]))
    for path in teacher.convention.batched:
        assert torch.equal(cond[path][0], whole[path][0])
        assert torch.equal(cond[path][1], whole[f"u/{path}"][1])


def test_a_condition_is_dropped_whole_or_not_at_all(teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of("kandinsky5")
    known = record(teacher.reading, ["a long prompt"], tmp_path, guided=True, negative="", identity="")
    cond = given(teacher, known, scale=3.0, dropout=0.5)(torch.tensor([0]), torch.tensor([[0.0, 0.1, 0.1]]))
    whole = known(torch.tensor([0]))
    paths = teacher.convention.batched
    replaced = {path for path in paths if not torch.equal(cond[path], whole[path])}
    assert replaced == set(paths)


@pytest.mark.parametrize("name", ["zimage", "qwenimage"])
def test_the_share_that_is_dropped_of_unpadded_prompts(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of(name)
    known = record(teacher.reading, ["a long prompt"], tmp_path, guided=True, negative="", identity="")
    of, ids = given(teacher, known, scale=3.0, dropout=0.5), torch.zeros(4, dtype=torch.long)
    path = next(path for path in known(ids) if f"u/{path}" in known(ids))
    for share, expected in ((0.4, f"u/{path}"), (0.6, path)):  # one draw decides for the whole step
        assert torch.equal(of(ids, torch.tensor([[0.0, 0.0, share]] * 4))[path], known(ids)[expected])


def test_a_range_of_scales(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    of = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=(2.0, 6.0))
    w = of(torch.arange(N) % 3, chance())["w"]
    assert w.shape == (N,)
    assert w.min() >= 2
    assert w.max() < 6
    assert w.mean() == pytest.approx(4, abs=0.1)
    assert torch.equal(w, 2 + 4 * chance()[:, 0])


def test_scales_depend_on_chance_only(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    of = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=(2.0, 6.0), dropout=0.3)
    state = torch.random.get_rng_state()
    one, two = of(torch.zeros(N, dtype=torch.long), chance()), of(torch.full((N,), 2), chance())
    assert torch.equal(one["w"], two["w"])
    assert torch.equal(torch.random.get_rng_state(), state)
    turned = of(
        torch.zeros(N, dtype=torch.long), torch.stack([chance()[:, 0], chance()[:, 1].flip(0), chance()[:, 2]], 1)
    )
    assert torch.equal(one["w"], turned["w"])


def test_the_evaluation_scale_of_a_range_is_its_middle(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    of = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=(2.0, 6.0))
    assert of.for_evaluation(torch.tensor([0, 1]))["w"].tolist() == [4.0, 4.0]


def test_one_scale_is_the_same_for_all(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    cond = given(teacher_of("sd15"), conditions_of(text=(4,)), scale=3.0)(torch.arange(N) % 3, chance())
    assert (cond["w"] == 3).all()


def test_without_guidance_there_is_no_scale(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    of = given(teacher_of("sd15"), conditions_of(text=(4,)))
    assert of.stock_scale is None
    assert "w" not in of(torch.arange(3), chance(3))


@pytest.mark.parametrize(("name", "default"), [("flux", 3.5), ("hunyuanvideo", 6.0)])
def test_the_stock_scale_is_that_of_the_stock_call(
    name: str, default: float, teacher_of: TeacherOf, conditions_of: ConditionsOf
) -> None:
    of = given(teacher_of(name), conditions_of(text=(4,)))
    assert of.stock_scale == pytest.approx(default)
    assert of.for_evaluation(torch.arange(2))["w"].tolist() == pytest.approx([default, default])


def test_a_denoiser_is_told_the_scale_of_the_recipe(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    one = given(teacher_of("flux"), conditions_of(text=(4,)), scale=5.0)
    assert one(torch.arange(3), chance(3))["w"].tolist() == [5.0, 5.0, 5.0]
    several = given(teacher_of("flux"), conditions_of(text=(4,)), scale=(1.0, 5.0))
    assert torch.equal(several(torch.arange(3), chance(3))["w"], 1 + 4 * chance(3)[:, 0])


def test_conditions_that_are_none_are_not_given(teacher_of: TeacherOf, tmp_path: Path) -> None:
    save_file({"none": torch.zeros(1)}, tmp_path / "0.safetensors")
    of = given(teacher_of("sd15"), Conditions([tmp_path / "0.safetensors"]))
    assert of(torch.zeros(3, dtype=torch.long), chance(3)) == {}


def test_random_ids_are_of_the_largest_bucket(teacher_of: TeacherOf, conditions_of: ConditionsOf) -> None:
    known = conditions_of(7, text=(4,))
    known.bucket = torch.tensor([0, 1, 1, 0, 2, 1, 2])
    of = given(teacher_of("sd15"), known)
    ids = of.draw_ids(200, torch.Generator().manual_seed(0))
    assert set(ids.tolist()) == {1, 2, 5}
    assert torch.equal(ids, of.draw_ids(200, torch.Generator().manual_seed(0)))


def test_a_pixel_unets_ids_are_its_labels(make_teacher: TeacherMaker) -> None:
    of = Conditioning(load(str(make_teacher(classes=3))), None, config.Guidance())
    assert of(torch.tensor([2, 0]), chance(2))["class_labels"].tolist() == [2, 0]
    assert set(of.draw_ids(100, torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2}
    unconditional = replace(of, teacher=load(str(make_teacher())))
    assert unconditional(torch.tensor([0, 0]), chance(2)) == {}
