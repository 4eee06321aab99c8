"""Recorded conditions: those of the stock call, recorded once, in buckets; and previews without text encoders."""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachers.conftest import TeacherOf
from torch import nn

from scm_distill.teachers import Conditions, Teacher, record
from scm_distill.teachers.convention import at
from scm_distill.teachers.latents import Decoder

pytestmark = pytest.mark.filterwarnings("ignore")

LONG = "a long description of a small cat on a mat"


def recorded(teacher: Teacher, prompts: list[Any], folder: Path, **changes: Any) -> Conditions:
    """With the defaults of a guided run."""
    how = {"guided": teacher.rule is not None, "negative": "", "identity": "teacher", **changes}
    return record(teacher.reading, prompts, folder, **how)


def first_step(teacher: Teacher, **arguments: Any) -> list[dict[str, Any]]:
    """The named arguments of the denoiser's calls in the first step of a plain stock call, by torch's own hooks."""
    stock, seen = teacher.reading.stock, []

    def look(net: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(inspect.signature(net.forward).bind(*args, **named).arguments)

    def stop(*_: Any, **__: Any) -> None:
        raise InterruptedError

    hook = stock.net.register_forward_pre_hook(look, with_kwargs=True)
    step = stock.pipeline.scheduler.step
    stock.pipeline.scheduler.step = stop
    try:
        with contextlib.suppress(InterruptedError):
            stock.pipeline(num_inference_steps=2, **{**stock.extra, **arguments})
    finally:
        hook.remove()
        stock.pipeline.scheduler.step = step
    return seen


GUIDED = ["sd15", "sdxl", "audioldm2", "mochi", "wan", "cogview4", "stable_audio"]


@pytest.mark.parametrize("name", GUIDED)
def test_they_are_the_arguments_of_the_stock_call(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of(name)
    known = recorded(teacher, ["a dog"], tmp_path, negative="blurry")(torch.tensor([0]))
    calls = first_step(teacher, prompt="a dog", negative_prompt="blurry", guidance_scale=3.0)
    assert known.keys() == {prefix + path for path in teacher.convention.batched for prefix in ("", "u/")}
    for path in teacher.convention.batched:
        halves = [at(call, path) for call in calls] if len(calls) == 2 else list(at(calls[0], path).chunk(2))
        u, c = halves if teacher.reading.unconditional_first else halves[::-1]
        assert torch.equal(known[path], c), path
        assert torch.equal(known[f"u/{path}"], u), path


def test_a_prompt_and_its_negative_differ(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("sd15"), ["a dog"], tmp_path, negative="blurry")(torch.tensor([0]))
    assert not torch.equal(known["encoder_hidden_states"], known["u/encoder_hidden_states"])


def test_those_of_a_list_are_the_entries_of_the_stock_calls(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("zimage"), ["a dog"], tmp_path, negative="blurry")(torch.tensor([0]))
    (call,) = first_step(teacher_of("zimage"), prompt="a dog", negative_prompt="blurry", guidance_scale=3.0)
    c, u = call["cap_feats"]
    assert known.keys() == {"cap_feats", "u/cap_feats"}
    assert torch.equal(known["cap_feats"][0], c)
    assert torch.equal(known["u/cap_feats"][0], u)


def test_those_of_a_denoiser_that_is_told_the_scale(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("flux"), ["a dog"], tmp_path)(torch.tensor([0]))
    (call,) = first_step(teacher_of("flux"), prompt="a dog")
    assert known.keys() == {"encoder_hidden_states", "pooled_projections"}
    for name, value in known.items():
        assert torch.equal(value, call[name])


def test_those_of_frames_are_kept_a_sample_each(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("animatediff"), ["a dog"], tmp_path)(torch.tensor([0, 0]))
    (call,) = first_step(teacher_of("animatediff"), prompt="a dog", guidance_scale=3.0)
    assert known["encoder_hidden_states"].shape == (2, 3, 77, 16)
    assert torch.equal(known["encoder_hidden_states"][0], call["encoder_hidden_states"][3:])
    assert torch.equal(known["u/encoder_hidden_states"][1], call["encoder_hidden_states"][:3])


def test_those_of_labels(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("dit"), [0, 7, 999], tmp_path)(torch.tensor([2, 0]))
    assert known["class_labels"].tolist() == [999, 0]
    assert known["u/class_labels"].tolist() == [1000, 1000]


def test_unguided_ones_have_no_other_half(teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of("sd15"), ["a dog"], tmp_path, guided=False)(torch.tensor([0]))
    (call,) = first_step(teacher_of("sd15"), prompt="a dog", guidance_scale=1.0)
    assert known.keys() == {"encoder_hidden_states"}
    assert torch.equal(known["encoder_hidden_states"], call["encoder_hidden_states"])


@contextlib.contextmanager
def counted(teacher: Teacher) -> Iterator[list[int]]:
    """One entry for every call of a text encoder."""
    calls: list[int] = []
    pipeline = teacher.reading.stock.pipeline
    encoders = [part for name, part in pipeline.components.items() if name.startswith("text_encoder")]
    hooks = [part.register_forward_hook(lambda *_: calls.append(1)) for part in encoders]
    yield calls
    for hook in hooks:
        hook.remove()


def test_recording_again_does_not_encode_again(teacher_of: TeacherOf, tmp_path: Path) -> None:
    with counted(teacher_of("sd15")) as calls:
        first = recorded(teacher_of("sd15"), ["a cat", "a dog"], tmp_path)
        once = len(calls)
        again = recorded(teacher_of("sd15"), ["a dog", "a cat"], tmp_path)
    assert once > 0
    assert len(calls) == once
    assert first.files == again.files[::-1]


def test_the_denoiser_never_runs(teacher_of: TeacherOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teacher_of("sd15")
    monkeypatch.setattr(
        teacher.reading.stock.net,
        "forward",
        functools.wraps(teacher.net.forward)(lambda *_, **__: pytest.fail("the denoiser ran")),
    )
    recorded(teacher, ["a cat"], tmp_path)


def test_a_new_prompt_is_recorded_alone(teacher_of: TeacherOf, tmp_path: Path) -> None:
    with counted(teacher_of("sd15")) as calls:
        recorded(teacher_of("sd15"), ["a cat"], tmp_path)
        once = len(calls)
        recorded(teacher_of("sd15"), ["a cat", "a dog"], tmp_path)
    assert len(calls) == 2 * once


@pytest.mark.parametrize(
    "changes",
    [{"negative": "blurry"}, {"identity": "another revision"}, {"guided": False}, {"call": {"height": 32}}],
    ids=str,
)
def test_other_circumstances_are_other_files(changes: dict[str, Any], teacher_of: TeacherOf, tmp_path: Path) -> None:
    changes = dict(changes)
    teacher = teacher_of("sdxl", **changes.pop("call", {}))
    before = recorded(teacher_of("sdxl"), ["a cat"], tmp_path)
    with counted(teacher) as calls:
        after = recorded(teacher, ["a cat"], tmp_path, **changes)
    assert calls
    assert before.files != after.files


def test_half_a_file_is_never_left(teacher_of: TeacherOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def interrupted(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    teacher = teacher_of("sd15")
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorded(teacher, ["a cat"], tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    assert len(recorded(teacher, ["a cat"], tmp_path)) == 1


@pytest.mark.parametrize("name", ["qwenimage", "cogview4", "zimage", "kandinsky5"])
def test_prompts_of_other_lengths_lie_in_other_buckets(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    known = recorded(teacher_of(name), ["a cat", LONG, "a dog"], tmp_path)
    assert known.bucket.tolist() == [0, 1, 0]
    together = known(torch.tensor([0, 2]))
    for path, value in known(torch.tensor([2])).items():
        assert torch.equal(together[path][1:], value), path
    with pytest.raises(RuntimeError):
        known(torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["sd15", "flux", "mochi"])
def test_padded_prompts_lie_in_one_bucket(name: str, teacher_of: TeacherOf, tmp_path: Path) -> None:
    assert recorded(teacher_of(name), ["a cat", LONG], tmp_path).bucket.tolist() == [0, 0]


def pixels(sample: Any) -> np.ndarray:
    """A preview as numbers."""
    return np.stack([np.asarray(frame) for frame in sample]) if isinstance(sample, list) else np.asarray(sample)


ENCODERS = {
    "sd15": ["text_encoder"],
    "sdxl": ["text_encoder", "text_encoder_2"],
    "sd3": ["text_encoder", "text_encoder_2", "text_encoder_3"],
    "flux": ["text_encoder", "text_encoder_2"],
    "zimage": ["text_encoder"],
    "qwenimage": ["text_encoder"],
    "wan": ["text_encoder"],
    "ltx": ["text_encoder"],
    "kandinsky5": ["text_encoder", "text_encoder_2"],
    "stable_audio": ["text_encoder"],
}


@pytest.mark.parametrize("name", ENCODERS)
def test_previews_are_the_same_without_text_encoders(name: str, fresh: TeacherOf) -> None:
    teacher = fresh(name)
    pipeline, latents = teacher.reading.stock.pipeline, torch.randn(2, *teacher.sample_shape)
    decoder = Decoder(teacher.reading)
    before = [pixels(sample) for sample in decoder(latents)]
    assert sorted(decoder.drop_encoders()) == ENCODERS[name]
    assert all(getattr(pipeline, encoder) is None for encoder in ENCODERS[name])
    after = [pixels(sample) for sample in decoder(latents)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not np.array_equal(after[0], after[1])


def test_text_encoders_that_the_call_needs_stay(fresh: TeacherOf) -> None:
    teacher = fresh("audioldm2")
    decoder = Decoder(teacher.reading)
    held = teacher.reading.stock.pipeline.text_encoder
    assert decoder.drop_encoders() == []
    assert teacher.reading.stock.pipeline.text_encoder is held is not None
    one, two = (pixels(sample) for sample in decoder(torch.randn(2, *teacher.sample_shape)))
    assert one.ndim == 1
    assert not np.array_equal(one, two)


def test_a_preview_is_what_the_pipelines_own_decoder_makes(teacher_of: TeacherOf) -> None:
    teacher = teacher_of("sd15")
    pipeline = teacher.reading.stock.pipeline
    latents = torch.randn(1, *teacher.sample_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    expected = pipeline.image_processor.postprocess(decoded)[0]
    assert np.array_equal(pixels(Decoder(teacher.reading)(latents)[0]), np.asarray(expected))
