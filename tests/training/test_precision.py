"""bf16 rounds the time of some families before any sinusoid is taken of it; it must not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo

from scm_distill import train
from scm_distill.autodiff.forward_ad import jvp
from scm_distill.models import exact_time, low_pass
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.convention import Convention

pytestmark = pytest.mark.filterwarnings("ignore")
N = 8


def probed(teacher: Teacher) -> tuple[Network, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The teacher's network, and N samples x_t (N, ...) at times t (N,) with the conditions of the watched call."""
    F = Network(teacher.net, teacher.clock(1.0), teacher.prediction, 1.0, call=teacher.convention).requires_grad_(False)
    one = teacher.reading.reference_steps[0].cond
    cond = {path: value.expand(N, *value.shape[1:]).contiguous() for path, value in one.items()}
    x = torch.randn(N, *teacher.sample_shape, generator=torch.Generator().manual_seed(0))
    return F, x, torch.linspace(0.2, 1.5, N).double(), cond


@pytest.mark.parametrize(
    ("name", "rounds"),
    [("flux", True), ("chroma", True), ("qwenimage", True), ("stable_audio", False), ("sd3", False), ("wan", False)],
)
def test_the_tangent_in_bf16_is_close_without_any_low_pass(
    name: str, rounds: bool, fresh: Callable[[str], Teacher]
) -> None:
    F, x, t, cond = probed(fresh(name))
    dx = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert low_pass.prepare(F, x, t, cond)

    def tangent(autocast: torch.dtype | None) -> torch.Tensor:
        narrow = F.with_autocast(autocast)
        return jvp(lambda x, t: narrow(x, t, cond), (x, t), (dx, t.cos() * t.sin()))[1]

    exact, before = tangent(None), tangent(torch.bfloat16)
    assert ((before - exact).norm() > 0.2 * exact.norm()) == rounds
    assert exact_time.exact_time(F, x, t, cond, torch.bfloat16) < exact_time.ROUNDED
    assert (tangent(torch.bfloat16) - exact).norm() < 0.02 * exact.norm()


def test_the_time_is_judged_by_all_samples_not_by_the_first_chunk(fresh: Callable[[str], Teacher]) -> None:
    F, x, t, cond = probed(fresh("flux"))
    low_pass.prepare(F, x, t, cond)
    t[0] = F.clock.t_min  # where bf16 rounds the network's time least
    assert exact_time.exact_time(F.with_chunk(1), x, t, cond, torch.bfloat16) < exact_time.ROUNDED
    assert exact_time.exact_time(F, x, t, cond, torch.bfloat16) < exact_time.ROUNDED


def test_frequencies_multiplied_as_a_matrix_are_not_rounded_and_folding_puts_the_stock_classes_back(
    fresh: Callable[[str], Teacher],
) -> None:
    F, x, t, cond = probed(fresh("stable_audio"))
    stock = {name: type(module) for name, module in F.net.named_modules()}
    (layer,) = low_pass.prepare(F, x, t, cond)
    seen: list[torch.Tensor] = []
    F.net.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    def off() -> float:
        seen.clear()
        with torch.no_grad():
            F(x, t, cond)
            F.with_autocast(torch.bfloat16)(x, t, cond)
        return float((seen[0] - seen[1]).abs().max())

    assert off() > exact_time.ROUNDED
    assert exact_time.exact_time(F, x, t, cond, torch.bfloat16) == 0
    assert off() == 0
    assert [name for name, m in F.net.named_modules() if isinstance(m, low_pass.OutsideAutocast)] == ["time_proj"]
    assert {name: type(module) for name, module in low_pass.fold(F.net).named_modules()} == stock


@pytest.mark.parametrize("name", ["stable_audio", "wan22"])  # wan22: each of its experts sees some of the times only
def test_layers_are_found_by_chunks_as_by_all_samples_at_once(
    name: str, fresh: Callable[[str], Teacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    call = Convention.__call__
    monkeypatch.setattr(
        Convention, "__call__", lambda self, net, x, *rest: sizes.append(len(x)) or call(self, net, x, *rest)
    )
    found, largest = [], []
    for chunk in (256, 1):
        F, x, t, cond = probed(fresh(name))
        sizes.clear()
        names = low_pass.prepare(F.with_chunk(chunk), x, t, cond)
        found.append({name: F.net.get_submodule(name).frequencies.tolist() for name in names})
        largest.append(max(sizes))
    assert found[0]
    assert found[0] == found[1]
    assert largest[0] > largest[1] == 1


def test_stable_audio_trains_and_exports_in_bf16(
    folder_of: Callable[[str], Path], recipe_of: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("rain\nwind\n")
    (tmp_path / "recipe.yaml").write_text(recipe_of(folder_of("stable_audio"), "teacher"))
    overrides = {
        "train.precision": "bf16", "data.prompts": str(tmp_path / "prompts.txt"), "data.samples": 4,
        "teacher.call": zoo.FAMILIES["stable_audio"].call, "train.steps": 2, "objective.sigma_d": 1.0,
    }  # fmt: skip
    trained = train(tmp_path / "recipe.yaml", overrides=overrides, out=tmp_path / "run")
    assert trained.steps == 2
    assert trained.stock_difference < 1e-5
