"""The Triton kernel of attention and its tangent, in Triton's CPU interpreter, against float64 forward AD."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import wide
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scm_distill.autodiff import flash, flash_launch
from scm_distill.autodiff.flash_tiles import Tile

KERNEL = "scm_distill.autodiff.flash_kernel"
CHANGED = ("condition", "tensor_descriptor_base")  # with tensor, dtype and the modules
B, H, N, M, D = 2, 2, 37, 21, 16


@pytest.fixture(scope="module", autouse=True)
def interpreter() -> Iterator[Any]:
    """Load the kernel anew, interpreted, and forget it afterwards: other tests of this process see no interpreter.

    Triton decides when a function is decorated, and diffusers has imported Triton by now: the two functions of its
    standard library that the kernel calls must be interpreted too. The interpreter changes Triton's language, and
    leaves it so where one interpreted function calls another.
    """
    pytest.importorskip("triton")
    tl = importlib.import_module("triton.language")
    parts = (tl, tl.core, tl.math, tl.tensor, tl.dtype, *(getattr(tl, n) for n in CHANGED if hasattr(tl, n)))
    language = [(part, dict(vars(part))) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        Interpreted = importlib.import_module("triton.runtime.interpreter").InterpretedFunction
        for name in ("sum", "max"):
            if not isinstance(function := getattr(tl, name), Interpreted):
                patch.setattr(tl, name, Interpreted(function.fn))
        before = sys.modules.pop(KERNEL, None)
        kernel = importlib.import_module(KERNEL)
        assert kernel.INTERPRETED
        yield kernel
        sys.modules.pop(KERNEL)
        if before is not None:
            sys.modules[KERNEL] = before
    for part, was in language:
        for name, value in list(vars(part).items()):
            if name not in was:
                delattr(part, name)
            elif was[name] is not value:
                setattr(part, name, was[name])


def draws(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.Tensor]:
    """Values that `dtype` holds exactly, so that the float64 reference has the same inputs."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def reference(tensors: list[Any], mask: Any, causal: bool, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """O and dO by forward AD through the unfused attention, in float64; keys repeated for their groups."""
    q, k, v, dq, dk, dv = (x if x is None else x.double() for x in tensors)
    groups = q.shape[-3] // k.shape[-3]
    k, v, dk, dv = (x if x is None else x.repeat_interleave(groups, -3) for x in (k, v, dk, dv))
    mask = mask.double() if mask is not None and mask.is_floating_point() else mask
    with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level(), torch.no_grad():
        duals = (x if d is None else fwAD.make_dual(x, d) for x, d in ((q, dq), (k, dk), (v, dv)))
        dual = torch.nn.functional.scaled_dot_product_attention(*duals, attn_mask=mask, is_causal=causal, scale=scale)
        primal, tangent = fwAD.unpack_dual(dual)
        return primal, tangent


def error(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine.double() - theirs).norm() / theirs.norm())


def logsumexp(tensors: list[Any], mask: Any, causal: bool, scale: float) -> torch.Tensor:
    """Of every row of S, from float64."""
    q, k = (x.double() for x in tensors[:2])
    S = scale * q @ k.repeat_interleave(q.shape[-3] // k.shape[-3], -3).mT
    if mask is not None:
        S = S.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else S + mask
    if causal:
        S = S.masked_fill(torch.ones(S.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return S.logsumexp(-1).float()


def check(tensors: list[Any], *, mask: Any = None, causal: bool = False, scale: float = 0.3, tol: float = 1e-6) -> None:
    """Both modes of the kernel: O and dO together, and dO where O and the logsumexp are known."""
    o, dO = reference(tensors, mask, causal, scale)
    settings: Any = {"mask": mask, "causal": causal, "scale": scale}
    mine, d_mine = flash.output_and_tangent(*tensors, **settings)
    d_alone = flash.tangent(*tensors, o.to(mine.dtype), logsumexp(tensors, mask, causal, scale), **settings)
    assert mine.dtype == d_mine.dtype == d_alone.dtype == tensors[0].dtype
    assert mine.shape == d_mine.shape == d_alone.shape == o.shape
    errors = error(mine, o), error(d_mine, dO), error(d_alone, dO)
    assert max(errors) < tol, errors


def cross(d: int = D, e: int | None = None, dtype: torch.dtype = torch.float32, heads: int = H) -> list[Any]:
    shapes = ((B, H, N, d), (B, heads, M, d), (B, heads, M, e or d))
    return draws(*shapes, *shapes, dtype=dtype)


@pytest.mark.parametrize(
    ("d", "e"), [(64, 64), (40, 72), *wide((8, 8), (32, 32), (40, 40), (72, 72), (128, 128), (24, 8), (160, 80))]
)
def test_head_dimensions(d: int, e: int) -> None:
    check(cross(d, e))


def test_the_widest_head() -> None:
    shape = (1, 1, 19, 256)
    check(draws(*[shape] * 6), scale=1 / 16)


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (32, 16), (97, 33), *wide((1, 16), (1, 33), (32, 1), (32, 33), (97, 1), (97, 16))]
)
def test_any_two_lengths(n: int, m: int) -> None:
    shapes = ((1, 1, n, 16), (1, 1, m, 16), (1, 1, m, 16))
    tensors = draws(*shapes, *shapes)
    if m > 1:
        check(tensors)
    else:  # P = 1: dO = dV, all else cancels
        known = tensors[2].expand(1, 1, n, 16), logsumexp(tensors, None, False, 0.3)
        rest: Any = {"mask": None, "causal": False, "scale": 0.3}
        for dO in (flash.output_and_tangent(*tensors, **rest)[1], flash.tangent(*tensors, *known, **rest)):
            assert torch.allclose(dO, tensors[-1].expand(1, 1, n, 16), atol=1e-6)


def masked(kind: str, n: int, m: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The settings of a call: a mask whose rows all see the first key, or causal."""
    mask = draws((1, 1, n, m), dtype=dtype, seed=3)[0]
    mask[..., 0] = 0
    masks = {"boolean": mask > -0.6, "added": mask.masked_fill(mask > 1, float("-inf"))}
    return {"mask": masks.get(kind), "causal": kind == "causal"}


