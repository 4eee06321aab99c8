"""Whether the network that trains is the teacher: its predictions against what the stock call gave its scheduler."""

import torch

from scm_distill.errors import UserError
from scm_distill.maths.schedules import native
from scm_distill.maths.trigflow import move
from scm_distill.models.student import Network
from scm_distill.teachers import Teacher

AGREE = 1e-4  # relative; rounding is 1e-6
STEP_AGREES = 2e-3  # a stock step in float32, whose denoiser's times some pipelines round to integers


@torch.no_grad()
def verify(F: Network, teacher: Teacher) -> dict[str, float]:
    """The relative difference on every witness. Raises UserError, naming the first that does not match."""
    found: dict[str, float] = {}
    if teacher.reading is None:
        return found
    for witness in teacher.reading.witnesses:
        device, n = witness.x_nat.device, len(witness.x_nat)
        t = torch.full((n,), witness.t(F.sigma_d), dtype=torch.float64, device=device)
        form = native(F.prediction, t, F.sigma_d)
        x_t = witness.x_nat / form.rho.reshape(-1, *[1] * (witness.x_nat.ndim - 1)).to(witness.x_nat)
        ours = form.from_F(F(x_t / F.sigma_d, t, witness.cond), x_t)
        name = f"{witness.what} velocity"
        found[name] = max(found.get(name, 0.0), _relative(ours, witness.native))
        if witness.step is not None and witness.next_x_nat is not None:
            found["first stock step"] = _step(
                F, witness.x_nat, witness.native, witness.next_x_nat, witness.step(F.sigma_d)
            )
    for name, error in found.items():
        if not error <= (STEP_AGREES if "step" in name else AGREE):
            raise UserError(
                f"{teacher.name} was not understood: the {name} differs from the stock pipeline's by {error:.1e}.",
                "Its family needs an override: see the README on teachers/families, and please report it.",
            )
    return found


def _step(F: Network, x_nat: torch.Tensor, raw: torch.Tensor, after: torch.Tensor, times: tuple[float, float]) -> float:
    """A DDIM step along the stock prediction against the sample that the stock scheduler went on with."""
    t, t_next = (torch.tensor([time], dtype=torch.float64, device=x_nat.device) for time in times)
    form = native(F.prediction, t, F.sigma_d)
    x_t = x_nat.double() / form.rho.reshape(-1, *[1] * (x_nat.ndim - 1))
    moved = move(x_t, form.to_F(raw.double(), x_t), t, t_next, F.sigma_d)
    return _relative(native(F.prediction, t_next, F.sigma_d).scale(moved), after.double())


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())
