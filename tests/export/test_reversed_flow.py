"""A network that counts from noise to data, turned round in its weights: the tiny Mochi of the zoo."""

import copy
from collections.abc import Callable

import pytest
import torch
import zoo
from torch import Tensor, nn

from scm_distill.errors import UserError
from scm_distill.export.reversed_flow import reverse
from scm_distill.maths.clocks import FlowClock
from scm_distill.models import low_pass
from scm_distill.models.network import Network
from scm_distill.teachers.convention import Convention

pytestmark = pytest.mark.filterwarnings("ignore")

TOTAL = 1000.0
SHAPE = (12, 2, 6, 6)
MOCHI = Convention(
    "hidden_states", "timestep", {"encoder_hidden_states": None, "encoder_attention_mask": None}, SHAPE, SHAPE,
    batched={"encoder_hidden_states": 0, "encoder_attention_mask": 0},
)  # fmt: skip


class Last(nn.Module):
    """A transformer with something after it."""

    def __init__(self, inner: nn.Module, after: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.inner, self.layer, self.after = inner, nn.Linear(6, 6), after

    def forward(self, **arguments: Tensor) -> Tensor:
        return self.after(self.inner(**arguments, return_dict=False)[0], self.layer)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return zoo.load_all()["mochi"].pipeline().transformer.eval().requires_grad_(False)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


COND = {"encoder_hidden_states": normal(2, 1, 16, 16), "encoder_attention_mask": torch.arange(16)[None] < 9}
X = normal(0, 1, *SHAPE)


def prepared(net: nn.Module, width: float = 0.0) -> Network:
    """A student of `net`, its time embedding found and smoothed."""
    network = Network(copy.deepcopy(net), FlowClock(-TOTAL, TOTAL, 1.0), "flow", 1.0, call=MOCHI)
    n = 4
    cond = {name: value.expand(n, *value.shape[1:]) for name, value in COND.items()}
    found = low_pass.prepare(network, normal(1, n, *SHAPE), torch.linspace(0.2, 1.4, n, dtype=torch.float64), cond)
    assert found == ["time_embed.timestep_embedder.linear_1"]
    low_pass.set_width(network.net, width)
    return network


def turned(network: Network) -> nn.Module:
    return reverse(network, low_pass.fold(network.net), X, COND, TOTAL)


def off(new: nn.Module, old: nn.Module) -> list[float]:
    """Relative distance of new(x, tau) to -old(x, C - tau) at random inputs and times, that were not fitted."""
    taus = TOTAL * torch.rand(20, generator=torch.Generator().manual_seed(3))
    errors = []
    for i, tau in enumerate(taus):
        x, cond = normal(100 + i, 1, *SHAPE), {**COND, "encoder_hidden_states": normal(200 + i, 1, 16, 16)}
        expected = -MOCHI(old, x, TOTAL - tau[None], cond)
        errors.append(float((MOCHI(new, x, tau[None], cond) - expected).norm() / expected.norm()))
    return errors


@pytest.mark.parametrize("width", [0.0, 30.0])
@torch.no_grad()
def test_it_is_minus_the_network_at_the_mirrored_time(transformer: nn.Module, width: float) -> None:
    network = prepared(transformer, width)
    assert max(off(turned(network), network.net)) < 1e-4


@torch.no_grad()
def test_the_measure_sees_a_network_that_was_not_turned(transformer: nn.Module) -> None:
    network = prepared(transformer)
    assert min(off(network.net, network.net)) > 0.1
    half = turned(network)
    for parameter in half.proj_out.parameters():
        parameter.neg_()
    assert min(off(half, network.net)) > 0.1


def test_only_the_first_and_the_last_layer_move(transformer: nn.Module) -> None:
    network = prepared(transformer)
    new, old = turned(network).state_dict(), transformer.state_dict()
    assert list(new) == list(old)
    moved = {name for name, value in new.items() if not torch.equal(value, old[name])}
    assert moved == {"time_embed.timestep_embedder.linear_1.weight", "proj_out.weight", "proj_out.bias"}
    assert torch.equal(new["proj_out.weight"], -old["proj_out.weight"])


def test_the_networks_own_weights_stay(transformer: nn.Module) -> None:
    network = prepared(transformer)
    turned(network)
    for name, value in network.net.state_dict().items():
        assert torch.equal(value, transformer.state_dict()[name]), name


def test_another_total_is_another_network(transformer: nn.Module) -> None:
    network = prepared(transformer)
    with torch.no_grad():
        other = reverse(network, low_pass.fold(network.net), X, COND, 900.0)
    assert min(off(other, network.net)) > 1e-3


@pytest.mark.parametrize(
    "after",
    [
        lambda out, layer: out + 0 * layer(out).sum(),
        lambda out, layer: out + 0.1 * layer(out),
        lambda out, layer: layer(out).tanh() + 1,
    ],
    ids=["an idle layer runs last", "a residual output", "an output that is not odd"],
)
def test_a_network_whose_output_cannot_be_negated_is_refused(transformer: nn.Module, after: Callable) -> None:
    network = Network(Last(copy.deepcopy(transformer), after), FlowClock(-TOTAL, TOTAL, 1.0), "flow", 1.0, call=MOCHI)
    cond = {name: value.expand(2, *value.shape[1:]) for name, value in COND.items()}
    assert low_pass.prepare(network, normal(1, 2, *SHAPE), torch.tensor([0.5, 1.2], dtype=torch.float64), cond)
    with pytest.raises(UserError, match="could not be turned round"):
        turned(network)


def test_a_time_embedding_that_was_not_found_is_refused(transformer: nn.Module) -> None:
    network = Network(copy.deepcopy(transformer), FlowClock(-TOTAL, TOTAL, 1.0), "flow", 1.0, call=MOCHI)
    with pytest.raises(UserError, match="could not be turned round"):
        turned(network)


def test_a_time_embedding_that_is_no_pair_of_sinusoids_is_refused(
    transformer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = prepared(transformer)
    folded = low_pass.fold(network.net)
    forward = folded.time_embed.timestep_embedder.forward
    monkeypatch.setattr(folded.time_embed.timestep_embedder, "forward", lambda e, *rest: forward(e**2, *rest))
    with pytest.raises(UserError, match="could not be turned round"):
        reverse(network, folded, X, COND, TOTAL)
