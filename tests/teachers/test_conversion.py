"""Pipelines that change their denoiser's output: into a velocity, or by leaving a learned variance out."""

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from teachers.conftest import TeacherOf
from teachers.test_guidance import off_by
from torch import Tensor

from scm_distill import teachers
from scm_distill.errors import UserError
from scm_distill.teachers.conversion import Conversion, learn

pytestmark = pytest.mark.filterwarnings("ignore")
needs_prx = pytest.mark.skipif("prx_pixel" not in zoo.load_all(), reason="diffusers has no PRXPixelPipeline")
TAU = [1.0, 0.7, 0.31, 0.12, 0.05, 0.04, 0.02]


def drawn(n: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(n)
    return [torch.randn(1, 3, 4, 5, generator=g) for _ in TAU]


@pytest.mark.parametrize("floor", [0.0, 0.06])
@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (1e-3, 0.0), (-1.0, 1.0), (-1e-3, 1.0)])
def test_a_conversion_is_learnt_from_what_it_does(slope: float, offset: float, floor: float) -> None:
    raw, x = drawn(0), drawn(1)
    v = [(b - a) / max(s, floor) for a, b, s in zip(raw, x, TAU, strict=True)]
    found = learn(raw, x, [(s - offset) / slope for s in TAU], v)
    assert (found.slope, found.offset) == (slope, offset)
    assert found.floor == pytest.approx(floor, rel=1e-5)


def test_a_converted_flow_is_its_velocity() -> None:
    x_0, z = drawn(0)[0], drawn(1)[0]
    for s in (1.0, 0.3):
        velocity = Conversion(1e-3, 0.0, 0.05)(x_0, (1 - s) * x_0 + s * z, torch.tensor([1000 * s]))
        assert torch.allclose(velocity, z - x_0, atol=1e-5)


@pytest.mark.parametrize(
    "formula",
    [
        lambda raw, x, s: (raw - x) / s,
        lambda raw, x, s: (x - 0.9 * raw) / s,
        lambda raw, x, s: (x - raw) / s**2,
        lambda raw, x, s: (x - raw) / (s + 0.01),
        lambda raw, x, s: (x - raw) / s + 0.01,
        lambda raw, x, s: (1 - s) * x - s * raw,
    ],
    ids=["the other sign", "scaled", "squared", "shifted", "a bias", "preconditioned"],
)
def test_another_formula_is_no_conversion(formula: Any) -> None:
    raw, x = drawn(0), drawn(1)
    assert learn(raw, x, TAU, [formula(*three) for three in zip(raw, x, TAU, strict=True)]) is None


@needs_prx
def test_prx_of_pixels_is_read_as_a_flow(teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of("prx_pixel")
    conversion = teacher.convention.conversion
    assert (teacher.prediction, conversion.slope, conversion.offset) == ("flow", 1.0, 0.0)
    assert conversion.floor == pytest.approx(0.05, rel=1e-4)  # which the pipeline clips its time at
    for w in (1.0, 3.0):
        assert off_by(teacher, w, tmp_path) < 1e-5


@needs_prx
def test_noise_of_another_size_than_the_schedulers_draw_is_refused(tmp_path: Path) -> None:
    from zoo.converted import prx_pixel

    torch.random.manual_seed(0)
    prx_pixel(noise_scale=2.0).save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match=r"noise of standard deviation \d\.?\d? and not 1"):
        teachers.load(str(tmp_path), call=zoo.FAMILIES["prx_pixel"].call)


def test_a_learned_variance_is_left_out(teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of("if")
    assert teacher.convention.narrow == (3, 16, 16)
    for w in (1.0, 7.0):
        assert off_by(teacher, w, tmp_path) < 1e-5
