"""Whether the network that trains is the teacher: its predictions against what the stock call gave its scheduler."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scm_distill.errors import UserError
from scm_distill.maths.schedules import native
from scm_distill.maths.trigflow import ddim_step, denoise, like
from scm_distill.memory import out_of_memory
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.reference_steps import ReferenceStep

# Largest differences that are still agreement.
AGREE = 1e-4  # of predictions, relative; rounding is 1e-6
STEP_AGREES = 2e-3  # of a stock step in float32, relative; some pipelines round their denoiser's times to integers
TIME_AGREES = 2e-3  # of network times, as a share of their range; some pipelines round to thousandths of it


@torch.no_grad()
def verify(F: Network, teacher: Teacher) -> dict[str, float]:
    """The largest difference of each comparison with the reference steps that were recorded from the stock call.

    Empty for a teacher without any. Raises UserError, naming the first comparison that fails.
    """
    largest: dict[str, float] = {}
    for reference in teacher.reading.reference_steps if teacher.reading else ():
        try:
            compared = dict(_compare(F, reference))
        except (RuntimeError, KeyError, TypeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise _misread(teacher, f"{reference.what} call fails with {type(error).__name__}: {error}") from error
        for name, (difference, allowed) in compared.items():
            if not difference <= allowed:
                raise _misread(teacher, f"{name} differs from the stock pipeline's by {difference:.1e}")
            largest[name] = max(largest.get(name, 0.0), difference)
    return largest


def _misread(teacher: Teacher, what: str) -> UserError:
    return UserError(
        f"{teacher.name} was not understood: the {what}.",
        "Its family needs an override: see the README on teachers/families, and please report it.",
    )


def _compare(F: Network, reference: ReferenceStep) -> Iterator[tuple[str, tuple[float, float]]]:
    """The comparisons that one reference step allows: name, (difference, the largest that is allowed)."""
    x_nat, sigma_d = reference.x_nat, F.sigma_d
    t = torch.full((len(x_nat),), reference.t(sigma_d), dtype=torch.float64, device=x_nat.device)
    form = native(F.prediction, t, sigma_d)
    x_t = x_nat / like(form.rho, x_nat).to(x_nat)
    ours = form.from_F(F(x_t / sigma_d, t, reference.cond), x_t)
    yield f"{reference.what} velocity", (_relative(ours, reference.native), AGREE)
    if reference.t_of_sigma is not None and reference.tau is not None:
        tau = float(F.clock.network_time(torch.tensor(reference.t_of_sigma(sigma_d), dtype=torch.float64)))
        yield "time map", (abs(tau - reference.tau) / (1000 * F.clock.unit), TIME_AGREES)
    if reference.x_0 is not None:
        wide = x_t.double()
        x_0 = denoise(wide, form.to_F(reference.native.double(), wide), t, sigma_d)
        yield "x_0 of the stock scheduler", (_relative(x_0, reference.x_0.double()), STEP_AGREES)
    if reference.step is not None and reference.next_x_nat is not None:
        difference = _step_difference(F, reference, reference.next_x_nat, reference.step(sigma_d))
        yield "first stock step", (difference, STEP_AGREES)


def _step_difference(F: Network, reference: ReferenceStep, after: Tensor, times: tuple[float, float]) -> float:
    """A DDIM step along the stock prediction against `after`, the sample that the stock scheduler went on with."""
    t, t_next = (torch.tensor([time], dtype=torch.float64, device=after.device) for time in times)
    form = native(F.prediction, t, F.sigma_d)
    x_t = reference.x_nat.double() / like(form.rho, reference.x_nat)
    moved = ddim_step(x_t, form.to_F(reference.native.double(), x_t), t, t_next, F.sigma_d)
    return _relative(native(F.prediction, t_next, F.sigma_d).scale(moved), after.double())


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
