"""The text of a card, from facts alone: licences, figures, and what a user wrote into it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_rules import front, obeys_the_hub

from scm_distill.artifacts import layout
from scm_distill.artifacts.export_record import Facts
from scm_distill.errors import UserError
from scm_distill.publish import card, card_text
from scm_distill.publish.card_snippet import snippet
from scm_distill.publish.licence import TeacherLicence, licence

FACTS: dict[str, Any] = {
    "base_model": "digits", "hub_id": None, "revision": None, "license": {"license": "apache-2.0"},
    "pipeline": "DDPMPipeline", "scheduler": "LCMScheduler", "modality": "image", "driver": "none", "classes": None,
    "sample_shape": [1, 8, 8], "pixels": True, "sigma_d": 1.0, "t_max": 1.5583, "t_mid": 0.8,
    "trained": {"steps": 1500, "batch_size": 64, "velocity": "teacher", "guidance": None, "teacher_call": {},
                "data": "files", "samples": 1797, "optimizer": "adam", "lr": 2e-4, "precision": "fp32", "seed": 0},
    "prediction_type": "v_prediction", "samples": 1536, "reference": 1536, "difference": 2e-6,
    "versions": {"torch": "2.13.0"},
    "table": [{"sampler": "teacher, DDIM", "nfe": 50, "distance": 0.22},
              {"sampler": "student", "nfe": 2, "distance": 0.25}],
    "search": [{"t_mid": 0.8, "distance": 0.25}, {"t_mid": 1.1, "distance": 0.28}],
    "example": None, "gallery": [{"file": f"samples/{i}.png", "magnified": 16, "seed": i} for i in range(8)],
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "version": 1, "reference": 2048, "guidance": {},
    "date": "2026-11-23", "teacher": "/home/me/secret/teacher", "data": "/home/me/secret/cats", "n": 2048, "seed": 0,
    "device": "NVIDIA H200", "dtype": "float32", "versions": {"torch": "2.13.0"},
    "extractor": {"name": "DINOv2 ViT-L/14", "id": "facebook/dinov2-large", "sha256": "ab" * 32, "resize": "bicubic"},
    "rows": [
        {"who": "student", "scheduler": "LCMScheduler", "steps": 2, "nfe": 2.0, "ms_per_sample": 3.25,
         "metrics": {"fd": 8.125, "kid": float("nan"), "recall": 0.9}},
        {"who": "teacher", "scheduler": "DDIMScheduler", "steps": 50, "nfe": 100.0, "ms_per_sample": 81.5,
         "metrics": {"fd": 7.5, "recall": 0.95}},
    ],
    "ratios": {"fd": 1.0833, "nfe": 50.0, "wall_clock": 25.1},
}  # fmt: skip


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """A folder with what a card is made of."""

    def make(lora: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / f"export-{len(list(tmp_path.iterdir()))}"
        (folder / "samples").mkdir(parents=True)
        for shown in FACTS["gallery"]:
            (folder / shown["file"]).touch()
        known = {"version": 1, "call": {"num_inference_steps": 2}, "facts": FACTS | changes, "lora": lora}
        (folder / layout.FACTS).write_text(json.dumps(known))
        return folder

    return make


def test_a_teacher_of_the_hub_is_the_base_model(export: Callable[..., Path]) -> None:
    hub = {"hub_id": "org/teacher", "base_model": "org/teacher", "revision": "v1"}
    text = card.render(export(**hub), "me/student")
    data = front(text)
    obeys_the_hub(data)
    assert list(data) == [key for key in card.KEYS if key in data]
    assert (data["base_model"], data["base_model_relation"]) == ("org/teacher", "finetune")
    assert "(https://huggingface.co/org/teacher) at revision `v1`" in text
    assert "base_model" not in front(card.render(export()))


def test_an_adapter_is_one_where_its_file_is(export: Callable[..., Path]) -> None:
    lora = {
        "rank": 4,
        "alpha": 4,
        "targets": "default",
        "modules": 2,
        "file": layout.ADAPTER,
        "call": {"num_inference_steps": 2, "guidance_scale": 1.0},
    }
    prompts = {"hub_id": "org/teacher", "pixels": False, "driver": "prompt", "example": "a cat"}
    text = card.render(export(lora, **prompts), "me/student")
    assert front(text)["base_model_relation"] == "adapter"
    assert 'pipe.load_lora_weights("me/student"' in text
    assert 'pipe(prompt="a cat", num_inference_steps=2, guidance_scale=1.0, generator' in text
    text = card.render(export({**lora, "file": None}, **prompts))
    assert front(text)["base_model_relation"] == "finetune"
    assert "merged into the weights" in text


def test_a_repo_is_named_in_the_snippet(export: Callable[..., Path]) -> None:
    text = card.render(export(), "me/student")
    assert 'from_pretrained("me/student")' in text
    assert "path/to/this/folder" not in text


def test_a_prompt_can_be_any_text() -> None:
    example = 'a "b" \\ ```c```\nd'
    facts = Facts.model_validate(FACTS | {"pixels": False, "driver": "prompt", "example": example})
    code = snippet("x", {"num_inference_steps": 2}, facts)
    call = re.search(r"pipe\((.*), num_inference_steps", code)[1]
    assert eval(call.removeprefix("prompt=")) == example
    assert "````python" in card_text.fenced(code)


@pytest.mark.parametrize(
    ("said", "hub_id", "override", "expected"),
    [
        ({"license": "apache-2.0"}, None, None, {"license": "apache-2.0"}),
        ({}, None, None, None),
        ({"license": "unknown"}, "org/t", None, None),
        ({"license": "other"}, "org/t", None, None),
        ({}, None, "mit", {"license": "mit"}),
        (
            {"license": "other", "license_name": "their-own", "license_link": "LICENSE.md"},
            "org/t",
            None,
            {
                "license": "other",
                "license_name": "their-own",
                "license_link": "https://huggingface.co/org/t/blob/main/LICENSE.md",
            },
        ),
        (
            {"license": "other", "license_name": "their-own", "license_link": "LICENSE.md"},
            None,
            "other",
            {"license": "other", "license_name": "their-own"},
        ),
    ],
)
def test_licences(said: dict, hub_id: str | None, override: str | None, expected: dict | None, export: Any) -> None:
    changes = {"license": said, "hub_id": hub_id}
    assert licence(TeacherLicence("digits", hub_id, said), override) == expected
    text = card.render(export(**changes), license=override)
    data = front(text)
    obeys_the_hub(data)
    assert {k: v for k, v in data.items() if k.startswith("license")} == (expected or {})
    assert ("Not known" in text) == (expected is None)
    assert ("inherited" in text) == (expected is not None and override is None)


def test_a_licence_file_of_a_local_teacher_can_be_linked(export: Callable[..., Path]) -> None:
    folder = export(license={"license": "other", "license_name": "theirs", "license_link": "LICENSE.md"})
    (folder / "LICENSE.md").write_text("Theirs.")
    for name in ("LICENCE", "NOTICE.txt"):
        (folder / name).write_text("Theirs.")
    text = card.render(folder)
    assert front(text)["license_link"] == "LICENSE.md"
    assert "See [LICENCE](LICENCE), [LICENSE.md](LICENSE.md), [NOTICE.txt](NOTICE.txt)." in text


def test_the_evaluation_becomes_table_and_model_index(export: Callable[..., Path]) -> None:
    folder = export()
    assert "block" in card.render(folder)
    (folder / layout.EVALUATION).write_text(json.dumps(EVALUATION))
    text = card.render(folder, "me/student")
    data = front(text)
    obeys_the_hub(data)
    assert "secret" not in text
    assert "| **student** | **LCMScheduler** | **2** | **2** | **3.25** | **8.125** |" in text
    assert "| teacher | DDIMScheduler | 50 | 100 | 81.5 | 7.5 |" in text
    assert "50 times fewer network evaluations, 25.1 times less time on NVIDIA H200" in text
    assert "blocks" not in text
    (entry,) = data["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "student"
    assert result["dataset"]["name"] == "cats"
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {"fd": 8.125, "recall": 0.9}
    args = result["metrics"][0]["args"]
    assert (args["extractor"], args["sha256"], args["n"], args["steps"]) == (
        "facebook/dinov2-large",
        "ab" * 32,
        2048,
        2,
    )


def test_the_recipe_is_linked_where_it_is(export: Callable[..., Path]) -> None:
    folder = export()
    assert "training/config.yaml" not in card.render(folder)
    (folder / "training").mkdir()
    (folder / "training" / "config.yaml").write_text("")
    assert "](training/config.yaml)" in card.render(folder)


def test_a_users_prose_and_front_matter_stay(export: Callable[..., Path]) -> None:
    folder = export(hub_id="org/teacher")
    fresh = card.render(folder, "me/student")
    (folder / layout.EVALUATION).write_text(json.dumps(EVALUATION))
    evaluated = card.render(folder, "me/student")
    others = {"name": "m", "results": [{"task": {"type": "text-to-image"}, "dataset": {"name": "d", "type": "d"},
                                        "metrics": [{"type": "fid", "value": 3.0}]}]}  # fmt: skip
    mine = {
        "license": "mit", "language": ["en"], "tags": ["mine", "scm"], "datasets": ["org/data"],
        "model-index": [others],
        "widget": [{"text": "x", "output": {"url": "samples/9.png"}}, {"text": "y", "output": {"url": "pics/y.png"}}],
    }  # fmt: skip
    existing = f"---\n{yaml.safe_dump(mine)}---\n\n# My model\n\nWhy I made it.\n"
    text = card.merged(evaluated, existing)
    assert text.index("Why I made it.") < text.index(card.BEGIN)
    assert card.merged(evaluated, text) == text
    data = front(text)
    assert data["language"] == ["en"]
    assert data["license"] == "apache-2.0"
    assert data["tags"][-1] == "mine"
    assert data["tags"].count("scm") == 1
    assert data["datasets"] == ["org/data"]
    assert [one["output"]["url"] for one in data["widget"]][-2:] == ["samples/7.png", "pics/y.png"]
    assert [len(entry["results"]) for entry in data["model-index"]] == [2]
    below = text + "\nBelow, too.\n"
    again = front(card.merged(fresh, below))
    assert card.merged(fresh, below).endswith(f"{card.END}\n\nBelow, too.\n")
    assert again["model-index"][0]["results"] == others["results"]  # ours is gone with the figures that it was of


def test_a_stub_is_replaced_and_a_broken_card_refused(export: Callable[..., Path]) -> None:
    fresh = card.render(export(license={}))
    stub = card.merged(fresh, "---\nlicense: mit\n---\n")
    assert stub.split("---\n")[2] == fresh.split("---\n")[2]
    assert front(stub)["license"] == "mit"
    assert card.merged(fresh, "") == card.merged(fresh, fresh) == fresh
    assert "Windows." in card.merged(fresh, "---\r\nlicense: mit\r\n---\r\nWindows.\r\n")
    for broken, why in (
        ("---\nlicense: [\n---\ntext", "front matter"),
        ("---\n- a\n---\ntext", "front matter"),
        (f"mine\n{card.BEGIN}\nhalf", "no"),
    ):
        with pytest.raises(UserError, match=why):
            card.merged(fresh, broken)


def test_writing_again_keeps_what_was_added(export: Callable[..., Path]) -> None:
    folder = export()
    card.write(folder)
    path = folder / "README.md"
    path.write_text(path.read_text() + "\nMine.\n")
    (folder / layout.EVALUATION).write_text(json.dumps(EVALUATION))
    card.write(folder)
    assert path.read_text().endswith("\nMine.\n")
    assert "NVIDIA H200" in path.read_text()


def test_an_export_without_facts_is_refused(tmp_path: Path) -> None:
    (tmp_path / layout.FACTS).write_text('{"call": {}}')
    with pytest.raises(UserError, match="no facts"):
        card.render(tmp_path)


def test_doubts_about_the_teacher_and_its_safety_checker_are_limits(export: Callable[..., Path]) -> None:
    gallery = [{**shown, "flagged": shown["seed"] < 3} for shown in FACTS["gallery"]]
    folder = export(doubts=["kitten may be a few-step network already"], safety_checker="Checker", gallery=gallery)
    (folder / layout.EVALUATION).write_text(json.dumps({**EVALUATION, "flagged": 7}))
    card.write(folder)
    text = (folder / layout.CARD).read_text()
    assert "- kitten may be a few-step network already.\n" in text
    assert "Its safety checker, `Checker`, is its teacher's: what it flags is returned black." in text
    assert "It flagged 3 of the 8 samples of the gallery." in text
    assert "seed 0 (7 left out, flagged by a safety checker)" in text
