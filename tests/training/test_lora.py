"""An adapter as the student: it starts as the teacher, alone moves, and is what a checkpoint holds."""

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
from scm_distill.errors import UserError
from scm_distill.models import adapt, lora
from scm_distill.models.derivatives import OnePass, TwoPasses
from scm_distill.models.dual import blocks
from scm_distill.training import build, checkpoint, derivative, loop
from scm_distill.training.report import Silent

Start = Callable[..., loop.Training]
ALL = "lora.targets=[to_q, to_k, to_v, to_out.0, conv1, conv2, conv_out, time_emb_proj]"


@pytest.fixture
def start(tmp_path: Path, make_teacher: TeacherMaker, recipe_of: Callable[..., str]) -> Start:
    teacher = make_teacher()

    def go(name: str, *overrides: str, resume: str | None = None) -> loop.Training:
        path, out = tmp_path / "recipe.yaml", tmp_path / name
        path.write_text(recipe_of(teacher))
        for part in ("samples", "checkpoints"):
            (out / part).mkdir(parents=True, exist_ok=True)
        recipe = config.read(str(path), ("lora.rank=3", "lora.alpha=6", "train.stop_if_worse=false", *overrides))
        return loop.Training(recipe, out, checkpoint.find(resume, out) if resume else None, Silent())

    return go


def losses(out: Path) -> list[Any]:
    return [x for x in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "loss" in x]


def test_the_student_starts_as_the_teacher_and_shares_its_weights(start: Start) -> None:
    training = start("run", "adapt.output=keep")
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4, 1.3]).double()
    with torch.no_grad():
        assert torch.equal(training.network(x, t, {}), training.F_teacher(x, t, {}))
    trained = {name for name, p in training.network.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in training.network.named_parameters() if "lora_" in name}
    teachers_own = {id(p) for p in training.F_teacher.parameters()}
    frozen = [p for p in training.network.parameters() if not p.requires_grad]
    assert {id(p) for p in frozen} == teachers_own
    assert {id(p) for p in training.ema.module.network.parameters() if id(p) in teachers_own} == teachers_own


def test_only_the_adapter_moves_and_only_it_is_saved(start: Start) -> None:
    training = start("run", ALL, "optimizer.lr=1e-2", "optimizer.name=adam")
    before = {name: p.clone() for name, p in training.network.named_parameters()}
    trained = training.train()
    after = dict(training.network.named_parameters())
    still = {name for name, p in before.items() if torch.equal(p, after[name])}
    assert still == {name for name in before if "lora_" not in name}
    stock = teachers.load(training.recipe.teacher.repo).net.state_dict()
    merged = tiny_net()
    folded = adapt.fold(trained.student.net)
    lora.merge(folded)
    merged.load_state_dict(folded.state_dict())  # the names of the stock network
    assert any(not torch.equal(p, stock[name]) for name, p in merged.state_dict().items())
    for name in ("student", "ema"):
        kept = load_file(training.last / f"{name}.safetensors")
        assert all("lora_" in key or key.startswith("weight.") for key in kept)
        assert len(kept) == 2 * len(list(lora.adapters(training.network.net))) + 2


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(start: Start, tmp_path: Path) -> None:
    whole = start("run").train()
    before = losses(tmp_path / "run")
    resumed = start("run", resume=str(tmp_path / "run" / "checkpoints" / "step-2")).train()
    assert losses(tmp_path / "run") == before
    assert len(before) == 4
    for mine, theirs in zip(whole.student.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(UserError, match="was made with lora="):
        start("run", "lora.rank=4", resume="auto")


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_one_pass_gives_the_gradient_of_two(start: Start, memory: Any) -> None:
    training = start("run", ALL)
    student, g = training.whole.student, torch.Generator().manual_seed(0)
    for _, layer in lora.adapters(training.network.net):
        torch.nn.init.normal_(layer.lora_B[lora.NAME].weight, std=0.1, generator=g)
    x, v = torch.randn(2, 2, 1, 8, 8, generator=g)
    trial = derivative.Trial(student, student, x, torch.tensor([0.4, 1.3]).double(), {}, v)
    modules = blocks(training.network.net)
    one, two = trial.gradient(OnePass(modules, memory)), trial.gradient(TwoPasses(modules, memory))
    assert len(one[2]) == len(two[2]) == len(student.trained)
    for a, b in zip([*one[:2], *one[2]], [*two[:2], *two[2]], strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-4)
    assert sum(float(g.norm()) for g in one[2]) > 0.1


def test_the_plan_counts_what_is_trained(start: Start) -> None:
    training = start("run")
    plan = training.planner.estimate(training.recipe, training.memory)
    trained = sum(p.nbytes for p in training.network.parameters() if p.requires_grad)
    step = plan.phases["optimizer step"]
    assert (step["gradients"], step["optimizer"], step["student"], step["ema"]) == (
        trained,
        2 * trained,
        trained,
        trained,
    )


def test_a_layer_behind_the_low_pass_is_never_adapted() -> None:
    net = tiny_net()
    assert "time_embedding.linear_1" in lora.chosen(net, "all-linear")
    layer: Any = net.time_embedding.linear_1
    layer.__class__ = adapt.Filtered
    assert "time_embedding.linear_1" not in lora.chosen(net, "all-linear")
    assert "time_embedding.linear_2" in lora.chosen(net, "all-linear")


def test_what_does_not_go_together_is_refused(
    start: Start, make_teacher: TeacherMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"lora\.alpha needs lora\.rank"):
        start("run", "lora.rank=null")
    with pytest.raises(UserError, match=r"fit no layer of this UNet2DModel") as caught:
        start("run", "lora.targets=[to_quarry]")
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
        build.assemble(recipe, fresh("sd15"))
