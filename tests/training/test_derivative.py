"""Which derivative a run takes, and why not another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_net

from scm_distill import config
from scm_distill.autodiff.derivatives import Derivative, Difference, OnePass, TwoPasses
from scm_distill.errors import UserError
from scm_distill.maths.clocks import DiscreteSchedule
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.models.student import Student
from scm_distill.progress import Silent
from scm_distill.training import derivative
from scm_distill.training.derivative import Trial, choose

BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
WIDTH = 20.0


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said = ""

    def say(self, text: str) -> None:
        self.said += text


def trial(net: torch.nn.Module | None = None, dtype: torch.dtype | None = None, *, width: float = WIDTH) -> Trial:
    g = torch.Generator().manual_seed(0)
    x, v = (torch.randn(4, 1, 8, 8, generator=g) for _ in range(2))
    t = torch.linspace(0.3, 1.4, 4).double()
    network = Network(tiny_net() if net is None else net, DiscreteSchedule(BAR, 1.0), "v_prediction", 1.0)
    if net is None:
        low_pass.prepare(network, x, t, {})
        low_pass.set_width(network.net, width)
    student = Student(network.with_autocast(dtype), adaptive=True)
    return Trial(student, student, x, t, {}, v)


@pytest.fixture
def recipe(tmp_path: Path, recipe_of: Any) -> Any:
    (tmp_path / "recipe.yaml").write_text(recipe_of("teacher"))
    return lambda *overrides: config.read(str(tmp_path / "recipe.yaml"), overrides)


def chosen(trial: Trial, recipe: config.Recipe, memory: Any = "fast") -> tuple[Derivative, str]:
    listener = Listener()
    return choose(trial, recipe, memory, 2, 0.02, listener), listener.said


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_one_pass_is_taken_and_said(recipe: Any, memory: str) -> None:
    found, said = chosen(trial(), recipe(), memory)
    assert isinstance(found, OnePass)
    assert found.memory == memory
    assert found.blocks
    assert f"tangent: exact JVP, one pass, {memory} memory, attention exact in chunks; JVP and central" in said
    assert "would not do" not in said


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_attention_that_is_named_is_that_of_the_run(
    dtype: torch.dtype | None, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derivative, "backend", lambda _, dtype: f"for {dtype}")
    assert f"attention for {dtype or torch.float32};" in chosen(trial(dtype=dtype), recipe())[1]


def test_no_gradient_and_no_patch_is_left(recipe: Any) -> None:
    given = trial()
    chosen(given, recipe())
    assert all(p.grad is None for p in given.student.parameters())
    assert not any("forward" in module.__dict__ for module in given.student.modules())


def test_a_difference_is_taken_where_asked_for(recipe: Any) -> None:
    found, said = chosen(trial(), recipe("objective.tangent=difference"))
    assert isinstance(found, Difference)
    assert found.h == 0.02
    assert "central difference as asked" in said


def test_a_time_embedding_too_rough_for_a_difference_is_refused_unless_chosen(recipe: Any) -> None:
    with pytest.raises(UserError, match="too rough"):
        chosen(trial(width=0.0), recipe())
    assert isinstance(chosen(trial(width=0.0), recipe("objective.tangent=jvp"))[0], OnePass)


class Smooth(torch.nn.Module):
    """A network whose time is rounded by autocast, or which goes through `via`."""

    def __init__(self, via: Any = None) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1, dtype=torch.float32)
        torch.nn.init.constant_(self.layer.weight, 0.7)
        torch.nn.init.constant_(self.layer.bias, 0.1)
        self.via = via

    def forward(self, x: torch.Tensor, k: torch.Tensor, *, return_dict: bool) -> tuple[torch.Tensor]:
        wave = (k[:, None, None, None] / 100).sin()
        return (self.layer(x) * wave if self.via is None else self.layer(self.via(x)) * wave,)


class Narrow(Smooth):
    """Casts its time to the dtype of its products, and reads it with a fast wave."""

    def forward(self, x: torch.Tensor, k: torch.Tensor, *, return_dict: bool) -> tuple[torch.Tensor]:
        y = self.layer(x)
        return (y.float() * (3 * k).to(y.dtype)[:, None, None, None].float().sin(),)


def test_a_network_that_rounds_its_time_is_refused(recipe: Any) -> None:
    sound = trial(dtype=torch.bfloat16)
    assert "bf16 moves the tangent by" in chosen(sound, recipe("train.precision=bf16"))[1]
    assert sound.student.network.autocast is torch.bfloat16
    with pytest.raises(UserError, match="In bf16 the tangent is wrong by"):
        chosen(trial(Narrow(), torch.bfloat16), recipe("train.precision=bf16", "objective.tangent=jvp"))


def test_an_operator_that_takes_no_pairs_makes_it_two_passes(recipe: Any) -> None:
    def by_hand(x: torch.Tensor) -> torch.Tensor:
        if type(x) is not torch.Tensor:
            raise NotImplementedError("by hand")
        return 2 * x

    found, said = chosen(trial(Smooth(by_hand)), recipe())
    assert isinstance(found, TwoPasses)
    assert "two passes" in said
    assert "one pass would not do (NotImplementedError: by hand)" in said


class Opaque(torch.autograd.Function):
    """Twice its input; without a forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 2 * g


