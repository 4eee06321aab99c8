"""Every rule against PyTorch's own forward AD, in float64, and its primal against the plain function."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scm_distill.autodiff.forward_ad import TangentMode
from scm_distill.autodiff.rules import RULES

F, T = torch.nn.functional, torch.Tensor
TRANSPOSED = F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d
Call = tuple[list[Any], list[int], dict[str, Any]]  # arguments, which of them may move, keyword arguments


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tail(*shape: int) -> torch.Tensor:
    """Away from zero: a divisor."""
    return draw(*shape, seed=5).abs() + 0.5


def turned(*shape: int) -> torch.Tensor:
    """Not contiguous: channels are the last axis in memory."""
    return draw(shape[0], *shape[2:], shape[1], seed=3).movedim(-1, 1)


TWO = [
    ([draw(3, 4, 5), draw(3, 5, 2, seed=1)], [0, 1], {}),
    ([draw(4, 5), draw(3, 5, 2, seed=1)], [0, 1], {}),
    ([draw(3, 4, 5), draw(5, seed=1)], [0, 1], {}),
    ([turned(3, 4, 5), draw(3, 5, 2, seed=1)], [0, 1], {}),
]
POINTWISE = [
    ([draw(3, 4), tail(3, 4)], [0, 1], {}),
    ([draw(3, 1, 4), tail(2, 1)], [0, 1], {}),
    ([draw(4), tail(2, 3, 1)], [0, 1], {}),
    ([draw(), tail(3, 4)], [0, 1], {}),
    ([draw(3, 4), 2.5], [0], {}),
    ([draw(3, 4).float(), tail(3, 4)], [0, 1], {}),
    ([draw(3, 4), torch.arange(1, 5)], [0], {}),
    ([draw(3, 4).float(), torch.tensor(1.5, dtype=torch.float64)], [0], {}),
]
FLAT = [([draw(4, 5), draw(5, 2, seed=1)], [0, 1], {})]
SCALED = [([draw(3, 4), draw(4, seed=1)], [0, 1], {"alpha": -0.7}), ([draw(3, 4), 2], [0], {"alpha": 3})]
ROUNDED = [([draw(3, 4), 2.5], [0], {"rounding_mode": "floor"})]
EINSUM = [
    (["bij,bjk->bik", draw(2, 3, 4), draw(2, 4, 5, seed=1)], [1, 2], {}),
    (["bij,jk,bkl->bil", draw(2, 3, 4), draw(4, 5, seed=1), draw(2, 5, 2, seed=2)], [1, 2, 3], {}),
    (["nchw->nhwc", draw(2, 3, 4, 5)], [1], {}),
]
ADDMM = [([draw(3, 5), draw(3, 4, seed=1), draw(4, 5, seed=2)], [0, 1, 2], {})]
ADDMM += [([draw(5), *ADDMM[0][0][1:]], [0, 1, 2], {"beta": 0.5, "alpha": -2.0})]
BADDBMM = [
    ([draw(2, 3, 5), draw(2, 3, 4, seed=1), draw(2, 4, 5, seed=2)], [0, 1, 2], {}),
    ([draw(1, 3, 5), draw(2, 3, 4, seed=1), draw(2, 4, 5, seed=2)], [0, 1, 2], {"beta": 0.5, "alpha": -2.0}),
]
LINEAR = [([draw(2, 3, 4), draw(5, 4, seed=1), draw(5, seed=2)], [0, 1, 2], {})]
LINEAR += [([draw(4), draw(5, 4, seed=1)], [0, 1], {})]


def convolution(dims: int, *, transposed: bool) -> list[Call]:
    size = (6, 5, 4)[:dims]
    shape = (4, 2) if transposed else (6, 2)
    weight, bias = draw(*shape, *[3] * dims, seed=1), draw(4 if transposed else 6, seed=2)
    options = {"stride": 2, "padding": 1, "groups": 2}
    return [
        ([draw(2, 4, *size), weight, bias], [0, 1, 2], options),
        ([turned(2, 4, *size), weight, None], [0, 1], options),
    ]


NORMALIZED = [
    ([draw(2, 3, 4), (4,), draw(4, seed=1), draw(4, seed=2), 1e-3], [0, 2, 3], {}),
    ([draw(2, 3, 4), (3, 4)], [0], {"eps": 1e-2}),
    ([turned(2, 3, 4), (4,), draw(4, seed=1)], [0, 2], {}),
]
GROUPED = [
    ([draw(2, 6, 4, 5), 3, draw(6, seed=1), draw(6, seed=2), 1e-3], [0], {}),
    ([turned(2, 6, 4, 5), 2], [0], {"eps": 1e-2}),
    ([draw(2, 6), 2, draw(6, seed=1)], [0], {}),
]
RMS = [
    ([draw(2, 3, 4), (4,), draw(4, seed=1), 1e-3], [0], {}),
    ([draw(2, 3, 4), [3, 4]], [0], {}),
    ([turned(2, 3, 4), (4,)], [0], {}),
]
SOFTMAX = [
    ([draw(2, 3, 4), -1], [0], {}), ([turned(2, 3, 4)], [0], {"dim": 1}),
    ([draw(3, 4).float(), 0], [0], {"dtype": torch.float64}),
]  # fmt: skip
ATTENTION = [([draw(1, 2, 4, 3), draw(1, 2, 5, 3, seed=1), draw(1, 2, 5, 3, seed=2)], [0, 1, 2], {})]

CALLS: dict[Any, list[Call]] = {
    F.scaled_dot_product_attention: ATTENTION,
    F.layer_norm: NORMALIZED,
    F.group_norm: GROUPED,
    F.rms_norm: RMS,
    F.silu: [([draw(3, 4)], [0], {}), ([turned(2, 3, 4)], [0], {})],
    F.gelu: [([draw(3, 4)], [0], {}), ([turned(2, 3, 4)], [0], {"approximate": "tanh"})],
    torch.einsum: EINSUM,
    F.linear: LINEAR,
    torch.addmm: ADDMM,
    torch.baddbmm: BADDBMM,
    **{f: convolution(n, transposed=False) for n, f in enumerate((torch.conv1d, torch.conv2d, torch.conv3d), 1)},
    **{f: convolution(n, transposed=True) for n, f in enumerate(TRANSPOSED, 1)},
    **dict.fromkeys((torch.matmul, T.matmul), TWO),
    **dict.fromkeys((torch.bmm, T.bmm), TWO[:1]),
    **dict.fromkeys((torch.mm, T.mm), FLAT),
    **dict.fromkeys((torch.mul, T.mul, torch.multiply, T.multiply), POINTWISE),
    **dict.fromkeys((torch.add, T.add, torch.sub, T.sub), POINTWISE + SCALED),
    **dict.fromkeys((torch.div, T.div), POINTWISE + ROUNDED),
    **dict.fromkeys((F.softmax, torch.softmax, T.softmax), SOFTMAX),
}


def cases() -> list[Any]:
    """Every call of every function, with each choice of the arguments that move."""
    found = []
    for n, (function, calls) in enumerate(CALLS.items()):
        for i, (args, movable, kwargs) in enumerate(calls):
            sizes = range(1, len(movable) + 1)
            for moving in itertools.chain.from_iterable(itertools.combinations(movable, size) for size in sizes):
                if all(isinstance(args[j], torch.Tensor) for j in moving):
                    name = f"{n}-{getattr(function, '__name__', 'function')}-{i}-{'+'.join(map(str, moving))}"
                    found.append(pytest.param(function, args, moving, kwargs, id=name))
    return found


def test_every_rule_is_tested_here() -> None:
    assert CALLS.keys() == RULES.keys()


def leaves_of(args: list[Any]) -> list[Any]:
    return [x.detach().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]


def gradients(y: torch.Tensor, leaves: list[Any]) -> tuple[torch.Tensor | None, ...]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    floats = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
    return torch.autograd.grad(y, floats, weights, allow_unused=True)


def derived(
    f: Callable[..., Any], args: list[Any], tangents: dict[int, torch.Tensor], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Primal and tangent by plain forward AD."""
    with fwAD.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        given = [fwAD.make_dual(x, tangents[i]) if i in tangents else x for i, x in enumerate(args)]
        return fwAD.unpack_dual(f(*given, **kwargs))


