"""Safety checkers: what they flag is counted and said, and takes part in no figure."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from cli.test_sample_traced import RECIPE, invoke
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from scm_distill.errors import UserError
from scm_distill.evaluation.side_by_side import Contender, Measurement, unflagged
from scm_distill.teachers import safety

pytestmark = pytest.mark.filterwarnings("ignore")

NOTHING, ALL = 2.0, -2.0  # thresholds of a cosine


def checker(threshold: float) -> StableDiffusionSafetyChecker:
    """One that flags pictures whose cosine with a fixed vector is above `threshold`."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        part = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
        torch.nn.init.normal_(part.concept_embeds)
    torch.nn.init.constant_(part.concept_embeds_weights, NOTHING)
    part.concept_embeds_weights.data[0] = threshold
    torch.nn.init.constant_(part.special_care_embeds_weights, NOTHING)
    return part


def eyes(size: int = 32) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def save(folder: Path, threshold: float, **changes: Any) -> Path:
    """Stable Diffusion with a safety checker."""
    pipeline = zoo.load_all()["sd15"].pipeline()
    parts = {"safety_checker": checker(threshold), "feature_extractor": eyes(), **changes}
    pipeline.register_modules(**parts)
    pipeline.register_to_config(requires_safety_checker=True)
    pipeline.save_pretrained(str(folder))
    return folder


def recipe(folder: Path) -> Path:
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    prompts = f", prompts: {folder}/prompts.txt"
    (folder / "recipe.yaml").write_text(RECIPE.format(teacher=folder / "teacher", call="{}", prompts=prompts))
    return folder / "recipe.yaml"


def said(done: Any) -> str:
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose teacher's checker flags everything, and what it said."""
    folder = tmp_path_factory.mktemp("run")
    save(folder / "teacher", ALL)
    done = invoke("train", recipe(folder), "-o", folder / "run")
    assert done.exit_code == 0, done.output
    return folder, said(done)


def test_black_previews_and_a_black_gallery_are_said_and_the_export_keeps_the_checker(
    trained: tuple[Path, str],
) -> None:
    folder, text = trained
    assert "preview: 6 of 6 pictures were flagged by the safety checker" in text
    assert "gallery: 2 of 2 samples of the student were flagged by its safety checker, and are black" in text
    export = folder / "run" / "export"
    index = json.loads((export / "model_index.json").read_text())
    assert index["safety_checker"] == ["stable_diffusion", "StableDiffusionSafetyChecker"]
    assert index["feature_extractor"][1].startswith("CLIPImageProcessor")
    assert index["requires_safety_checker"] is True
    card = " ".join((export / "README.md").read_text().split())
    assert "Its safety checker, `StableDiffusionSafetyChecker`, is its teacher's" in card
    assert "It flagged 2 of the 2 samples of the gallery." in card


def test_a_batch_that_is_all_flagged_is_a_sentence(trained: tuple[Path, str], tmp_path: Path) -> None:
    run = trained[0] / "run"
    done = invoke("sample", run, "-p", "a cat", "-n", 2, "-o", tmp_path / "samples")
    assert done.exit_code == 1
    assert "The safety checker of the student flagged all 2 samples" in said(done)
    done = invoke("eval", run, "-n", 8, "--steps", 2)
    assert done.exit_code == 1
    assert "The safety checker of the teacher flagged all 8 samples" in said(done)


