"""Sizes in teacher.call that the stock call refuses, rounds or passes over are refused in a sentence."""

import functools
import logging
from typing import Any

import pytest
import zoo

from scm_distill.errors import UserError
from scm_distill.teachers import sizes, stock_call

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@functools.cache
def pipeline(name: str) -> Any:
    return zoo.load_all()[name].pipeline()


def check(name: str, **call: int) -> None:
    sizes.check(stock_call.drive(pipeline(name), call))


@pytest.mark.parametrize(
    ("name", "call", "why"),
    [
        ("sd15", {"height": 500, "width": 512}, "divisible by 8 but are 500 and 512"),
        ("sd15", {"height": 500}, "it takes height and width together, and height alone changes nothing"),
        ("flux", {"height": 18, "width": 16}, "divisible by 4 but are 18 and 16. Dimensions will be resized"),
        ("wan", {"height": 33, "width": 32}, "divisible by 16 but are 33 and 32"),
        ("wan", {"height": 16, "width": 16, "num_frames": 4}, "`num_frames - 1` has to be divisible by 2"),
    ],
)
def test_a_size_that_the_call_does_not_make_is_refused(name: str, call: dict[str, int], why: str) -> None:
    with pytest.raises(UserError) as refused:
        check(name, **call)
    assert why in refused.value.problem
    assert all(f"teacher.call.{size}" in refused.value.fix for size in call)


@pytest.mark.parametrize(
    ("name", "call"),
    [("sd15", {}), ("sd15", {"height": 16, "width": 32}), ("flux", {"height": 20}), ("wan", {"num_frames": 5})],
)
def test_a_size_that_the_call_makes_is_taken(name: str, call: dict[str, int]) -> None:
    check(name, **{**({"height": 16, "width": 16} if name == "wan" else {}), **call})


def test_what_listens_to_diffusers_is_as_before(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("diffusers")
    before = logger.handlers, logger.level, logger.propagate
    with pytest.raises(UserError):
        check("flux", height=18, width=16)
    assert (logger.handlers, logger.level, logger.propagate) == before
    assert not caplog.records
