"""The latent map: it undoes the tail of the stock call, and says so where it cannot."""

import contextlib
import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from teachers.conftest import TeacherOf
from torch import Tensor

from scm_distill.errors import UserError
from scm_distill.teachers import Teacher
from scm_distill.teachers.latents import latent_map

pytestmark = pytest.mark.filterwarnings("ignore")

# what one sample is for the VAE
PIXELS = {
    "sd15": (1, 3, 16, 16),
    "sdxl": (1, 3, 16, 16),
    "playground": (1, 3, 16, 16),
    "flux": (1, 3, 16, 16),
    "flux2_klein": (1, 3, 16, 16),
    "qwenimage": (1, 3, 1, 16, 16),
    "ltx": (1, 3, 3, 32, 32),
    "wan": (1, 3, 3, 32, 32),
    "mochi": (1, 3, 7, 48, 48),
    "cogvideox": (1, 3, 9, 32, 32),
    "kandinsky5": (1, 3, 5, 32, 32),
    "latte": (3, 3, 16, 16),
    "animatediff": (3, 3, 16, 16),
    "stable_audio": (1, 2, 64),
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def decoded(teacher: Teacher, L: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the VAE is given first when a plain stock call ends on L (1, ...)."""
    stock, seen = teacher.reading.stock, []
    pipeline = stock.pipeline
    step = pipeline.scheduler.step

    def ends_on_L(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        return (L, *result[1:]) if isinstance(result, tuple) else SimpleNamespace(prev_sample=L)

    def look(z: Tensor, *_: Any, **__: Any) -> None:
        seen.append(z.clone())
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.scheduler, "step", functools.wraps(step)(ends_on_L))
        patch.setattr(pipeline.vae, "decode", functools.wraps(pipeline.vae.decode)(look))
        with contextlib.suppress(InterruptedError):
            pipeline(**stock.arguments(["a cat"], 2, scale=teacher.reading.off))
    return seen[0]


@pytest.mark.parametrize("name", PIXELS)
def test_encoding_undoes_the_tail_of_the_stock_call(
    name: str, teacher_of: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of(name)
    mapped = latent_map(teacher.reading)
    assert (mapped.sample_shape, mapped.pixels) == (teacher.sample_shape, PIXELS[name])
    L = noise(1, *teacher.sample_shape)
    D = decoded(teacher, L, monkeypatch)
    posterior = SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: D))
    monkeypatch.setattr(mapped.vae, "encode", lambda _: posterior)
    again = mapped.encode(torch.zeros(mapped.pixels))
    assert again.shape == L.shape
    assert (again - L).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sd15", {}),
        ("flux2_klein", {}),
        ("ltx", {}),
        ("wan", {"num_frames": 5}),  # its encoder takes four frames at a time, whatever its config says
        ("cogvideox", {}),
        ("latte", {}),
        ("kandinsky5", {}),
    ],
)
def test_real_data_goes_through_the_vaes_encoder(name: str, call: dict[str, Any], teacher_of: TeacherOf) -> None:
    teacher = teacher_of(name, **call)
    mapped = latent_map(teacher.reading)
    L = mapped.encode(noise(*mapped.pixels).clamp(-1, 1))
    assert L.shape == (1, *teacher.sample_shape)
    assert L.isfinite().all()
    assert L.std() > 0
    assert not torch.allclose(L, mapped.encode(torch.zeros(mapped.pixels)))


def test_stable_diffusions_map_is_its_scaling_factor(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd15")
    mapped, vae = latent_map(teacher.reading), teacher.reading.stock.pipeline.vae
    x = noise(*mapped.pixels)
    with torch.no_grad():
        expected = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    assert torch.allclose(mapped.encode(x), expected, atol=1e-6)


def test_playgrounds_map_has_the_statistics_of_its_vae(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("playground")
    mapped, config = latent_map(teacher.reading), teacher.reading.stock.pipeline.vae.config
    mean, std = (torch.tensor(v).reshape(1, 4, 1, 1) for v in (config.latents_mean, config.latents_std))
    assert torch.allclose(mapped.shift, mean.expand(1, 4, 8, 8), atol=1e-5)
    assert torch.allclose(mapped.scale, (std / config.scaling_factor).expand(1, 4, 8, 8), atol=1e-5)


def refusal(teacher: Teacher) -> str:
    with pytest.raises(UserError) as caught:
        latent_map(teacher.reading)
    assert caught.value.code == 2
    assert caught.value.fix.startswith("Set data.source=teacher")
    return caught.value.problem


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (torch.tanh, "is not made of the latents one by one"),
        (lambda L: L.cumsum(-1), "is not made of the latents one by one"),
        (lambda L: L + 0.1 * (2 * math.pi * L).sin(), "is not proportional to the latents"),
        (lambda L: 0 * L, "at first for a sample of"),
        (lambda L: L[:, :, :2], "at first for a sample of"),
    ],
    ids=["squashed", "mixed", "wavy", "forgotten", "cut"],
)
def test_a_tail_that_is_not_affine_is_refused(
    tail: Callable[[Tensor], Tensor], why: str, teacher_of: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of("animatediff")
    pipeline = teacher.reading.stock.pipeline
    decode = pipeline.decode_latents
    monkeypatch.setattr(pipeline, "decode_latents", lambda L, *rest: decode(tail(L), *rest))
    problem = refusal(teacher)
    assert problem.startswith("AnimateDiffPipeline cannot encode real data: its decoder")
    assert why in problem


@pytest.mark.parametrize(
    "tail", [lambda L: 2 * L - 1, lambda L: L.flip(-1), lambda L: -L], ids=["shifted", "reversed", "negative"]
)
def test_a_tail_that_is_affine_is_undone(
    tail: Callable[[Tensor], Tensor], teacher_of: TeacherOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of("animatediff")
    pipeline = teacher.reading.stock.pipeline
    decode = pipeline.decode_latents
    monkeypatch.setattr(pipeline, "decode_latents", lambda L, *rest: decode(tail(L), *rest))
    mapped = latent_map(teacher.reading)
    L = noise(1, *teacher.sample_shape)
    D = tail(L).movedim(1, 2).flatten(0, 1) / pipeline.vae.config.scaling_factor
    monkeypatch.setattr(mapped.vae, "encode", lambda _: (D,))
    assert torch.allclose(mapped.encode(torch.zeros(mapped.pixels)), L, atol=1e-5)


def test_a_call_that_ends_in_latents_is_refused(fresh: TeacherOf) -> None:
    assert "its call ends without decoding" in refusal(fresh("sd15", output_type="latent"))


def test_a_pipeline_without_an_encoder_is_refused(teacher_of: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_of("sd15").reading.stock.pipeline, "vae", None)
    assert "it has no VAE with an encoder" in refusal(teacher_of("sd15"))


def test_a_vae_that_encodes_to_another_shape_is_refused(teacher_of: TeacherOf, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = latent_map(teacher_of("sd15").reading)
    monkeypatch.setattr(mapped.vae, "encode", lambda _: (torch.zeros(1, 4, 4, 4),))
    with pytest.raises(UserError, match=r"encodes to \(1, 4, 4, 4\) and decodes from \(1, 4, 8, 8\)"):
        mapped.encode(torch.zeros(mapped.pixels))


def test_measuring_leaves_the_vae_as_it_was(teacher_of: TeacherOf) -> None:
    latent_map(teacher_of("sd15").reading)
    assert "decode" not in teacher_of("sd15").reading.stock.pipeline.vae.__dict__
