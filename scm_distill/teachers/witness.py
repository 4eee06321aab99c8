"""What a stock call showed, kept to hold a network against it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Witness:
    """One step of a stock call: what its denoiser was given, and what its scheduler was given."""

    what: str
    x_nat: Tensor  # (1, ...)
    t: Callable[[float], float]  # of sigma_d, by what the denoiser was told
    cond: dict[str, Tensor]  # with w and the unconditional half where guidance was on
    native: Tensor  # the native prediction as the scheduler was given it
    next_x_nat: Tensor | None = None  # after the scheduler's step, where that is a DDIM step
    step: Callable[[float], tuple[float, float]] | None = None  # of sigma_d: its times, by the scheduler's own sigmas
    tau: float | None = None  # what the denoiser was told
    t_of_sigma: Callable[[float], float] | None = None  # of sigma_d, where the scheduler keeps a sigma
    x_0: Tensor | None = None  # what the scheduler took for it, where it says so and does not clip
