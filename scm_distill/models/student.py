"""The network that is trained: F_theta, its derivative in time, and the adaptive weight w_phi.

x         x_t / sigma_d                                        (B, ...)
t         time in radians, float32 or wider                    (B,)
cond      conditions, see maths/cond.py                        {name: (B, ...)}
"""

import torch
from torch import Tensor, nn

from scm_distill.autodiff.derivatives import Derivative, TwoPasses
from scm_distill.maths.cond import Cond
from scm_distill.models.network import Network


class Weight(nn.Module):
    """w_phi(t): a linear layer on Fourier features of ln(tan t) / 4, zero at the start (paper, section 4.2)."""

    def __init__(self, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(1, frequencies + 1) * 0.5, persistent=False)
        self.linear = nn.Linear(2 * frequencies, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """w_phi (B,)."""
        phase = (t.tan().log() / 4).float()[:, None] * self.get_buffer("frequencies")
        features = torch.cat([phase.sin(), phase.cos()], -1)
        return self.linear(features).squeeze(-1)  # type: ignore[no-any-return]


class Student(nn.Module):
    """F_theta, its derivative and w_phi from one `forward`: a DDP or FSDP2 wrapper passes nothing else through.

    `adaptive` adds w_phi. `trained` names the parameters that are trained; the others, where an adapter (LoRA) is
    trained, stay the teacher's.
    """

    def __init__(self, network: Network, *, adaptive: bool) -> None:
        super().__init__()
        self.network = network
        self.weight = Weight() if adaptive else None
        self.trained = [name for name, p in self.named_parameters() if p.requires_grad]

    def forward(
        self, x: Tensor, t: Tensor, cond: Cond, v: Tensor | None = None, derivative: Derivative | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """F_theta (B, ...), cos t sin t dF_theta/dt along dx/dt = v (B, ...) without a graph, and w_phi (B,).

        `derivative` finds the first two (default: `TwoPasses`). Without `v` the second is an empty tensor. w_phi is
        zero without `adaptive`.
        """
        w_phi = torch.zeros_like(t, dtype=torch.float32) if self.weight is None else self.weight(t)
        if v is None:
            return self.network(x, t, cond), x.new_empty(0), w_phi
        return *(derivative or TwoPasses())(self.network, x, t, cond, v), w_phi
