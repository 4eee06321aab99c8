"""A measured error that is not a number never passes for a small one."""

import math

import pytest

from scm_distill.maths.compare import largest


@pytest.mark.parametrize("values", [(math.nan, 1.0), (1.0, math.nan), (0.0, math.nan, 2.0)])
def test_nan_wins_in_any_place(values: tuple[float, ...]) -> None:
    assert math.isnan(largest(*values))


def test_else_the_largest() -> None:
    assert largest(0.0, 3.0, 2.0) == 3.0
