"""Batches made ahead, which samples they hold, and figures read late."""

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from scm_distill.data import open_images
from scm_distill.training.batches import BatchSource, prefetch, read_samples
from scm_distill.training.metrics import DeferredMetrics
from scm_distill.training.randomness import Draws


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


def draw(first: int, rank: int, world: int, micro: int, count: int) -> list[list[float]]:
    images = open_images("builtin:digits/data.npz", (1, 8, 8))
    stream = read_samples(images, batch=8, micro=micro, rank=rank, world=world, seed=3, first=first, workers=0)
    return [x_0.flatten(1).sum(1).tolist() for x_0, _ in (next(stream) for _ in range(count))]


def test_the_batch_of_a_step_depends_on_nothing_but_the_step() -> None:
    assert draw(0, 0, 1, 8, 5)[3:] == draw(3, 0, 1, 8, 2)


def test_processes_and_accumulation_share_out_the_same_batch() -> None:
    whole = draw(2, 0, 1, 8, 1)[0]
    assert [x for part in draw(2, 0, 1, 4, 2) for x in part] == whole
    halves = [draw(2, rank, 2, 4, 1)[0] for rank in (0, 1)]
    assert [x for pair in zip(*halves, strict=True) for x in pair] == whole


def test_an_epoch_sees_every_image_once() -> None:
    images = open_images("builtin:digits/data.npz", (1, 8, 8))
    size = len(images)
    stream = read_samples(images, batch=size, micro=size, rank=0, world=1, seed=0, first=0, workers=0)
    (a, _), (b, _) = next(stream), next(stream)
    key = [sorted(map(tuple, x.flatten(1).tolist())) for x in (a, b)]
    assert key[0] == key[1]
    assert not torch.equal(a, b)


def test_the_micro_batches_of_a_step_are_its_samples_mirrored_where_drawn_with_its_noise_and_times() -> None:
    draws = Draws(
        seed=3, shape=(1, 8, 8), batch=8, micro=4, rank=0, world=1, P_mean=-0.8, P_std=1.6, sigma_d=0.5, t_min=0.01,
        t_max=1.5, flip=True,
    )  # fmt: skip
    images = open_images("builtin:digits/data.npz", (1, 8, 8))
    source = BatchSource(draws, images, lambda ids, chance: {"ids": ids, "chance": chance}, 0, pin=False)  # type: ignore[arg-type]
    found = next(source.steps("train", 3, 2))
    drawn = list(draws.step("train", 2))
    samples = read_samples(images, batch=8, micro=4, rank=0, world=1, seed=3, first=2, workers=0)
    assert len(found) == len(drawn) == 2
    assert 0 < sum(int(flip.sum()) for _, _, flip, _ in drawn) < 8
    for (x_0, z, t, cond), (z_drawn, t_drawn, flip, chance) in zip(found, drawn, strict=True):
        assert torch.equal(z, z_drawn)
        assert torch.equal(t, t_drawn)
        assert torch.equal(cond["chance"], chance)
        originals, ids = next(samples)
        assert torch.equal(cond["ids"], ids)
        for mine, original, mirrored in zip(x_0, originals, flip.tolist(), strict=True):
            assert torch.equal(mine, original.flip(-1) if mirrored else original)
