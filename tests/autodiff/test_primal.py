"""Which operator gives O and the logsumexp on CUDA, what it is handed, and what the whole costs in FLOPs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.networks import Call, networks
from conftest import wide
from counting import FUSED, flops
from torch.autograd import forward_ad as fwAD
from torch.utils.flop_counter import FlopCounterMode

from scm_distill.autodiff import flash, primal
from scm_distill.autodiff.derivatives import OnePass, tangent_pass
from scm_distill.autodiff.dual import blocks
from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.autodiff.torch_private import FakeTensorMode
from scm_distill.maths.clocks import FlowClock
from scm_distill.models.network import Network

HOPPER, AMPERE, CONSUMER = (9, 0), (8, 0), (8, 6)


def source(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> str:
    """The choice for 6 heads of dimension 64, 77 queries and keys."""
    s = {"H": 6, "Hk": 6, "N": 77, "M": 77, "D": 64, **changes}
    q, k, v = (2, s["H"], s["N"], s["D"]), (2, s["Hk"], s["M"], s["D"]), (2, s["Hk"], s["M"], s.get("E", s["D"]))
    settings = {"masked": False, "causal": False, "tf32": False, "graph": False, "capability": HOPPER}
    return primal.source(q, k, v, dtype, **{name: s.get(name, value) for name, value in settings.items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "flash"),
        ({"M": 1000}, "flash"),
        ({"dtype": torch.float16}, "flash"),
        ({"causal": True}, "flash"),
        ({"Hk": 2}, "flash"),
        ({"D": 256}, "flash"),
        ({"D": 256, "graph": True, "capability": AMPERE}, "flash"),
        ({"D": 256, "capability": CONSUMER}, "flash"),
        ({"D": 256, "graph": True, "capability": CONSUMER}, "efficient"),  # the backward of flash does not fit there
        ({"masked": True}, "efficient"),
        ({"dtype": torch.float32, "tf32": True}, "efficient"),
        ({"dtype": torch.float32, "tf32": True, "D": 36}, "efficient"),
        ({"masked": True, "Hk": 2}, "kernel"),
        ({"dtype": torch.float32, "tf32": True, "Hk": 2}, "kernel"),
        ({"causal": True, "M": 78}, "kernel"),  # flash would align the last row with the last key
        ({"causal": True, "masked": True}, "kernel"),
        ({"E": 32}, "kernel"),
        ({"D": 36}, "kernel"),  # rows of flash begin at multiples of 16 bytes
        ({"dtype": torch.float32, "tf32": True, "D": 38}, "kernel"),
        ({"N": 0}, "kernel"),
        ({"M": 0}, "kernel"),
        ({"capability": None}, "kernel"),  # no GPU of NVIDIA
        ({"dtype": torch.float32}, "chunks"),
        ({"dtype": torch.float64}, "chunks"),
        ({"dtype": torch.float32, "tf32": True, "D": 256}, "chunks"),
        ({"D": 264}, "chunks"),
        ({"E": 264}, "chunks"),
        ({"capability": (7, 5)}, "chunks"),
    ],
    ids=str,
)
def test_the_operator(changes: dict[str, Any], expected: str) -> None:
    assert source(**changes) == expected


def test_more_samples_than_a_grid_takes() -> None:
    shape = (2**16, 1, 5, 16)
    settings: Any = {"masked": False, "causal": False, "tf32": False, "graph": False, "capability": HOPPER}
    assert primal.source(shape, shape, shape, torch.bfloat16, **settings) == "kernel"
    smaller = (2**16 - 1, 1, 5, 16)
    assert primal.source(smaller, smaller, smaller, torch.bfloat16, **settings) == "flash"


def test_a_boolean_mask_as_it_is_added() -> None:
    mask = torch.rand(2, 1, 1, 77, generator=torch.Generator().manual_seed(0)) > 0.3
    bias = primal.additive(mask, torch.bfloat16, 77)
    assert bias.dtype == torch.bfloat16
    assert bias.shape == mask.shape
    assert bias.stride(-1) == 1
    assert bias.stride(0) % 8 == 0
    assert torch.equal(bias == 0, mask)
    assert torch.equal(bias.isinf(), ~mask)


@pytest.mark.parametrize("shape", [(2, 1, 5, 1), (1, 3, 5, 77), (2, 3, 1, 77)])
def test_rows_of_a_mask_begin_at_multiples_of_16_bytes(shape: tuple[int, ...]) -> None:
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    bias = primal.additive(mask, torch.float16, 77)
    assert torch.equal(bias, mask.half().expand(*shape[:-1], 77))
    assert bias.stride(-1) == 1
    assert all(n % 8 == 0 for n, size in zip(bias.stride()[:-1], shape, strict=False) if size > 1)


def test_an_aligned_mask_is_not_copied() -> None:
    mask = torch.randn(2, 3, 5, 80)
    assert primal.additive(mask, torch.float32, 80) is mask or (
        primal.additive(mask, torch.float32, 80).data_ptr() == mask.data_ptr()
    )


class Traced(Exception):
    """The compiler is done: there is no GPU to run on."""


def hopper(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **settings: Any) -> str:
    return primal.source(q.shape, k.shape, v.shape, q.dtype, capability=HOPPER, **{**settings, "tf32": True})


@pytest.mark.parametrize(("dtype", "masked"), [(torch.bfloat16, False), *wide((torch.float32, True))])
def test_the_compiler_traces_it_whole(dtype: torch.dtype, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "source", hopper)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        def stop(*_: Any) -> None:
            raise Traced

        graphs.append(graph)
        return stop

    def f(q: torch.Tensor, d: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None) -> Any:
        with fwAD.dual_level(), TangentMode():
            attend = torch.nn.functional.scaled_dot_product_attention
            return fwAD.unpack_dual(attend(fwAD.make_dual(q, d), k, k, attn_mask=mask))

    q, d, k = (torch.randn(2, 3, n, 16, dtype=dtype) for n in (5, 5, 77))
    mask = torch.ones(2, 1, 1, 77, dtype=torch.bool) if masked else None
    with pytest.raises(Traced):
        torch.compile(f, fullgraph=True, backend=backend)(q.requires_grad_(), d, k, mask)
    called = [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert [name for name in called if "attention" in name] == [
        f"aten._scaled_dot_product_{'efficient' if masked else 'flash'}_attention",
        "scm_distill.attention_tangent.default",
    ]


Made = tuple[Network, list[torch.Tensor], dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=["DiT", *wide("MMDiT")])
def tiny(request: pytest.FixtureRequest) -> Made:
    """A network of the benchmarks, x, v and t, and conditions, without contents."""
    with FakeTensorMode():
        net, shape, conditions = networks("small")[f"{request.param} small"]()
        cond = {
            name: torch.zeros(2, dtype=torch.long) if isinstance(s, int) else torch.randn(2, *s)
            for name, s in conditions.items()
        }
        network = Network(net.eval(), FlowClock(1000.0, 0.0, 1.0), "flow", 1.0, None, Call())
        return network, [torch.randn(2, *shape), torch.randn(2, *shape), torch.rand(2, dtype=torch.float64)], cond


def counted(f: Callable[[], object]) -> tuple[int, int]:
    """FLOPs of a forward, and those of its attention."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        f()
    parts = counter.get_flop_counts()["Global"]
    return sum(parts.values()), sum(n for op, n in parts.items() if "attention" in str(op))


@pytest.mark.parametrize("by", ["flash", *wide("chunks", "efficient")])
def test_flops_of_a_tangent_and_of_a_step(by: str, tiny: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """In forwards F, of which attention is the share a; on the kernel path Q K^T is made twice."""
    monkeypatch.setattr(flash, "source", lambda *_, **__: by)
    network, (x, v, t), cond = tiny
    mode = x.fake_mode  # type: ignore[attr-defined]

    def step() -> None:
        F, _ = OnePass(blocks(network.net))(network, x, t, cond, v)
        F.square().mean().backward()
        network.zero_grad()

    with mode:
        with torch.no_grad():
            forward, attention = counted(lambda: network(x, t, cond))
            tangent = flops(lambda: tangent_pass(network, x, t, cond, v)) / forward
        steps = 1 + flops(step) / forward  # the teacher's forward
    a = attention / forward
    assert 0.05 < a < 0.5
    again = 0 if by == "chunks" else 0.5 * a
    assert 2 + a + again - 0.02 < tangent <= 2.05 + a + again
    assert 5 + 1.5 * a + again - 0.1 < steps <= 5.1 + 1.5 * a + again
