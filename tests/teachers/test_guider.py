"""Guiders: plain ones are read as guidance, others are off, and the exported folder's are off."""

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from diffusers import DiffusionPipeline
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance, SkipLayerGuidance
from teachers.conftest import TeacherOf
from teachers.test_guidance import SCALES, off_by, recipe_of

from scm_distill import teachers
from scm_distill.errors import UserError
from scm_distill.sampling.backends import PipelineBackend
from scm_distill.teachers import Teacher, guider
from scm_distill.training.networks import load_teacher

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif("motif_video" not in zoo.load_all(), reason="diffusers has no MotifVideoPipeline"),
]
CALL: dict[str, Any] = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16}


def folder_with(part: Any, path: Path) -> Path:
    pipeline = zoo.FAMILIES["motif_video"].pipeline()
    pipeline.register_modules(guider=part)
    pipeline.save_pretrained(str(path))
    return path


def with_guider(part: Any, path: Path) -> Teacher:
    return teachers.load(str(folder_with(part, path)), call=CALL)


@pytest.mark.parametrize(
    ("settings", "rule", "off"),
    [
        ({}, "u + w (c - u)", 1.0),
        ({"use_original_formulation": True}, "c + w (c - u)", 0.0),
        ({"guidance_rescale": 0.5, "enabled": False}, "u + w (c - u), rescaled by 0.5 to std(c)", 1.0),
    ],
)
def test_a_plain_guider_is_guidance_by_its_own_rule(
    settings: dict[str, Any], rule: str, off: float, tmp_path: Path
) -> None:
    teacher = with_guider(ClassifierFreeGuidance(guidance_scale=6.0, **settings), tmp_path / "teacher")
    reading = teacher.reading
    assert (str(teacher.rule), reading.off, reading.stock.guided_by) == (rule, off, guider.ARGUMENT)
    assert reading.stock.default_scale == (6.0 if settings.get("enabled", True) else None)
    for w in SCALES:  # this kind guides at every scale but one
        assert off_by(teacher, w, tmp_path / "conditions") < 1e-5, w
    assert teacher.parts()["guider"].config.enabled is False


@pytest.mark.parametrize(
    ("part", "why", "fix"),
    [
        (ClassifierFreeGuidance(start=0.25), r"in part of the steps \(start 0.25, stop 1\)", "Set start 0 and stop 1"),
        (ClassifierFreeGuidance(stop=0.5), r"in part of the steps \(start 0, stop 0.5\)", "Set start 0 and stop 1"),
        (AdaptiveProjectedGuidance(), "AdaptiveProjectedGuidance is no plain", "put a ClassifierFree"),
        (SkipLayerGuidance(skip_layer_guidance_layers=[0]), "SkipLayerGuidance is no plain", "put a ClassifierFree"),
    ],
    ids=["late", "early", "projected", "skip layer"],
)  # fmt: skip
def test_another_guider_is_off_and_says_why(part: Any, why: str, fix: str, tmp_path: Path) -> None:
    teacher = with_guider(part, tmp_path)
    assert teacher.rule is None
    load_teacher(recipe_of({}, teacher), teacher=teacher)  # unguided it is a teacher
    with pytest.raises(UserError, match=why) as caught:
        load_teacher(recipe_of({"scale": 3.0}, teacher), teacher=teacher)
    assert caught.value.fix.startswith(fix) or fix in caught.value.fix


def calls_a_step(pipeline: Any) -> int:
    """How often the denoiser is called in a step of the stock call."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        forward = pipeline.transformer.forward
        patch.setattr(pipeline.transformer, "forward", lambda *a, **k: seen.append(1) or forward(*a, **k))
        pipeline("a cat", num_inference_steps=1, output_type="latent", **CALL)
    return len(seen)


def test_the_exported_guider_is_off_in_the_folder_itself(teacher_of: TeacherOf, tmp_path: Path) -> None:
    teacher = teacher_of("motif_video")
    assert calls_a_step(teacher.reading.stock.pipeline) == 2
    teacher.source.load(**teacher.parts()).save_pretrained(str(tmp_path))
    assert calls_a_step(DiffusionPipeline.from_pretrained(str(tmp_path))) == 1


def test_a_teacher_is_drawn_with_the_scale_of_its_guider(tmp_path: Path) -> None:
    pipeline = zoo.FAMILIES["motif_video"].pipeline()
    call = {**CALL, "output_type": "latent"}

    def drawn(scale: float | None) -> torch.Tensor:
        return PipelineBackend(pipeline, call, 2, {"scale": scale}).draw_one(0, "a cat", 2)

    own, six, three, off = (drawn(w) for w in (None, 6.0, 3.0, 1.0))
    assert torch.equal(own, six)
    assert not torch.allclose(own, three, atol=1e-3)
    pipeline.guider = pipeline.guider.new(guidance_scale=3.0)
    assert torch.equal(drawn(None), three)
    pipeline.guider = AdaptiveProjectedGuidance()
    assert torch.equal(drawn(6.0), off)  # as a student of it is: unguided


def test_guiders_are_put_back_after_a_call() -> None:
    pipeline = zoo.FAMILIES["motif_video"].pipeline()
    part = pipeline.guider
    with guider.applied(pipeline, {"prompt": "a cat", guider.ARGUMENT: 2.0}) as left:
        assert left == {"prompt": "a cat"}
        assert pipeline.guider.guidance_scale == 2.0
    assert pipeline.guider is part
    with guider.applied(pipeline, {guider.ARGUMENT: None}):
        assert pipeline.guider.num_conditions == 1
    assert pipeline.guider is part


@pytest.mark.wide
def test_hunyuanvideo_15_is_read_as_guided(tmp_path: Path) -> None:
    from zoo.guided_video import hunyuanvideo15

    torch.random.manual_seed(0)
    hunyuanvideo15().save_pretrained(str(tmp_path))
    teacher = teachers.load(str(tmp_path), call={"height": 16, "width": 16, "num_frames": 5})
    assert str(teacher.rule) == "u + w (c - u)"
    assert teacher.reading.stock.default_scale == 6.0
    load_teacher(recipe_of({"scale": 6.0}, teacher), teacher=teacher)