def in_mode(f: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with TangentMode():
            return f(*args, **kwargs)

    return run


@pytest.mark.parametrize(("function", "args", "moving", "kwargs"), cases())
def test_the_rule_is_forward_ad(
    function: Any, args: list[Any], moving: tuple[int, ...], kwargs: dict[str, Any]
) -> None:
    tangents = {i: torch.cos(3 * args[i]) + 0.1 for i in moving}
    copied = copy.deepcopy(tangents)
    whole = function is not F.group_norm  # whose own forward derivative takes nothing that is not contiguous
    plain = args if whole else [x.contiguous() if isinstance(x, torch.Tensor) else x for x in args]
    y, dy = derived(function, plain, {i: d if whole else d.contiguous() for i, d in tangents.items()}, kwargs)
    leaves = leaves_of(args)
    grads = gradients(function(*leaves, **kwargs), leaves)

    leaves = leaves_of(args)
    with fwAD.dual_level():
        given = [fwAD.make_dual(x, tangents[i]) if i in tangents else x for i, x in enumerate(leaves)]
        mine, d_mine = fwAD.unpack_dual(in_mode(function)(*given, **kwargs))
        d_mine = d_mine.detach().clone()
    my_grads = gradients(mine, leaves)
    assert (mine.dtype, mine.shape) == (d_mine.dtype, d_mine.shape) == (y.dtype, y.shape)
    tolerance = 1e-10 if all(args[i].dtype == torch.float64 for i in moving) else 1e-6
    assert torch.allclose(mine, y, rtol=0, atol=1e-12)
    assert torch.allclose(d_mine, dy, rtol=tolerance, atol=tolerance)
    for a, b in zip(my_grads, grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-6, atol=1e-10)
    assert all(torch.equal(tangents[i], d) for i, d in copied.items()), "a tangent was changed in place"


FIRST = [
    pytest.param(function, args, movable[0], kwargs, id=f"{n}-{getattr(function, '__name__', 'function')}-{i}")
    for n, (function, calls) in enumerate(CALLS.items())
    for i, (args, movable, kwargs) in enumerate(calls)
    if "rounding_mode" not in kwargs and "dtype" not in kwargs
]


@pytest.mark.parametrize(("function", "args", "moving", "kwargs"), FIRST)
def test_the_tangent_has_no_reverse_graph(function: Any, args: list[Any], moving: int, kwargs: dict[str, Any]) -> None:
    leaves = [x.detach().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]
    tangent = torch.ones_like(leaves[moving])
    with fwAD.dual_level():
        given = [fwAD.make_dual(x, tangent) if i == moving else x for i, x in enumerate(leaves)]
        y, dy = fwAD.unpack_dual(in_mode(function)(*given, **kwargs))
        assert y.requires_grad
        assert not dy.requires_grad


def conditioned() -> list[tuple[Any, list[Any]]]:
    x = draw(2, 6, 4, 4).float()
    return [
        (F.linear, [draw(3, 4).float(), draw(5, 4).float(), draw(5).float()]),
        (torch.conv2d, [x, draw(3, 6, 3, 3).float(), draw(3).float()]),
        (torch.matmul, [draw(3, 4).float(), draw(4, 5).float()]),
        (torch.einsum, ["ij,jk->ik", draw(3, 4).float(), draw(4, 5).float()]),
        (torch.addmm, [draw(5).float(), draw(3, 4).float(), draw(4, 5).float()]),
        (torch.mul, [x, draw(4).float()]),
        (torch.mul, [x.bfloat16(), draw(4).float()]),
        (torch.add, [x.bfloat16(), draw(4).float()]),
        (torch.div, [x.bfloat16(), 3.0]),
        (F.layer_norm, [x, (4,), draw(4).float(), draw(4).float()]),
        (F.layer_norm, [x.bfloat16(), (4, 4), draw(4, 4).float(), draw(4, 4).float()]),
        (F.group_norm, [x.bfloat16(), 3, draw(6).float(), draw(6).float()]),
        (F.rms_norm, [x.bfloat16(), (4,), draw(4).bfloat16(), 1e-3]),
        (F.silu, [x.bfloat16()]),
        (F.gelu, [x]),
        (F.softmax, [x.bfloat16(), -1]),
        (F.scaled_dot_product_attention, [x, x, x]),
    ]


@pytest.mark.parametrize("case", range(len(conditioned())))
def test_under_autocast_a_rule_changes_neither_value_nor_dtype(case: int) -> None:
    function, args = conditioned()[case]
    first = next(i for i, x in enumerate(args) if isinstance(x, torch.Tensor))
    tangent = torch.cos(args[first])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        plain = function(*args)
        with fwAD.dual_level():
            given = [fwAD.make_dual(x, tangent) if i == first else x for i, x in enumerate(args)]
            y, dy = fwAD.unpack_dual(in_mode(function)(*given))
    assert y.dtype == dy.dtype == plain.dtype
    assert torch.allclose(y.float(), plain.float(), rtol=1e-2, atol=1e-2)
    wide = [x.double() if isinstance(x, torch.Tensor) else x for x in args]
    _, expected = derived(function, wide, {first: tangent.double()}, {})
    assert (dy.double() - expected).norm() / expected.norm() < 2e-2


def test_rms_norm_without_epsilon_takes_the_one_of_torch() -> None:
    x, dx = (0.03 * draw(3, 8, seed=seed).bfloat16() for seed in (0, 1))
    with fwAD.dual_level(), torch.no_grad():
        dy = fwAD.unpack_dual(in_mode(F.rms_norm)(fwAD.make_dual(x, dx), (8,))).tangent
    _, expected = derived(F.rms_norm, [x, (8,)], {0: dx}, {})
    assert torch.allclose(dy, expected, rtol=2e-2, atol=1e-2)


def test_silu_in_place_changes_its_argument_and_its_tangent() -> None:
    x, dx = draw(3, 4), draw(3, 4, seed=1)
    with fwAD.dual_level(), torch.no_grad():
        changed = fwAD.make_dual(x.clone(), dx.clone())
        result = in_mode(F.silu)(changed, inplace=True)
        assert result is changed
        y, dy = fwAD.unpack_dual(changed)
    expected, d_expected = derived(F.silu, [x], {0: dx}, {})
    assert torch.allclose(y, expected)
    assert torch.allclose(dy, d_expected)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (F.linear, [draw(8, 4), draw(5, 4), draw(5)]),
        (torch.conv2d, [draw(2, 3, 8, 8), draw(4, 3, 3, 3), draw(4)]),
        (F.conv_transpose2d, [draw(2, 3, 8, 8), draw(3, 4, 3, 3), draw(4)]),
        (torch.matmul, [draw(3, 4, 5), draw(5, 6)]),
        (torch.bmm, [draw(3, 4, 5), draw(3, 5, 6)]),
        (torch.einsum, ["bij,jk->bik", draw(3, 4, 5), draw(5, 6)]),
        (torch.addmm, [draw(6), draw(4, 5), draw(5, 6)]),
    ],
)
def test_a_product_by_a_constant_costs_two_products(function: Any, args: list[Any]) -> None:
    def flops(f: Callable[..., Any], *given: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            f(*given)
        return int(counter.get_total_flops())

    moving = 1 if function in (torch.einsum, torch.addmm) else 0
    with fwAD.dual_level(), torch.no_grad():
        given = [fwAD.make_dual(x, torch.ones_like(x)) if i == moving else x for i, x in enumerate(args)]
        spent = flops(in_mode(function), *given)
    assert spent == 2 * flops(function, *args)
