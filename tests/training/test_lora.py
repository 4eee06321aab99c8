"""An adapter as the student: it starts as the teacher, alone moves, and is what a checkpoint holds."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TeacherMaker, tiny_net
from safetensors.torch import load_file

from scm_distill import config, teachers
from scm_distill.autodiff.derivatives import OnePass, TwoPasses
from scm_distill.autodiff.dual import blocks
from scm_distill.errors import UserError
from scm_distill.models import lora, low_pass
from scm_distill.progress import Silent
from scm_distill.training import checkpoint, derivative, networks, run, setup

Start = Callable[..., setup.Setup]
LAYERS = "lora.targets=[to_q, to_k, to_v, to_out.0, conv1, conv2, conv_out, time_emb_proj]"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, make_teacher: TeacherMaker, recipe_of: Callable[..., str]) -> Start:
    teacher, folder = make_teacher(), tmp_path_factory.mktemp("adapters")

    def go(name: str, *overrides: str, resume: str | None = None) -> setup.Setup:
        path, out = folder / "recipe.yaml", folder / name
        path.write_text(recipe_of(teacher))
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        settings = (
            "train.stop_if_worse=false",
            "lora.rank=3",
            "lora.alpha=6",
            LAYERS,
            "optimizer.name=adam",
            "optimizer.lr=1e-2",
            "optimizer.warmup_steps=0",
        )
        recipe = config.read(str(path), (*settings, *overrides))
        return setup.build(recipe, out, checkpoint.find(resume, out) if resume else None, Silent())

    return go


@pytest.fixture(scope="module")
def begun(start: Start) -> setup.Setup:
    """At step 0; to look at only."""
    return start("begun")


def losses(out: Path) -> list[Any]:
    return [x for x in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "loss" in x]


def test_the_student_starts_as_the_teacher_and_shares_its_weights(begun: setup.Setup) -> None:
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4, 1.3]).double()
    assert begun.state.student.network.prediction == "epsilon"  # an adapter keeps it
    with torch.no_grad():
        assert torch.equal(begun.state.student.network(x, t, {}), begun.loaded.F_teacher(x, t, {}))
    trained = {name for name, p in begun.state.student.network.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in begun.state.student.network.named_parameters() if "lora_" in name}
    of_teacher = {id(p) for p in begun.loaded.F_teacher.parameters()}
    for module in (begun.state.student.network, begun.state.ema.module.network):
        assert {id(p) for name, p in module.named_parameters() if "lora_" not in name} == of_teacher


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_one_pass_gives_the_gradient_of_two(begun: setup.Setup, memory: Any) -> None:
    student, g = copy.deepcopy(begun.state.student), torch.Generator().manual_seed(0)
    for _, layer in lora.adapters(student.network.net):
        torch.nn.init.normal_(layer.lora_B[lora.NAME].weight, std=0.1, generator=g)
    x, v = torch.randn(2, 2, 1, 8, 8, generator=g)
    trial = derivative.Trial(student, student, x, torch.tensor([0.4, 1.3]).double(), {}, v)
    modules = blocks(student.network.net)
    one, two = trial.gradient(OnePass(modules, memory)), trial.gradient(TwoPasses(modules, memory))
    assert len(one[2]) == len(two[2]) == len(student.trained)
    for a, b in zip([*one[:2], *one[2]], [*two[:2], *two[2]], strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-4)
    assert sum(float(gradient.norm()) for gradient in one[2]) > 0.1


def test_the_plan_counts_what_is_trained(begun: setup.Setup) -> None:
    step = begun.planner.estimate(begun.recipe, begun.memory).phases["optimizer step"]
    trained = sum(p.nbytes for p in begun.state.student.network.parameters() if p.requires_grad)
    assert (step["gradients"], step["optimizer"]) == (trained, 2 * trained)
    assert step["student"] == step["ema"] == pytest.approx(trained, rel=0.01)  # and a few buffers


def test_a_new_output_is_fitted_through_the_adapter(start: Start) -> None:
    training = start("v", "adapt.output=v_prediction")
    assert training.state.student.network.prediction == "v_prediction"
    average = dict(training.state.ema.module.network.named_parameters())
    stock = teachers.load(training.recipe.teacher.repo).net.state_dict()
    for name, p in training.state.student.network.named_parameters():
        assert torch.equal(p, average[name])
        if "lora_B" in name:
            assert p.any()
        elif "lora_A" not in name:
            assert torch.equal(p, stock[name.removeprefix("net.").replace(".base_layer", "")])


def test_only_the_adapter_moves_and_is_saved_and_resumes_bit_for_bit(start: Start) -> None:
    begun = start("run")
    before = {name: p.clone() for name, p in begun.state.student.network.named_parameters()}
    training = run.Run(begun)
    whole = training.train()
    after = dict(begun.state.student.network.named_parameters())
    still = {name for name, p in before.items() if torch.equal(p, after[name])}
    assert still == {name for name in before if "lora_" not in name}
    for name in ("student", "ema"):
        kept = load_file(training.saved / f"{name}.safetensors")
        assert all("lora_" in key or key.startswith("weight.") for key in kept)
        assert len(kept) == len(before) - len(still) + 2  # w_phi

    expected = losses(begun.out)
    resumed = run.Run(start("run", resume=str(begun.out / "checkpoints" / "step-2"))).train()
    assert losses(begun.out) == expected
    assert len(expected) == 4
    for mine, theirs in zip(whole.student.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(UserError, match="was made with lora="):
        start("run", "lora.rank=4", resume="auto")

    merged = copy.deepcopy(low_pass.fold(resumed.student.net))  # which shares the weights that are merged
    lora.merge(merged)
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([400.0, 800.0])
    stock = tiny_net()
    stock.load_state_dict(merged.state_dict())  # its own names
    with torch.no_grad():
        assert torch.allclose(stock(x, t).sample, resumed.student.net(x, t).sample, atol=1e-5)
        assert not torch.allclose(stock(x, t).sample, begun.loaded.F_teacher.net(x, t).sample, atol=1e-3)


def test_a_layer_behind_the_low_pass_is_never_adapted() -> None:
    net = tiny_net()
    assert "time_embedding.linear_1" in lora.chosen(net, "all-linear")
    layer: Any = net.time_embedding.linear_1
    layer.__class__ = low_pass.Filtered
    assert "time_embedding.linear_1" not in lora.chosen(net, "all-linear")
    assert "time_embedding.linear_2" in lora.chosen(net, "all-linear")


def test_what_does_not_go_together_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"lora\.alpha needs lora\.rank"):
        start("run", "lora.rank=null")
    with pytest.raises(UserError, match="fit no layer of this UNet2DModel") as caught:
        lora.inject(tiny_net(), 2, 2.0, ["to_quarry"], torch.Generator())
    assert "to_q" in caught.value.fix
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="needs peft") as caught:
        start("run")
    assert "scm-distill[lora]" in caught.value.fix


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_has_no_layer_that_is_told_the_guidance_scale(fresh: Any) -> None:
    content = {"teacher": {"repo": "none"}, "data": {"source": "none"}, "train": {"steps": 1, "batch_size": 1}}
    recipe = config.parse(content, ["lora.rank=2", "guidance.scale=[2, 8]"])
    with pytest.raises(UserError, match="a range of guidance scales by a layer of its own"):
        networks.load_teacher(recipe, teacher=fresh("sd15"))
