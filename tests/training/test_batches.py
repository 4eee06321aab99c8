"""Batches made ahead, and figures read late."""

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from scm_distill.training.batches import prefetch
from scm_distill.training.metrics import DeferredMetrics


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_items_come_in_order_each_made_while_the_one_before_is_in_use() -> None:
    made: list[int] = []
    ready = threading.Event()

    def items() -> Iterator[int]:
        for i in itertools.count():
            made.append(i)
            if i == 3:
                ready.set()
            yield i

    coming = prefetch(items())
    assert [next(coming) for _ in range(3)] == [0, 1, 2]
    assert ready.wait(10)
    assert made == [0, 1, 2, 3]
    coming.close()


def test_what_goes_wrong_while_an_item_is_made_is_raised_where_it_is_wanted() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise ValueError("a broken file")

    coming = prefetch(items())
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(ValueError, match="a broken file"):
        next(coming)
    assert not threads()


def test_closing_stops_the_thread() -> None:
    coming = prefetch(itertools.count())
    assert next(coming) == 0
    assert threads()
    coming.close()
    assert not threads()


def test_figures_come_late_and_in_order() -> None:
    late = DeferredMetrics()
    for step in range(3):
        late.put(step, torch.full((2, 3), float(step), requires_grad=True))
    assert len(late) == 3
    for step in range(3):
        at, figures = late.take()
        assert at == step
        assert torch.equal(figures, torch.full((2, 3), float(step)))
        assert not figures.requires_grad
    assert len(late) == 0
