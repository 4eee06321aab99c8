"""The adapter that an export holds: the teacher's stock pipeline with it gives the samples of the merged folder."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from scm_distill import config
from scm_distill.artifacts.layout import ADAPTER
from scm_distill.export import bundle
from scm_distill.progress import Silent
from scm_distill.publish import card
from scm_distill.training import run, setup

Exported = Callable[[str], tuple[Path, dict[str, Any], list[str]]]

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

RECIPE = """
teacher: {{repo: {teacher}, call: {call}}}
data: {{source: teacher, samples: 4{prompts}}}
guidance: {{scale: 3.0}}
objective: {{warmup_steps: 100, tangent: jvp}}
adapt: {{smooth_time: 20}}
lora: {{rank: 3, alpha: 6}}
optimizer: {{name: adam, lr: 0.02, warmup_steps: 0}}
train: {{steps: 3, batch_size: 2, evaluate_samples: 2, checkpoint_every: 3, evaluate_every: 3, device: cpu,
        stop_if_worse: false}}
sampler: {{teacher_steps: 3}}
export: {{t_mid: [1.1], samples: 4}}
"""


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return functools.cache(lambda name: export(name, tmp_path_factory.mktemp(name)))


def export(name: str, folder: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """A run of this family of the zoo: its folder, what the export says of the adapter, and what was reported."""
    family = zoo.load_all()[name]
    family.pipeline().save_pretrained(str(folder / "teacher"))
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    path, out, report = folder / "recipe.yaml", folder / "run", Listener()
    prompts = f", prompts: {folder}/prompts.txt" if family.conditions == "prompt" else ""
    path.write_text(RECIPE.format(teacher=folder / "teacher", call=json.dumps(family.call), prompts=prompts))
    for part in ("samples", "checkpoints"):
        (out / part).mkdir(parents=True)
    trained = run.Run(setup.build(config.read(str(path)), out, None, report)).train()
    bundle.write(trained, out / "export", report)
    facts = json.loads((out / "export" / "scm_distill.json").read_text())["lora"]
    return folder, facts, report.said


def sampled(pipeline: Any, call: dict[str, Any]) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    with torch.random.fork_rng():  # some schedulers draw from the global generator
        generator = torch.random.manual_seed(0)
        return pipeline("a cat", generator=generator, output_type="latent", **call)[0]


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_the_teacher_with_the_adapter_is_the_merged_student(name: str, exported: Exported) -> None:
    parent, facts, said = exported(name)
    folder, origin = parent / "run" / "export", parent / "teacher"
    assert (facts["file"], facts["rank"], facts["alpha"]) == (ADAPTER, 3, 6)
    assert any(ADAPTER in text for text in said)
    student: Any = DiffusionPipeline.from_pretrained(str(folder))
    merged = sampled(student, facts["call"])

    teacher: Any = DiffusionPipeline.from_pretrained(str(origin))
    teacher.scheduler = type(student.scheduler).from_pretrained(str(folder), subfolder="scheduler")
    undistilled = sampled(teacher, facts["call"])
    teacher.load_lora_weights(str(folder), weight_name=ADAPTER)
    adapted = sampled(teacher, facts["call"])
    assert (adapted - merged).norm() < 1e-5 * merged.norm()
    assert (undistilled - merged).norm() > 1e-2 * merged.norm()


def test_both_snippets_of_its_card_draw_the_same(exported: Exported) -> None:
    parent, _, _ = exported("sd15")
    folder = parent / "run" / "export"
    text = card.render(folder)
    assert "base_model_relation" not in text  # a local teacher has no name on the Hub
    drawn = []
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        code = snippet.replace("path/to/the/teacher", str(parent / "teacher"))
        known: dict[str, Any] = {}
        with torch.random.fork_rng():
            exec(code.replace("path/to/this/folder", str(folder)), known)
        drawn.append(np.asarray(known["samples"][0], dtype=float))
    assert len(drawn) == 2
    assert drawn[0].std() > 1
    assert np.abs(drawn[0] - drawn[1]).max() <= 1  # of 255


def test_the_low_pass_of_the_time_is_in_the_adapter_too(exported: Exported) -> None:
    """Its rank is not the others': every layer keeps a scale of its own."""
    parent, facts, _ = exported("sd15")
    folder, origin = parent / "run" / "export", parent / "teacher"
    weights = load_file(folder / ADAPTER)
    ranks = {name.removesuffix(".lora_B.weight"): v.shape[1] for name, v in weights.items() if "lora_B" in name}
    smoothed = "unet.time_embedding.linear_1"
    assert {rank for name, rank in ranks.items() if name != smoothed} == {3}
    assert len(ranks) == facts["modules"] + 1
    layers = [DiffusionPipeline.from_pretrained(str(p)).unet.time_embedding.linear_1 for p in (folder, origin)]
    change = layers[0].weight - layers[1].weight
    product = weights[f"{smoothed}.lora_B.weight"] @ weights[f"{smoothed}.lora_A.weight"]
    assert change.abs().max() > 0.01
    assert torch.allclose(product, change, atol=1e-7)


def test_a_pipeline_that_loads_no_adapters_gets_the_merged_folder(exported: Exported) -> None:
    parent, facts, said = exported("dit")
    folder, origin = parent / "run" / "export", parent / "teacher"
    assert facts["file"] is None
    assert facts["why"] == "DiTPipeline loads no adapters"
    assert any(facts["why"] in text for text in said)
    assert not (folder / ADAPTER).exists()
    names = set(load_file(folder / "student.safetensors"))
    assert names == set(load_file(origin / "transformer" / "diffusion_pytorch_model.safetensors"))
