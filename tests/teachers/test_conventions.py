"""What is learnt from the arguments of calls: halves that are always there, masks that come and go, several times."""

import pytest
import torch

from scm_distill.teachers import halves
from scm_distill.teachers.convention import Unclear, learn, learn_optional, learn_times
from scm_distill.teachers.trace import Call, Step, Trace


class Cache:
    """An object that each call makes anew."""

    def __init__(self, kept: object = None) -> None:
        self.kept = [kept]


def halved_call(n: int, w: float = 1.0, *, conditional: int = 1) -> Trace:
    """One step of a call for `n` samples (n, 3) that evaluates u and c, in an order, and gives u + w (c - u)."""
    g = torch.Generator().manual_seed(n)
    x, texts, output = (torch.randn(2 * n, size, generator=g) for size in (3, 5, 3))
    parts = output.chunk(2)
    c, u = parts[conditional], parts[1 - conditional]
    arguments = {"x": x, "t": torch.ones(2 * n), "nested": {"text": texts}, "ids": torch.zeros(7)}
    return Trace(steps=[Step([Call("net", arguments, (output,))], u + w * (c - u), x[:n])])


@pytest.mark.parametrize("conditional", [0, 1])
def test_the_conditional_half_is_found_by_what_the_scheduler_is_given(conditional: int) -> None:
    one, two = (halved_call(n, conditional=conditional) for n in (1, 2))
    found = halves.find(one, two)
    assert found is not None
    assert found.second is bool(conditional)
    assert found.dims == {"x": 0, "t": 0, "nested.text": 0}
    call, half = two.steps[0].calls[0], found.conditional(two).steps[0].calls[0]
    rows = slice(2, 4) if conditional else slice(0, 2)
    assert torch.equal(half.arguments["nested"]["text"], call.arguments["nested"]["text"][rows])
    torch.testing.assert_close(half.output[0], two.steps[0].model_output)
    assert half.arguments["ids"] is call.arguments["ids"]


def test_what_is_no_single_half_is_not_read_as_one() -> None:
    assert halves.find(halved_call(1, w=1.5), halved_call(2, w=1.5)) is None


def test_a_mask_that_comes_with_padding_is_an_input_where_there_is_one() -> None:
    one = {"x": torch.zeros(1, 3), "t": torch.ones(1), "kwargs": {}, "cache": Cache()}
    two = {"x": torch.zeros(2, 3), "t": torch.ones(2), "kwargs": {}, "cache": Cache()}
    padded = {**two, "kwargs": {"mask": torch.tensor([[True, True], [True, False]])[:, None]}}
    convention = learn(one, two, "x", "t", (3,))
    learn_optional(convention, one, padded)
    assert convention.optional == {"kwargs.mask": 0}
    assert convention.cond(one) == {}
    cond = convention.cond(padded)
    assert list(cond) == ["kwargs.mask"]
    seen: list[dict[str, object]] = []
    net = torch.nn.Module()
    net.forward = lambda **given: seen.append(given) or given["x"]  # type: ignore[assignment,func-returns-value]
    convention(net, torch.zeros(2, 3), torch.ones(2), cond)
    convention(net, torch.zeros(2, 3), torch.ones(2), {})
    assert torch.equal(seen[0]["kwargs"]["mask"], padded["kwargs"]["mask"])  # type: ignore[index]
    assert seen[1]["kwargs"] == {}


def test_caches_that_differ_are_not_taken_for_one() -> None:
    one = {"x": torch.zeros(1, 3), "t": torch.ones(1), "cache": Cache(torch.ones(2))}
    with pytest.raises(Unclear, match="its argument cache"):
        learn(one, {"x": torch.zeros(2, 3), "t": torch.ones(2), "cache": Cache(torch.zeros(2))}, "x", "t", (3,))


def test_an_argument_that_equals_the_time_in_two_steps_is_told_the_time() -> None:
    first = {"x": torch.zeros(1, 3), "t": torch.ones(1), "r": torch.ones(1), "size": torch.ones(1)}
    two = {"x": torch.zeros(2, 3), "t": torch.ones(2), "r": torch.ones(2), "size": torch.ones(2)}
    convention = learn(first, two, "x", "t", (3,))
    learn_times(convention, first, {**first, "t": torch.tensor([0.5]), "r": torch.tensor([0.5])})
    assert convention.times == {"r"}
    assert set(convention.batched) == {"size"}