def test_a_network_without_a_forward_derivative_needs_the_difference(recipe: Any) -> None:
    with pytest.raises(UserError, match="no exact derivative") as caught:
        chosen(trial(Smooth(Opaque.apply)), recipe())
    assert "objective.tangent=difference" in str(caught.value.fix)
    found, said = chosen(trial(Smooth(Opaque.apply)), recipe("objective.tangent=difference"))
    assert isinstance(found, Difference)
    assert found.h == 0.02
    assert "unverified" in said


@pytest.fixture(params=["F", "the tangent", "the gradient"])
def spoiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One pass, with one of its results off by a tenth."""
    right = OnePass.__call__

    def wrong(self: OnePass, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        F, cs_dF = right(OnePass(self.blocks, self.memory), *args)
        if request.param == "the tangent":
            return F, 1.1 * cs_dF
        if request.param == "F":
            return 1.1 * F.detach() + (F - F.detach()), cs_dF
        return F.detach() + 1.1 * (F - F.detach()), cs_dF

    monkeypatch.setattr(OnePass, "__call__", wrong)
    return request.param


def test_a_pass_that_is_wrong_is_not_taken(recipe: Any, spoiled: str) -> None:
    found, said = chosen(trial(), recipe())
    assert isinstance(found, TwoPasses)
    assert f"one pass would not do ({spoiled} is off by 1.0e-01)" in said


def test_a_compiled_pass_that_is_wrong_is_refused(recipe: Any, spoiled: str) -> None:
    with pytest.raises(UserError, match=f"is not the eager one: {spoiled} is off by") as caught:
        chosen(trial(), recipe("train.compile=blocks"))
    assert "train.compile=off" in str(caught.value.fix)


def test_what_autocast_costs_one_pass_is_no_reason_against_it(recipe: Any) -> None:
    found, said = chosen(trial(dtype=torch.bfloat16), recipe("train.precision=bf16"))
    assert isinstance(found, OnePass), said


def test_gradients_of_other_parameters_are_apart() -> None:
    a = [torch.ones(2), torch.ones(3)]
    assert derivative._gradient_difference(a, a) == 0
    assert derivative._gradient_difference([torch.ones(2), 2 * torch.ones(3)], a) == pytest.approx(0.6**0.5)
    assert derivative._gradient_difference(a, a[:1]) != derivative._gradient_difference(a, a[:1])


def test_a_backward_that_fails_on_trial_leaves_no_gradient(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = OnePass.__call__

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return x + 0 * by

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            raise RuntimeError("modified by an inplace operation")

    def half(self: OnePass, F: Any, x: torch.Tensor, *rest: Any) -> Any:
        y, dy = plain(self, F, x, *rest)
        p = next(F.parameters())
        p.grad = torch.ones_like(p)  # what the part of the backward before the failure leaves
        return Failing.apply(y, p.sum()), dy

    monkeypatch.setattr(OnePass, "__call__", half)
    given = trial()
    found, said = chosen(given, recipe())
    assert isinstance(found, TwoPasses)
    assert "inplace operation" in said
    assert all(p.grad is None for p in given.student.parameters())


def test_a_library_without_memory_is_no_reason_for_two_passes(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(OnePass, "__call__", full)
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_ALLOC_FAILED"):
        chosen(trial(), recipe())


def test_a_micro_batch_of_one_is_tried_on_one_sample(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right, sizes = OnePass.__call__, []

    def seen(self: OnePass, F: Any, x: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(x))
        return right(self, F, x, *rest)

    monkeypatch.setattr(OnePass, "__call__", seen)
    choose(trial(), recipe(), "fast", 1, 0.02, Listener())
    assert sizes == [1]