SWEEP = [
    *((n, m, 64) for n, m in ((1, 129), (31, 33), (64, 16), (127, 128), (129, 129), (33, 4097))),
    *((33, 65, d) for d in (40, 48, 72, 80, 88, 96, 128, 160, 256)),
]


@pytest.mark.parametrize("kind", ["none", "boolean", "added", "causal"])
@pytest.mark.parametrize(("n", "m", "d"), [(17, 33, 80), *wide(*SWEEP)])
def test_lengths_head_dimensions_and_masks_together(
    n: int, m: int, d: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if m > 100:  # a step of the interpreter's loop takes as long for any tile
        monkeypatch.setattr(flash_launch, "INTERPRETER", Tile(64, 256 if m > 1000 else 32, 4, 1))
    shapes = ((1, 1, n, d), (1, 1, m, d), (1, 1, m, d))
    check(draws(*shapes, *shapes), **masked(kind, n, m), scale=d**-0.5, tol=2e-6)


@pytest.mark.parametrize("m", [64, *wide(4097)])
def test_small_probabilities_in_float16(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """P of 1 / m is not normal in float16 where m is large, nor is its product with a small dS."""
    monkeypatch.setattr(flash_launch, "INTERPRETER", Tile(16, 64 if m == 64 else 256, 4, 1))
    shapes = ((1, 1, 16, 32), (1, 1, m, 32), (1, 1, m, 32))
    q, k, v, dq, dk, dv = draws(*shapes, *shapes, dtype=torch.float16)
    check([q, k, v, dq / 64, dk / 64, dv], scale=0.01, tol=6e-4)


MASKS = {
    "padding": (B, 1, 1, M),
    "per row": (1, 1, N, M),
    "full": (B, H, N, M),
    "per key": (M,),
    "per query": (B, 1, N, 1),
}


@pytest.mark.parametrize("kind", ["padding", "full", *wide("per row", "per key", "per query")])
def test_additive_mask(kind: str) -> None:
    (mask,) = draws(MASKS[kind], seed=1)
    check(cross(), mask=mask.masked_fill(mask > 1.5, float("-inf")) if kind in ("padding", "full") else mask)


@pytest.mark.parametrize("kind", ["full", *wide("padding", "per row", "per key")])
def test_boolean_mask(kind: str) -> None:
    check(cross(), mask=draws(MASKS[kind], seed=1)[0] > -0.6)


def test_rows_that_see_nothing_are_zero() -> None:
    tensors = cross()
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[5] = False
    mask[:, :18] &= torch.arange(N)[:, None] % 2 == 0  # odd rows see the last keys only
    for bias in (mask, torch.zeros(N, M).masked_fill(~mask, float("-inf"))):
        o, dO = flash.output_and_tangent(*tensors, mask=bias, causal=False, scale=0.3)
        lse = logsumexp(tensors, bias, False, 0.3)
        lse[0, :, 5], lse[1, 0, 5], lse[1, 1, 5] = float("-inf"), float("inf"), float("nan")  # as operators may give
        outputs = o, dO, flash.tangent(*tensors, o, lse, mask=bias, causal=False, scale=0.3)
        for x in outputs:
            assert not x[:, :, 5].any()
            assert torch.isfinite(x).all()
    seen = [i for i in range(N) if i != 5]
    q, k, v, dq, dk, dv = tensors
    check([q[:, :, seen], k, v, dq[:, :, seen], dk, dv], mask=mask[seen])


@pytest.mark.parametrize(("n", "m"), [(20, 45), *wide((50, 50), (45, 20))])
def test_causal(n: int, m: int) -> None:
    shapes = ((1, 2, n, 16), (1, 2, m, 16), (1, 2, m, 16))
    check(draws(*shapes, *shapes), causal=True)


@pytest.mark.parametrize("causal", [True, *wide(False)])
def test_grouped_queries(causal: bool) -> None:
    shapes = ((1, 6, 33, 16), (1, 2, 33, 16), (1, 2, 33, 16))
    check(draws(*shapes, *shapes), causal=causal)


@pytest.mark.parametrize("kept", [(0,), (1, 2), *wide(((1,),), ((2,),), ((0, 1),), ((0, 2),))])
def test_a_missing_tangent_is_zero(kept: tuple[int, ...]) -> None:
    tensors = cross()
    check([*tensors[:3], *(d if i in kept else None for i, d in enumerate(tensors[3:]))])


def test_no_tangent_at_all() -> None:
    q, k, v, *_ = cross()
    rest = {"mask": None, "causal": False, "scale": 0.3}
    o, dO = flash.output_and_tangent(q, k, v, None, None, None, **rest)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.3)
    assert torch.allclose(o, expected, atol=1e-6)
    assert not dO.any()
    lse = logsumexp([q, k], None, False, 0.3)
    assert not flash.tangent(q, k, v, None, None, None, o, lse, **rest).any()


def test_strides_of_transposed_and_sliced_tensors() -> None:
    qkv, dqkv = draws((B, 33, 3 * H * 24), (B, 33, 3 * H * 24))
    q, k, v, dq, dk, dv = (
        x.unflatten(-1, (H, 24)).transpose(1, 2) for big in (qkv, dqkv) for x in big.chunk(3, dim=-1)
    )
    tensors = [q, k, v, dq.contiguous(), dk.mT.contiguous().mT, dv[:, :1].expand(B, H, 33, 24)]
    check(tensors)
    o, dO = flash.output_and_tangent(*tensors, mask=None, causal=False, scale=1.0)
    assert o.transpose(1, 2).is_contiguous()  # what the caller flattens next
    assert dO.transpose(1, 2).is_contiguous()


def test_nothing_beyond_the_edges_is_read_or_written() -> None:
    padded = [torch.full((1, 1, 64, 32), float("nan")) for _ in range(6)]
    inner = [x[:, :, 3:40, 5:25] for x in padded]
    for x, values in zip(inner, draws(*[(1, 1, 37, 20)] * 6), strict=True):
        x.copy_(values)
    check(inner)


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_other_ranks(lead: tuple[int, ...]) -> None:
    shapes = ((*lead, 2, 18, 16), (*lead, 2, 9, 16), (*lead, 2, 9, 16))
    tensors = draws(*shapes, *shapes)
    for mask in (None, *draws((18, 9), (*lead, 1, 1, 9), seed=1)):
        check(tensors, mask=mask)


def test_float16() -> None:
    check(cross(64, dtype=torch.float16), scale=0.125, tol=1e-3)
    shapes = ((1, 2, 70, 40), (1, 2, 45, 40), (1, 2, 45, 40))
    (mask,) = draws((70, 45), dtype=torch.float16, seed=1)
    check(draws(*shapes, *shapes, dtype=torch.float16), mask=mask, tol=1e-3)


def test_an_offset_that_all_keys_share_costs_no_precision() -> None:
    q, k, v, dq, dk, dv = cross(64, dtype=torch.float16)
    (offset,) = draws((1, H, 1, 64), seed=2)
    shifted = (k.float() + 8 * offset).half()
    check([q, shifted, v, dq, dk, dv], scale=0.125, tol=6e-4)  # 1.3e-3 without the centre


def test_empty_tensors() -> None:
    q, k = torch.zeros(1, 1, 0, 16), torch.zeros(1, 1, 4, 16)
    o, dO = flash.output_and_tangent(q, k, k, q, k, k, mask=None, causal=False, scale=1.0)
    assert o.shape == dO.shape == q.shape
    o, dO = flash.output_and_tangent(k, q, q, k, q, q, mask=None, causal=False, scale=1.0)
    assert not o.any()
    assert not dO.any()


@pytest.mark.parametrize("wrong", ["heads", "tangent", "width", "length"])
def test_shapes_that_do_not_fit_are_refused(wrong: str) -> None:
    q, k, v, dq, dk, dv = cross()
    k, v = {"heads": (k[:, :1].repeat(1, 3, 1, 1), v[:, :1].repeat(1, 3, 1, 1)), "length": (k[:, :, 1:], v)}.get(
        wrong, (k, v)
    )
    if wrong == "heads":
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
    if wrong == "tangent":
        dq = dq[:, :, 1:]
    if wrong == "width":
        v = dv = torch.zeros(B, H, M, 257)
    with pytest.raises(ValueError, match=r"No kernel|Attention got"):
        flash.output_and_tangent(q, k, v, dq, dk, dv, mask=None, causal=False, scale=1.0)


def by(q: torch.Tensor, v: torch.Tensor | None = None) -> str:
    return flash.source(q, q, q if v is None else v, graph=False)


def test_what_computes_it_here(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(1, 1, 4, 64)
    assert by(q) == by(q.half()) == "kernel"
    assert by(q.bfloat16()) == "chunks"  # the interpreter's bfloat16 is wrong
    assert by(q.double()) == "chunks"
    assert by(torch.zeros(1, 1, 4, 129)) == by(q, torch.zeros(1, 1, 4, 129)) == "chunks"
    assert by(torch.zeros(1, 1, 4, 257).half()) == by(q.half(), torch.zeros(1, 1, 4, 257)) == "chunks"
    monkeypatch.setitem(sys.modules, KERNEL, None)  # as if Triton were missing
    assert by(q) == "chunks"
    monkeypatch.undo()
    monkeypatch.delenv("TRITON_INTERPRET")
    assert by(q) == "chunks"


@pytest.mark.parametrize("kept", [(0, 1, 2), (0,), (2,), ()])
def test_the_flop_counter_counts_the_products_that_are_made(kept: tuple[int, ...]) -> None:
    q, k, v, *d = cross(16, 24, heads=1)
    dq, dk, dv = (x if i in kept else None for i, x in enumerate(d))
    rest = {"mask": None, "causal": False, "scale": 0.3}
    products = 16 * (1 + (0 in kept) + (1 in kept)) + 24 * (1 + (0 in kept or 1 in kept) + (2 in kept))
    with FlopCounterMode(display=False) as counter:
        o, _ = flash.output_and_tangent(q, k, v, dq, dk, dv, **rest)
    assert counter.get_total_flops() == 2 * B * H * N * M * products
    with FlopCounterMode(display=False) as counter:
        flash.tangent(q, k, v, dq, dk, dv, o, torch.zeros(B, H, N), **rest)
    assert counter.get_total_flops() == 2 * B * H * N * M * (products - 24)


@pytest.mark.parametrize("known", [False, True])
def test_the_compiler_traces_it_whole(known: bool) -> None:
    tensors = cross()
    (mask,) = draws((B, 1, 1, M), seed=1)
    settings: Any = {"mask": mask > 0, "causal": False, "scale": 0.3}

    def f(*tensors: torch.Tensor) -> torch.Tensor:
        q, k, v = tensors[:3]
        if flash.source(q, k, v, graph=False) != "kernel":
            return q
        if known:
            return 2 * flash.tangent(*tensors, torch.zeros(B, H, N, D), torch.ones(B, H, N), **settings)
        return 2 * flash.output_and_tangent(*tensors, **settings)[1]

    with torch.no_grad():
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(*tensors), f(*tensors))


def test_recording_launches_nothing_and_keeps_no_memory() -> None:
    tensors = cross(72)
    known, settings = (torch.ones(B, H, N, 72), torch.zeros(B, H, N)), {"mask": None, "causal": False, "scale": 0.3}
    with flash_launch.recording() as calls:
        both = flash.output_and_tangent(*tensors, **settings)
        alone = flash.tangent(*tensors[:5], None, *known, **settings)
    assert not any(x.any() for x in (*both, alone))
    fused, tangent = calls
    assert [call.flags["FUSED"] for call in calls] == [True, False]
    assert not tangent.flags["HAS_DV"]
    assert (tangent.flags["D0"], tangent.flags["D1"], fused.flags["D0"]) == (64, 16, 128)
    assert not any(isinstance(x, torch.Tensor) for call in calls for x in call.args)
    assert flash.tangent(*tensors, *known, **settings).any()  # afterwards it is launched again


def test_a_variant_is_what_triton_compiles_for() -> None:
    """Other lengths are the same kernel; another stride that 16 does not divide, or another flag, is not."""
    settings: Any = {"mask": None, "causal": False, "scale": 0.3}
    with flash_launch.recording() as calls:
        for n, width, causal in ((32, 16, False), (64, 16, False), (64, 16, True), (64, 17, False)):
            x = torch.zeros(1, 2, n, width)[..., :16]
            flash.output_and_tangent(*(x,) * 6, **{**settings, "causal": causal})
    assert [call.variant() == calls[0].variant() for call in calls] == [True, True, False, False]


def test_the_operators_are_registered_soundly() -> None:
    q, k, v, dq, _, dv = cross()
    known = torch.zeros_like(q), torch.zeros(B, H, N)
    for op, extra in ((flash.attention_and_tangent, ()), (flash.attention_tangent, known)):
        args = (q.transpose(1, 2).contiguous().transpose(1, 2), k, v, dq, None, dv, *extra, None, False, 0.3, False)
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
