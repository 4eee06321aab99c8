"""Estimates of memory against what the CPU allocator is asked for by the real run."""

import copy
import re
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel, UNet2DModel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from scm_distill import config
from scm_distill.autodiff.derivatives import OnePass
from scm_distill.autodiff.dual import blocks
from scm_distill.errors import UserError
from scm_distill.maths.clocks import FlowClock
from scm_distill.models.ema import PowerEMA
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.objectives.scm import Objective
from scm_distill.training import optimizer
from scm_distill.training.memory import out_of_memory, plan

CPU = torch.device("cpu")
MICRO = 4


class Timestep:
    """How transformers of diffusers take their time."""

    batchable = True
    known = None

    def __call__(self, net: nn.Module, x: Tensor, k: Tensor, cond: Any) -> Tensor:
        return net(x, timestep=k, **cond, return_dict=False)[0]


def dit(layers: int = 4, heads: int = 4, width: int = 32) -> tuple[nn.Module, Any, tuple[int, ...], dict[str, Tensor]]:
    net = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width, in_channels=4, out_channels=4, num_layers=layers,
        sample_size=32, num_embeds_ada_norm=10,
    )  # fmt: skip
    return net, Timestep(), (4, 32, 32), {"class_labels": torch.arange(2)}


def unet() -> tuple[nn.Module, Any, tuple[int, ...], dict[str, Tensor]]:
    net = UNet2DModel(
        sample_size=32, block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=8, attention_head_dim=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return net, None, (3, 32, 32), {}


def mmdit() -> tuple[nn.Module, Any, tuple[int, ...], dict[str, Tensor]]:
    net = SD3Transformer2DModel(
        sample_size=32, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=128, pooled_projection_dim=64, pos_embed_max_size=32,
    )  # fmt: skip
    return net, Timestep(), (4, 32, 32), {
        "encoder_hidden_states": torch.zeros(2, 20, 64), "pooled_projections": torch.zeros(2, 64)
    }  # fmt: skip


def recipe_of(*settings: str) -> config.Recipe:
    content = {"teacher": {"repo": "none"}, "data": {"source": "none"}}
    content["train"] = {"steps": 10, "batch_size": MICRO, "evaluate_samples": 2}  # type: ignore[dict-item]
    return config.parse(content, settings)


def planner_of(made: Any, recipe: config.Recipe) -> plan.Planner:
    net, call, shape, cond = made
    narrow = torch.bfloat16 if recipe.train.precision == "bf16" else None
    F_teacher = Network(net.eval(), FlowClock(1000, 0, 1.0), "v_prediction", 1.0, narrow, call).requires_grad_(False)
    student = copy.deepcopy(F_teacher).requires_grad_(True)
    x, t = torch.zeros(2, *shape), torch.full((2,), 0.7, dtype=torch.float64)
    return plan.Planner(student, F_teacher, x, t, cond, CPU)


def allocated(run: Callable[[], Any]) -> tuple[int, int]:
    """The peak of the bytes that `run` allocates, and what of them is left."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = run()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del kept
    return peak, now


def measured(planner: plan.Planner, recipe: config.Recipe) -> dict[str, int]:
    """The bytes of every part of a real run, each by itself, and of the whole of it."""
    o, memory = recipe.objective, recipe.train.memory
    objective = Objective(o.sigma_d, o.c, o.normalization, o.warmup_steps, o.velocity)
    x = torch.randn(MICRO, *planner.x.shape[1:])
    t, cond = planner.t.repeat(2), {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in planner.cond.items()}

    def student() -> Student:
        return Student(copy.deepcopy(planner.network), adaptive=True)

    def backward(student: Student, F_teacher: Network) -> None:
        inputs = x.clone(), t.clone(), {k: v.clone() for k, v in cond.items()}
        by_one_pass = partial(student, derivative=OnePass(blocks(student.network.net), memory))  # type: ignore[arg-type]
        objective(by_one_pass, F_teacher, inputs[0], torch.randn_like(x), *inputs[1:], 0).total.backward()

    def whole() -> Any:
        F_teacher, trained = copy.deepcopy(planner.F_teacher), student()
        ema, steps = PowerEMA(trained, 0.05), optimizer.build(trained.parameters(), recipe.optimizer)
        for i in (1, 2):
            backward(trained, F_teacher)
            steps.step()
            steps.zero_grad()
            ema.update(trained, i)
        return steps

    trained = student()
    backward(trained, planner.F_teacher)  # what is made once
    steps = optimizer.build(trained.parameters(), recipe.optimizer)
    found = {
        "student": allocated(student)[1],
        "ema": allocated(lambda: PowerEMA(trained, 0.05))[1],
        "teacher": allocated(lambda: copy.deepcopy(planner.F_teacher))[1],
        "optimizer": allocated(steps.step)[1],
    }
    trained.zero_grad()
    peak, found["gradients"] = allocated(lambda: backward(trained, planner.F_teacher))
    return {**found, "step": peak, "update": allocated(steps.step)[0], "total": allocated(whole)[0]}


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        pytest.param(dit, ("train.memory=fast", "optimizer.name=radam"), marks=pytest.mark.slow),
        (dit, ("train.memory=lean", "optimizer.name=adamw")),
        (unet, ("train.memory=fast", "optimizer.name=adamw")),
        pytest.param(unet, ("train.memory=lean", "optimizer.name=radam"), marks=pytest.mark.slow),
        pytest.param(mmdit, ("train.memory=fast", "optimizer.name=adamw"), marks=pytest.mark.slow),
        (mmdit, ("train.memory=lean", "optimizer.name=radam")),
        (mmdit, ("train.memory=fast", "train.precision=bf16")),
    ],
)
def test_every_part_is_what_the_run_allocates(build: Callable[[], Any], settings: tuple[str, ...]) -> None:
    recipe = recipe_of(*settings)
    planner = planner_of(build(), recipe)
    found, real = planner.estimate(recipe), measured(planner, recipe)
    assert found.how == "traced"
    back, step = (found.phases[name] for name in ("backward", "optimizer step"))
    for name in ("student", "optimizer", "ema", "teacher"):
        assert back[name] == pytest.approx(real[name], rel=0.05), name
    assert back["gradients"] + back["activations"] == pytest.approx(real["step"], rel=0.15)
    assert step["gradients"] + step["activations"] == pytest.approx(real["gradients"] + real["update"], rel=0.15)
    assert max(sum(back.values()), sum(step.values())) == pytest.approx(real["total"], rel=0.15)
    assert found.total == max(sum(parts.values()) for parts in found.phases.values())


@pytest.fixture(scope="module")
def planner() -> plan.Planner:
    return replace(planner_of(dit(layers=3), recipe_of()), device=torch.device("cuda"))  # of another machine


def test_fast_takes_more_than_lean_and_auto_chooses_what_fits(planner: plan.Planner) -> None:
    auto = recipe_of()
    fast, lean = (planner.estimate(auto, memory).total for memory in ("fast", "lean"))
    assert fast > lean
    assert planner.fit(auto, 2 * fast) == "fast"
    assert planner.fit(auto, fast) == "lean"  # without room
    assert planner.fit(recipe_of("train.memory=fast"), 0) == "fast"
    assert planner.fit(recipe_of("train.memory=lean"), 2 * fast) == "lean"


def test_shards_and_offloads_take_their_parts_away(planner: plan.Planner) -> None:
    whole, share = (
        planner.estimate(recipe_of(f"train.shard={shard}", "train.batch_size=16"), world=4).parts
        for shard in ("'off'", "all")
    )
    for name in ("student", "gradients", "optimizer", "ema", "teacher"):
        assert share[name] == pytest.approx(whole[name] / 4, rel=0.01)
    assert share["gathered"] > 0
    away = planner.estimate(recipe_of("teacher.dtype=bf16", "train.precision=bf16", "train.offload=[ema]"))
    narrow = away.phases["backward"]
    assert narrow["teacher"] == pytest.approx(whole["teacher"] / 2)
    assert narrow["ema"] == 2 * max(p.nbytes for p in planner.network.parameters()) < away.phases["evaluation"]["ema"]
    assert planner.estimate(recipe_of("train.offload=[teacher]")).parts["teacher"] < whole["teacher"]
    host = replace(planner, device=CPU).estimate(recipe_of("train.offload=[ema, teacher]")).parts
    assert (host["ema"], host["teacher"]) == (whole["ema"], whole["teacher"])  # the device is the host


def test_advice_is_ranked_and_every_change_saves_what_it_says(planner: plan.Planner) -> None:
    recipe = recipe_of()
    advice = planner.advice(recipe)
    assert [n for _, n in advice] == sorted((n for _, n in advice), reverse=True)
    before = planner.estimate(recipe).total
    for change, saved in advice:
        setting, _, processes = change.partition(" with --num-processes ")
        after = planner.estimate(recipe_of(setting), world=int(processes or 1)).total
        assert before - after == saved > 0
    named = {change.partition(" ")[0] for change, _ in advice}
    assert {"train.memory=lean", f"train.micro_batch_size={MICRO // 2}", "train.precision=bf16"} <= named
    assert {"train.offload=[ema]", "train.offload=[teacher]", "train.shard=all"} <= named
    bf16 = [change for change, _ in planner.advice(recipe_of("train.precision=bf16"))]
    assert "teacher.dtype=bf16" in bf16
    assert "train.precision=bf16" not in bf16


def test_advice_names_only_what_goes_together(planner: plan.Planner) -> None:
    compiled = recipe_of("train.compile=step", "train.offload=[ema]")
    named = {change.partition(" with")[0] for change, _ in planner.advice(compiled)}
    assert not named & {"train.memory=lean", "train.shard=student", "train.shard=all", "teacher.dtype=bf16"}
    assert "train.offload=[ema, teacher]" in named


def test_a_network_that_reads_its_contents_is_measured() -> None:
    net, call, shape, cond = dit(layers=2)

    class Reads(Timestep):
        def __call__(self, net: nn.Module, x: Tensor, k: Tensor, cond: Any) -> Tensor:
            return super().__call__(net, x, k, cond) * (1 if net.pos_embed.proj.weight.sum().item() > 0 else 2)

    recipe = recipe_of()
    exact = planner_of((net, call, shape, cond), recipe).estimate(recipe)
    reading = planner_of((net, Reads(), shape, cond), recipe)
    found = reading.estimate(recipe)
    assert found.how == "measured on 1 and 2 samples"
    assert found.total == pytest.approx(exact.total, rel=0.15)
    assert all(p.grad is None for p in reading.network.parameters())


def test_a_lack_of_memory_is_no_operator_that_fake_tensors_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(*_: Any, **how: Any) -> Any:
        tried.append(how)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(plan.Planner, "_run", full)
    with pytest.raises(RuntimeError, match="CUDA error: out of memory"):
        planner_of(dit(layers=1), recipe_of()).estimate(recipe_of())
    assert len(tried) == 1


@pytest.mark.parametrize("text", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA driver error: out of memory"])
def test_running_out_of_memory_ends_with_what_to_change(planner: plan.Planner, text: str) -> None:
    with (
        pytest.raises(UserError, match=f"Out of memory: {text}") as told,
        out_of_memory.explained(planner, recipe_of(), "fast", lambda: Path("run/step-3")),
    ):
        raise RuntimeError(text)
    assert re.search(r"One of these, most effective first: train\.\S+.* \(saves about .*", told.value.fix)
    assert told.value.fix.endswith("Then --resume run/step-3.")
    with (
        pytest.raises(RuntimeError, match="shapes"),
        out_of_memory.explained(planner, recipe_of(), "fast", lambda: None),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_billion_parameters_are_planned_for_without_being_allocated() -> None:
    with torch.device("meta"):
        net, call, shape, _ = dit(layers=6, heads=16, width=192)
    recipe = recipe_of("train.memory=lean")
    planner = planner_of((net, call, shape, {"class_labels": torch.arange(2)}), recipe)
    assert sum(p.numel() for p in net.parameters()) > 1e9
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = planner.estimate(recipe).parts
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 100e6
    assert parts["optimizer"] == pytest.approx(2 * parts["student"], rel=0.01)
    assert parts["optimizer"] > 8e9


def test_available_memory_and_the_text_of_a_plan() -> None:
    assert plan.available(CPU) > 2**28
    parts = {"student": 2**30, "gathered": 0, "activations": 2**31}
    text = str(plan.Plan({"check": {"student": 2**30}, "backward": parts}, "traced"))
    assert text == "3 GiB in backward (student 1 GiB, activations 2 GiB; traced)"


def test_what_stays_on_the_device_is_24_bytes_a_parameter_of_a_student_trained_whole() -> None:
    planner = planner_of(dit(layers=1), recipe_of())
    count, kept = (sum(p.numel() for p in planner.network.parameters()), planner.resident(recipe_of()))
    buffers = sum(b.nbytes for b in planner.network.buffers())
    assert sum(kept.values()) == 24 * count + 3 * buffers  # of student, EMA and teacher
    assert kept == {
        "student": 4 * count + buffers, "gradients": 4 * count, "optimizer": 8 * count, "ema": 4 * count + buffers,
        "teacher": 4 * count + buffers, "gathered": 0,
    }  # fmt: skip
