"""A new clock for the exported student of a pixel UNet, so that any t_mid is a step of the stock scheduler.

k   the step of the new clock, 0 to 999, the time that the exported network takes      t   TrigFlow time in radians
"""

import copy
from typing import Any

import torch
from torch import Tensor

from scm_distill.maths.clocks import DiscreteSchedule, alphas_cumprod_of
from scm_distill.maths.interpolation import MonotoneCubic
from scm_distill.models.low_pass import fold
from scm_distill.models.network import Network

CLOCK_STEPS = 1000  # of the new clock, however many the teacher has; a multiple of 8, as the stock grid needs
ITERATIONS = 1000  # of the fit of its time embedding


def clock(t_min: float, t_mid: float, t_max: float) -> Tensor:
    """t(k) (1000,), float64: monotone, t_min at k = 0, t_mid at k = 499 and t_max at k = 999."""
    nodes = torch.tensor([0.0, CLOCK_STEPS // 2 - 1, CLOCK_STEPS - 1])
    return MonotoneCubic(nodes, torch.tensor([t_min, t_mid, t_max], dtype=torch.float64))(torch.arange(CLOCK_STEPS))


def reclock(network: Network, t: Tensor, iterations: int = ITERATIONS) -> tuple[Network, float]:
    """A stock network whose clock is `t` (K,), and the relative root-mean-square error of its time embedding.

    Only the MLP of the time embedding changes: MLP_new(sinusoid(k)) is fitted to MLP_old(smooth sinusoid(k_old(t_k)))
    for all k in at most so many iterations, then its last layer is corrected so that the two sampling times,
    k = K/2 - 1 and K - 1, are exact.
    """
    old: Any = network.net
    net: Any = fold(network.net)
    k = torch.arange(len(t), device=net.device)
    with torch.no_grad():
        target = old.time_embedding(old.time_proj(network.clock.network_time(t).float().to(net.device))).double()
        features = net.time_proj(k).double()
    weight = torch.ones(len(t), 1, dtype=torch.float64, device=net.device)
    weight[[len(t) // 2 - 1, -1]] = 10.0
    mlp = copy.deepcopy(net.time_embedding).double().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        mlp.parameters(),
        max_iter=iterations,
        max_eval=iterations * 3 // 2,
        history_size=50,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    scale = (target - target.mean(0)).square().mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (weight * (mlp(features) - target).square()).mean() / scale
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        _pass_through(mlp, features[[len(t) // 2 - 1, -1]], target[[len(t) // 2 - 1, -1]])
        error = float(((mlp(features) - target).square().mean() / scale).sqrt())
    net.time_embedding = mlp.float().requires_grad_(False)  # the weights there before are the network's own
    bar = alphas_cumprod_of(t, network.sigma_d)
    return Network(net, DiscreteSchedule(bar, network.sigma_d), network.prediction, network.sigma_d), error


def _pass_through(mlp: Any, features: Tensor, target: Tensor) -> None:
    """Change the last layer of `mlp` by the least that makes mlp(features) (n, in) equal `target` (n, out)."""
    hidden = mlp.act(mlp.linear_1(features))
    ones = torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
    step = torch.linalg.lstsq(ones, target - mlp.linear_2(hidden), driver="gelsd").solution  # minimum norm
    mlp.linear_2.weight += step[:-1].mT
    mlp.linear_2.bias += step[-1]
