"""Whether the network that trains is the teacher: its predictions against what the stock call gave its scheduler."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scm_distill.errors import UserError
from scm_distill.maths.schedules import native
from scm_distill.maths.trigflow import ddim_step, denoise, like
from scm_distill.models.network import Network
from scm_distill.teachers import Teacher
from scm_distill.teachers.trace import ReferenceStep

AGREE = 1e-4  # relative; rounding is 1e-6
STEP_AGREES = 2e-3  # a stock step in float32, whose denoiser's times some pipelines round to integers


TIME_AGREES = 2e-3  # of the whole range of tau, which some pipelines round to thousandths of it


@torch.no_grad()
def verify(F: Network, teacher: Teacher) -> dict[str, float]:
    """The relative difference on every reference. Raises UserError, naming the first that does not match."""
    found: dict[str, float] = {}
    for reference in teacher.reading.reference_steps if teacher.reading else ():
        try:
            measured = dict(_compare(F, reference))
        except (RuntimeError, KeyError, TypeError, IndexError) as error:
            raise _misread(teacher, f"{reference.what} call fails with {type(error).__name__}: {error}") from error
        for name, (error_of, allowed) in measured.items():
            if not error_of <= allowed:
                raise _misread(teacher, f"{name} differs from the stock pipeline's by {error_of:.1e}")
            found[name] = max(found.get(name, 0.0), error_of)
    return found


def _misread(teacher: Teacher, what: str) -> UserError:
    return UserError(
        f"{teacher.name} was not understood: the {what}.",
        "Its family needs an override: see the README on teachers/families, and please report it.",
    )


def _compare(F: Network, reference: ReferenceStep) -> Iterator[tuple[str, tuple[float, float]]]:
    """What can be measured on one reference: name, (error, what is allowed)."""
    x_nat, sigma_d = reference.x_nat, F.sigma_d
    t = torch.full((len(x_nat),), reference.t(sigma_d), dtype=torch.float64, device=x_nat.device)
    form = native(F.prediction, t, sigma_d)
    x_t = x_nat / like(form.rho, x_nat).to(x_nat)
    ours = form.from_F(F(x_t / sigma_d, t, reference.cond), x_t)
    yield f"{reference.what} velocity", (_relative(ours, reference.native), AGREE)
    if reference.t_of_sigma is not None and reference.tau is not None:
        told = float(F.clock.network_time(torch.tensor(reference.t_of_sigma(sigma_d), dtype=torch.float64)))
        yield "time map", (abs(told - reference.tau) / (1000 * F.clock.unit), TIME_AGREES)
    if reference.x_0 is not None:
        wide = x_t.double()
        x_0 = denoise(wide, form.to_F(reference.native.double(), wide), t, sigma_d)
        yield "x_0 of the stock scheduler", (_relative(x_0, reference.x_0.double()), STEP_AGREES)
    if reference.step is not None and reference.next_x_nat is not None:
        yield (
            "first stock step",
            (_step(F, reference, reference.next_x_nat, reference.step(sigma_d)), STEP_AGREES),
        )


def _step(F: Network, reference: ReferenceStep, after: Tensor, times: tuple[float, float]) -> float:
    """A DDIM step along the stock prediction against the sample that the stock scheduler went on with."""
    t, t_next = (torch.tensor([time], dtype=torch.float64, device=after.device) for time in times)
    form = native(F.prediction, t, F.sigma_d)
    x_t = reference.x_nat.double() / like(form.rho, reference.x_nat)
    moved = ddim_step(x_t, form.to_F(reference.native.double(), x_t), t, t_next, F.sigma_d)
    return _relative(native(F.prediction, t_next, F.sigma_d).scale(moved), after.double())


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
