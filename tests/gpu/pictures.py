"""Pictures of a folder or zip of class folders as arrays, and a classifier of them whose features measure distances."""

import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FEATURES = 128  # of the classifier's last layer but one


def read(source: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, size, size, 3) uint8 and labels (N,) of class folders in a folder or a zip. Raises SystemExit."""
    images, names = [], []
    for path, data in _files(source):
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (size, size):
                raise SystemExit(f"{path} in {source} is {image.size}, not {size} x {size} pixels.")
            images.append(np.asarray(image.convert("RGB")))
        names.append(path.parent.name)
    if len(set(names)) < 2:
        raise SystemExit(f"{source} holds no class folders with pictures: give a folder or a zip of them.")
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.stack(images), np.array([numbers[name] for name in names])


def _files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.suffix.lower() in SUFFIXES:
                yield PurePosixPath(file.relative_to(source).as_posix()), file.read_bytes()
        return
    with zipfile.ZipFile(source) as packed:
        for name in sorted(packed.namelist()):
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                yield PurePosixPath(name), packed.read(name)


def as_tensor(images: np.ndarray, device: str) -> Tensor:
    """Images (N, H, W, 3) uint8 as (N, 3, H, W) uint8 on the device."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


@dataclass
class Batches:
    """Random batches (x in [-1, 1], labels) of pictures on a device, half of them mirrored."""

    pixels: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N,)
    size: int
    generator: torch.Generator  # on the device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, device = len(self.pixels), self.pixels.device
        while True:
            i = torch.randint(n, (self.size,), generator=self.generator, device=device)
            x = self.pixels[i].float() / 127.5 - 1
            mirror = torch.rand(self.size, 1, 1, 1, generator=self.generator, device=device) < 0.5
            yield torch.where(mirror, x.flip(-1), x), self.labels[i]


def classifier(width: int, classes: int) -> nn.ModuleDict:
    """`body`, from images (N, 3, H, W) in [-1, 1] to FEATURES features, and `head`, from them to logits."""

    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    w = width
    layers = [*block(3, w), *block(w, 2 * w), nn.MaxPool2d(2), *block(2 * w, 2 * w), *block(2 * w, 4 * w)]
    layers += [nn.MaxPool2d(2), *block(4 * w, 4 * w), *block(4 * w, 4 * w), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.ModuleDict(
        {"body": nn.Sequential(*layers, nn.Linear(4 * w, FEATURES)), "head": nn.Linear(FEATURES, classes)}
    )


def trained_classifier(batches: Batches, width: int, classes: int, budget: float) -> tuple[nn.Module, dict[str, Any]]:
    """The body of a classifier trained for `budget` seconds, in evaluation mode, and how well it did."""
    device = batches.pixels.device
    with torch.random.fork_rng(), torch.device(device):
        torch.random.manual_seed(0)
        net = classifier(width, classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    begin, step, right, share = time.monotonic(), 0, torch.zeros((), device=device), 0.0
    for x, y in batches:
        if step % 10 == 0:  # waits for the device, so that the clock counts what is done
            share = (time.monotonic() - begin) / budget if float(right) >= 0 else 1.0
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - share)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = net["head"](functional.relu(net["body"](x)))
        loss = functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = right.lerp((logits.argmax(1) == y).float().mean(), 0.02)
        step += 1
    net.eval().requires_grad_(False)
    facts = {"steps": step, "accuracy on its own training pictures": round(float(right), 3)}
    return net["body"], facts
