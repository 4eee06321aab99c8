"""A small classifier of digits, whose features measure distances between digits; `make_digits` trained it."""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

WEIGHTS = Path(__file__).parent / "digits" / "classifier.safetensors"
SIZE = 8  # pixels a side


def untrained() -> nn.ModuleDict:
    """`body`, from images (N, 1, 8, 8) in [-1, 1] to features (N, 64), and `head`, from them to logits (N, 10)."""
    body = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, 64), nn.ReLU()),
    )
    return nn.ModuleDict({"body": body, "head": nn.Linear(64, 10)})


def trained(weights: Path = WEIGHTS) -> nn.ModuleDict:
    """The classifier with its weights, in evaluation mode."""
    net = untrained()
    net.load_state_dict(load_file(weights))
    return net.eval().requires_grad_(False)