@functools.cache
def cosines(folder: Path) -> list[float]:
    """What the checker sees of the student's samples of seeds 0 to 15, one prompt in turn, from high to low."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.safety_checker, part = None, pipeline.safety_checker
    prepare, found = pipeline.feature_extractor, []
    for seed in range(16):
        image = pipeline(
            ["a cat", "a dog"][seed % 2], num_inference_steps=2, generator=torch.Generator().manual_seed(seed)
        ).images
        with torch.no_grad():
            seen = part.visual_projection(part.vision_model(prepare(image, return_tensors="pt").pixel_values)[1])
        found.append(float(torch.nn.functional.cosine_similarity(seen, part.concept_embeds[:1])))
    return sorted(found, reverse=True)


@pytest.mark.wide
def test_what_is_flagged_is_left_out_on_both_sides(trained: tuple[Path, str], tmp_path: Path) -> None:
    run = trained[0] / "run"
    export, teacher = run / "export", trained[0] / "teacher"
    before = cosines(export)
    threshold = (before[3] + before[4]) / 2  # four of sixteen
    checker(threshold).save_pretrained(export / "safety_checker")
    checker(NOTHING).save_pretrained(teacher / "safety_checker")
    try:
        done = invoke("sample", run, "--prompts", trained[0] / "prompts.txt", "-n", 16, "-o", tmp_path)
        assert done.exit_code == 0, done.output
        entries = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
        black = [not np.asarray(Image.open(tmp_path / entry["file"])).any() for entry in entries]
        assert [entry.get("flagged", False) for entry in entries] == black
        flagged = sum(black)
        assert 0 < flagged < 16
        assert f"{flagged} of 16 samples of the student were flagged" in said(done)
        done = invoke("eval", run, "-n", 16, "--steps", 2, "--json")
        assert done.exit_code == 0, done.output
        record = json.loads(done.stdout)
        assert record["n"] + record["flagged"] == 16
        assert record["flagged"] == flagged
        note = f"{flagged} of 16 seeds left out: a safety checker flagged their samples"
        assert any(note in line for line in record["notes"])
        assert f"{record['flagged']} left out, flagged by a safety checker" in (export / "README.md").read_text()
        assert f"{record['flagged']} left out, flagged by a safety checker" in (run / "report.html").read_text()
    finally:
        checker(ALL).save_pretrained(export / "safety_checker")
        checker(ALL).save_pretrained(teacher / "safety_checker")


def test_a_checker_that_fails_is_known_before_anything_is_drawn(tmp_path: Path) -> None:
    save(tmp_path / "teacher", NOTHING, feature_extractor=eyes(16))  # of pictures that its network does not take
    done = invoke("train", recipe(tmp_path), "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "cannot show its samples: its stock call ends with ValueError" in said(done)
    assert not (tmp_path / "run" / "latents.safetensors").exists()


def test_a_checker_without_eyes_is_a_sentence(tmp_path: Path) -> None:
    folder = save(tmp_path / "teacher", NOTHING)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "feature_extractor": [None, None]}))
    done = invoke("inspect", folder)
    assert done.exit_code == 2
    assert "has a safety checker, and no feature_extractor that prepares pictures for it" in said(done)
    (folder / "model_index.json").write_text(
        json.dumps({**index, "feature_extractor": [None, None], "safety_checker": [None, None]})
    )
    safety.check(json.loads((folder / "model_index.json").read_text()), "x")


@dataclass
class ImagesOutput(BaseOutput):
    """What a stock call returns."""

    images: Any
    nsfw_content_detected: Any = None
    watermark_detected: Any = None


class Checked:
    """A pipeline with a safety checker."""

    safety_checker = object()


class Unchecked:
    """A pipeline without."""

    safety_checker = None


BLACK, GREY = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.5)


@pytest.mark.parametrize(
    ("pipeline", "output", "expected"),
    [
        (Checked, ImagesOutput([GREY, BLACK], [False, True]), (False, True)),
        (Checked, ImagesOutput([GREY, BLACK], np.array([True, False])), (True, False)),
        (Checked, ImagesOutput([GREY, BLACK], [False, False], [True, False]), (True, False)),
        (Checked, ImagesOutput([GREY, BLACK], False), (False, False)),
        (Checked, ImagesOutput([GREY, BLACK]), (False, True)),  # a checker that says nothing
        (Checked, ([GREY, BLACK],), (False, True)),
        (Checked, ([[GREY, GREY], [BLACK, BLACK], [BLACK, GREY]],), (False, True, False)),
        (Checked, ([Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red")],), (True, False)),
        (Checked, (torch.stack([torch.zeros(3), torch.ones(3)]),), (True, False)),
        (Unchecked, ImagesOutput([GREY, BLACK]), (False, False)),  # a picture may be black
    ],
)
def test_flags_are_read_from_what_the_call_returns(pipeline: Any, output: Any, expected: tuple[bool, ...]) -> None:
    assert safety.flagged(pipeline, output) == expected


def measured(flags: list[float]) -> Measurement:
    n = len(flags)
    return Measurement(
        torch.arange(n)[:, None], torch.arange(n), torch.ones(2, 3), torch.arange(n), torch.tensor(flags)
    )


def compared(n: int) -> list[Contender]:
    return [Contender("teacher" if i == 0 else "student", None, 2) for i in range(n)]  # type: ignore[arg-type]


def test_a_seed_that_one_side_lost_is_left_out_for_all() -> None:
    kept, notes = unflagged(compared(2), [measured([0, 1] + [0] * 10), measured([1, 0] + [0] * 10)])
    for one in kept:
        for values in (one.features[:, 0], one.scores, one.errors):
            assert values.tolist() == list(range(2, 12))
        assert one.rounds.shape == (2, 3)
    assert notes == (
        "2 of 12 seeds left out: a safety checker flagged their samples (teacher in 2 steps: 1, student in 2 steps: 1)",
    )
    same, none = unflagged(compared(1), [measured([0.0] * 9)])
    assert (len(same[0].features), none) == (9, ())


@pytest.mark.parametrize(
    ("flags", "problem"), [([1.0] * 9, "flagged all 9 samples"), ([1.0, 1.0] + [0.0] * 7, "all but 7 of 9 seeds")]
)
def test_too_few_that_are_left_is_an_error(flags: list[float], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        unflagged(compared(1), [measured(flags)])
