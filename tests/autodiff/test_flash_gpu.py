"""The Triton kernel of attention and its tangent on CUDA, against float64 forward AD through the unfused attention."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel

from scm_distill.autodiff import flash, flash_launch, primal
from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.progress import Silent

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("tf32"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.filterwarnings("ignore::UserWarning:triton"),
]


@pytest.fixture
def tf32() -> Iterator[None]:
    """float32 products in TF32, so that they take the kernel."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2, torch.float32: 5e-3}  # float32: in TF32
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
SHAPE = {"b": 2, "h": 4, "n": 333, "m": 333}


def draws(*shapes: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """Values that `dtype` holds exactly, so that the float64 reference has the same inputs."""
    g = torch.Generator("cuda").manual_seed(seed)
    return [torch.randn(shape, generator=g, device="cuda").to(dtype) for shape in shapes]


def six(d: int, e: int | None = None, *, dtype: torch.dtype, keys: int | None = None, **changes: int) -> list[Any]:
    b, h, n, m = {**SHAPE, **changes}.values()
    shapes = ((b, h, n, d), (b, keys or h, m, d), (b, keys or h, m, e or d))
    return draws(*shapes, *shapes, dtype=dtype)


def reference(tensors: list[Any], mask: Any, causal: bool, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
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


def derived(
    tensors: list[Any], mask: Any, causal: bool, scale: float, graph: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """O and dO as the student's pass computes them: by whatever `flash.source` chooses."""
    q, k, v = (x.detach().requires_grad_(graph) for x in tensors[:3])
    with fwAD.dual_level(), TangentMode(), torch.set_grad_enabled(graph):
        duals = (x if d is None else fwAD.make_dual(x, d) for x, d in zip((q, k, v), tensors[3:], strict=True))
        settings: Any = {"attn_mask": mask, "is_causal": causal, "scale": scale, "enable_gqa": k.shape[1] != q.shape[1]}
        o, do = fwAD.unpack_dual(torch.nn.functional.scaled_dot_product_attention(*duals, **settings))
        assert o.requires_grad == graph
        return o.detach().clone(), do.detach().clone()


def check(tensors: list[Any], *, mask: Any = None, causal: bool = False) -> None:
    """O and dO by the kernel alone, and by PyTorch's operator and the kernel, with a reverse graph and without."""
    q, k, v = tensors[:3]
    scale = q.shape[-1] ** -0.5
    assert flash.source(q, k, v, masked=mask is not None, causal=causal, tf32=True, graph=True) != "chunks"
    o, do = reference(tensors, mask, causal, scale)
    alone = flash.output_and_tangent(*tensors, mask=mask, causal=causal, scale=scale, tf32=True)
    for mine, d_mine in (alone, derived(tensors, mask, causal, scale), derived(tensors, mask, causal, scale, True)):
        assert mine.dtype == d_mine.dtype == q.dtype
        errors = error(mine, o), error(d_mine, do)
        assert max(errors) < TOLERANCE[q.dtype], errors


@DTYPES
@pytest.mark.parametrize("d", [32, 40, 64, 72, 128, 160, 256])
@pytest.mark.parametrize("e", [64, None])
def test_head_dimensions(d: int, e: int | None, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and d > primal.WIDEST_TF32:
        q = torch.empty(1, 1, 1, d, device="cuda")
        assert flash.source(q, q, q, tf32=True, graph=False) == "chunks"
    else:
        check(six(d, e, dtype=dtype))


@DTYPES
@pytest.mark.parametrize(("n", "m"), [(1, 1000), (1000, 77), (256, 256), (4096, 2048), (65, 1)])
def test_any_two_lengths(n: int, m: int, dtype: torch.dtype) -> None:
    tensors = six(64, dtype=dtype, n=n, m=m)
    if m == 1:  # P = 1: dO = dV, all else cancels
        for _, do in (
            flash.output_and_tangent(*tensors, mask=None, causal=False, scale=0.125, tf32=True),
            derived(tensors, None, False, 0.125),
        ):
            assert torch.allclose(do.float(), tensors[-1].float().expand(-1, -1, n, -1), atol=2e-2)
    else:
        check(tensors)


@DTYPES
@pytest.mark.parametrize("shape", [(2, 1, 1, 77), (1, 1, 333, 77), (2, 4, 333, 77), (77,)], ids=str)
def test_masks(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = six(64, dtype=dtype, m=77)
    (mask,) = draws(shape, dtype=dtype, seed=1)
    check(tensors, mask=mask)
    check(tensors, mask=mask.masked_fill(mask > 0.8, float("-inf")))
    check(tensors, mask=mask > -0.6)


@DTYPES
def test_rows_that_see_nothing_are_zero(dtype: torch.dtype) -> None:
    mask = torch.ones(333, 77, dtype=torch.bool, device="cuda")
    mask[5] = False
    tensors = six(64, dtype=dtype, m=77)
    alone = flash.output_and_tangent(*tensors, mask=mask, causal=False, scale=0.1, tf32=True)
    for x in (*alone, *derived(tensors, mask, False, 0.1)):
        assert not x[:, :, 5].any()
        assert torch.isfinite(x).all()


@DTYPES
@pytest.mark.parametrize("keys", [1, 2, 4])
@pytest.mark.parametrize("m", [333, 100, 500])
def test_causal_and_grouped_queries(keys: int, m: int, dtype: torch.dtype) -> None:
    check(six(64, dtype=dtype, keys=keys, m=m), causal=True)
    check(six(64, dtype=dtype, keys=keys, m=m))


@DTYPES
@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_a_missing_tangent_is_zero(kept: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = six(72, dtype=dtype)
    check([*tensors[:3], *(d if i in kept else None for i, d in enumerate(tensors[3:]))])


@DTYPES
def test_strides_of_transposed_and_sliced_tensors(dtype: torch.dtype) -> None:
    qkv, dqkv = draws((2, 130, 3 * 4 * 64), (2, 130, 3 * 4 * 64), dtype=dtype)
    q, k, v, dq, dk, dv = (
        x.unflatten(-1, (4, 64)).transpose(1, 2) for big in (qkv, dqkv) for x in big.chunk(3, dim=-1)
    )
    check([q, k, v, dq.contiguous(), dk.mT.contiguous().mT, dv[:, :1].expand(2, 4, 130, 64)])


def test_nothing_beyond_the_edges_is_read_or_written() -> None:
    padded = [torch.full((1, 1, 96, 64), float("nan"), device="cuda", dtype=torch.float16) for _ in range(6)]
    inner = [x[:, :, 3:80, 5:45] for x in padded]
    for x, values in zip(inner, draws(*[(1, 1, 77, 40)] * 6, dtype=torch.float16), strict=True):
        x.copy_(values)
    check(inner)


def test_many_heads() -> None:
    """More programs than the second axis of a grid takes."""
    tensors = six(16, dtype=torch.bfloat16, b=9000, h=8, n=5, m=5)
    check(tensors)


def test_float32_is_exact_only_without_the_kernel() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    q = torch.empty(1, 1, 4, 64, device="cuda")
    assert flash.source(q, q, q, graph=False) == "chunks"


OPERATORS = {  # d, keys, m, mask, causal: what gives O in half precision
    (64, 4, 333, False, False): "flash",
    (64, 2, 77, False, False): "flash",
    (64, 4, 333, False, True): "flash",
    (64, 4, 77, True, False): "efficient",
    (64, 4, 77, False, True): "kernel",
    (64, 2, 77, True, False): "kernel",
    (36, 4, 77, False, False): "kernel",
}


@pytest.mark.parametrize("case", OPERATORS, ids=str)
def test_the_operator_takes_what_it_is_chosen_for(case: tuple[Any, ...]) -> None:
    d, keys, m, masked, causal = case
    tensors = six(d, dtype=torch.bfloat16, keys=keys, m=m)
    settings: Any = {"masked": masked, "causal": causal, "graph": True}
    assert flash.source(*tensors[:3], **settings) == OPERATORS[case]
    check(tensors, mask=torch.rand(2, 1, 1, m, device="cuda") > 0.3 if masked else None, causal=causal)


@DTYPES
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("m", [333, 77])
def test_the_logsumexp_is_that_of_the_rows(m: int, masked: bool, dtype: torch.dtype) -> None:
    tensors = six(64, dtype=dtype, m=m)
    q, k, v = tensors[:3]
    by = flash.source(q, k, v, masked=masked, tf32=True, graph=False)
    mask = primal.additive(torch.rand(2, 1, 1, m, device="cuda") > 0.3, dtype, m) if masked else None
    _, lse = primal.output(by, q, k, v, mask, causal=False, scale=0.125)
    S = 0.125 * q.double() @ k.double().mT
    expected = (S if mask is None else S + mask.double()).logsumexp(-1)
    assert lse.shape == expected.shape
    assert torch.allclose(lse.double(), expected, atol=1e-4 if dtype != torch.float32 else 5e-3)


def test_kernels_are_compiled_ahead() -> None:
    tensors = six(48, dtype=torch.bfloat16)
    with flash_launch.recording() as calls:
        _, do = derived(tensors, None, False, 0.125)
    assert not do.any()
    assert flash_launch.compile_all(calls, Silent()) == len(calls[0].tiles(torch.cuda.get_device_capability())) > 0
    check(tensors)


@DTYPES
@pytest.mark.parametrize("graph", [False, True])
def test_the_compiler_traces_it_whole(graph: bool, dtype: torch.dtype) -> None:
    tensors = six(64, dtype=dtype)
    mask = torch.rand(2, 1, 1, 333, device="cuda") > 0.3

    def f(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with fwAD.dual_level(), TangentMode():
            duals = (fwAD.make_dual(x + 1, d) for x, d in zip(tensors[:3], tensors[3:], strict=True))
            attend = torch.nn.functional.scaled_dot_product_attention
            o, do = fwAD.unpack_dual(attend(*duals, attn_mask=mask))
            return 2 * o, 2 * do.detach()

    leaves = [x.requires_grad_(graph) for x in tensors[:3]]
    results = []
    for function in (f, torch.compile(f, fullgraph=True)):
        o, do = function(*leaves, *tensors[3:])
        results.append([o, do, *(torch.autograd.grad(o.float().square().sum(), leaves) if graph else ())])
    for eager, compiled in zip(*results, strict=True):
        assert error(compiled.detach(), eager.detach().double()) < 2e-2
