"""Whether a student moves at all: its parameters now against those of step 0, by their sums."""

import torch

from scm_distill.models.student import Network
from scm_distill.training.parallel import whole


def fingerprint(network: Network, trained: list[str]) -> list[float]:
    """The float64 sum of every trained parameter: it shows whether a single entry of it moved.

    `trained` are names of a student, of which `network` is a part; a collective where parameters are shared out.
    """
    parameters = {f"network.{name}": p for name, p in network.named_parameters()}
    found = [parameters[name] for name in trained if name in parameters]
    return torch.stack([whole(p.detach().sum(dtype=torch.float64)) for p in found]).tolist()


def moved(now: list[float], start: list[float]) -> float:
    """The relative change from fingerprint `start` to fingerprint `now`."""
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (now, start))
    return float((a - b).norm() / b.norm())
