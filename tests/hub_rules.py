"""What the Hub asks of a card's front matter, as far as our cards go."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

HUB_LICENCES = {"apache-2.0", "mit", "openrail++", "creativeml-openrail-m", "cc-by-nc-4.0", "other", "unknown"}
TASKS = {"text-to-image", "text-to-video", "text-to-audio", "unconditional-image-generation"}


def front(text: str) -> dict[str, Any]:
    """The front matter, after the client's own reading of it gave the same."""
    raw = yaml.safe_load(text.split("---\n")[1])
    assert ModelCard(text).data.to_dict() == raw
    return raw


def obeys_the_hub(data: dict[str, Any]) -> None:
    assert data["library_name"] == "diffusers"
    assert data.get("pipeline_tag") in TASKS | {None}
    assert data.get("license") in HUB_LICENCES | {None}
    assert ("license_name" in data) == (data.get("license") == "other")
    assert data.get("license_link", "LICENSE").startswith(("LICENSE", "https://"))
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", data.get("base_model", "a/b"))
    assert ("base_model" in data) == (data.get("base_model_relation") in ("adapter", "finetune"))
    assert len(data["tags"]) == len(set(data["tags"]))
    for shown in data["widget"]:
        assert isinstance(shown["text"], str)
        assert not Path(shown["output"]["url"]).is_absolute()
    for entry in data.get("model-index", ()):
        for result in entry["results"]:
            assert result["task"]["type"] in TASKS
            assert result["dataset"].keys() >= {"name", "type"}
            assert all(isinstance(metric["value"], float) and metric["type"] for metric in result["metrics"])
