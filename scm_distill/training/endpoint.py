"""How far samples of one and two steps are from the teacher's ODE endpoints, for the student and its teacher."""

import torch
from torch import Tensor

from scm_distill.artifacts.run_records import Endpoints
from scm_distill.evaluation.metrics import block_features, frechet
from scm_distill.maths.clocks import spaced
from scm_distill.maths.cond import Cond
from scm_distill.maths.sampling import few_step, ode
from scm_distill.models import low_pass
from scm_distill.models.network import Network


@torch.no_grad()
def sample(network: Network, eps: Tensor, cond: Cond, times: tuple[float, ...]) -> Tensor:
    """x_0 (N, ...), a step at each of `times`, from draws eps (len(times) or more, N, ...) ~ N(0, I)."""
    x_T, *noise = (network.sigma_d * draw for draw in eps[: len(times)])
    return few_step(lambda x, t: network(x, t, cond), x_T, times, noise, network.sigma_d)


@torch.no_grad()
def endpoint(network: Network, eps: Tensor, cond: Cond, t_max: float, steps: int) -> Tensor:
    """x_0 (N, ...), the ODE endpoints of the original teacher, low-pass off, in `steps` from eps (N, ...) ~ N(0, I)."""
    times = spaced(network.clock, t_max, steps)
    with low_pass.original(network.net):
        return ode(lambda x, t: network(x, t, cond), network.sigma_d * eps, times, network.sigma_d)


class Comparison:
    """Measures networks on the same noise eps (2, N, ...) and conditions, sampled at `times` (t_max, t_mid).

    `endpoint` (N, ...) are the teacher's ODE endpoints from eps[0] in `steps`; `teacher` the figures of the undistilled
    teacher itself when it samples in one and two steps.
    """

    def __init__(self, teacher: Network, eps: Tensor, cond: Cond, times: tuple[float, float], steps: int) -> None:
        self.eps, self.cond, self.times = eps, cond, times
        self.endpoint = endpoint(teacher, eps[0], cond, times[0], steps)
        self.reference = block_features(self.endpoint)
        with low_pass.original(teacher.net):
            self.teacher, _ = self.measure(teacher)

    def measure(self, network: Network) -> tuple[Endpoints, tuple[Tensor, Tensor]]:
        """The figures of a network, and its samples in one and in two steps."""
        one = sample(network, self.eps, self.cond, self.times[:1])
        two = sample(network, self.eps, self.cond, self.times)
        rmse = float((one - self.endpoint).square().mean().sqrt()) / network.sigma_d
        distances = [
            frechet(self.reference, block_features(x)) if x.isfinite().all() else float("nan") for x in (one, two)
        ]
        return Endpoints(rmse=rmse, one_step=distances[0], two_steps=distances[1]), (one, two)

    def worse(self, student: Endpoints) -> bool:
        """Whether the student is worse than the undistilled teacher in one step or in two (a NaN is)."""
        return not (student.one_step <= self.teacher.one_step and student.two_steps <= self.teacher.two_steps)
