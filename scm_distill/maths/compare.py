"""Comparing measured errors so that one which is not a number never passes for a small one."""

import math


def largest(*values: float) -> float:
    """The largest of `values`, NaN where one is NaN: `max` drops a NaN that does not come first."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)
