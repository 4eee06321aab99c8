"""Make the packaged digits data, teacher and classifier again: `python -m scm_distill.builtin.make_digits OUT`.

The data are the 1797 real 8x8 handwritten digits of `sklearn.datasets.load_digits`; the teacher is an ordinary
DDPMPipeline (UNet2DModel, epsilon prediction, 1000 linear steps, integer time) trained on them, the classifier a small
CNN whose features measure distances between digits. One thread and fixed seeds: the same machine writes the same bytes
again.
"""

import argparse
import json
import platform
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from torch import nn

from scm_distill.builtin.classifier import untrained

STEPS, BATCH, LR, WARMUP, SEED = 4000, 128, 2e-3, 200, 0
EMA_DECAY = 0.999
CLASSIFIER_STEPS, CLASSIFIER_LR, HELD_OUT = 800, 1e-3, 5  # every fifth digit only tests the classifier


def write_data(path: Path) -> None:
    """Write images (1797, 8, 8) as uint8, the original levels 0..16 scaled to 0..255, with their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    np.savez_compressed(path, images=images, labels=digits.target.astype(np.uint8))


def train(data: Path) -> DDPMPipeline:
    """Train the teacher with diffusers alone: epsilon loss, AdamW, cosine decay, EMA of the weights."""
    images = torch.from_numpy(np.load(data)["images"]).float()[:, None] / 127.5 - 1
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.random.manual_seed(SEED)
        net = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        )
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    ema = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=1e-4)
    decay = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=STEPS, pct_start=WARMUP / STEPS, cycle_momentum=False
    )
    for step in range(STEPS):
        x_0 = images[torch.randint(len(images), (BATCH,), generator=generator)]
        noise = torch.randn(x_0.shape, generator=generator)
        index = torch.randint(1000, (BATCH,), generator=generator)
        predicted = net(scheduler.add_noise(x_0, noise, index), index).sample
        loss = (predicted - noise).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        ema.update_parameters(net)
        if step % 100 == 0:
            print(json.dumps({"step": step, "loss": round(loss.item(), 4)}), flush=True)  # noqa: T201
    return DDPMPipeline(ema.module.eval(), scheduler)


def classify(data: Path) -> tuple[nn.ModuleDict, float]:
    """Train the classifier on four fifths of the digits; return it and its accuracy on the last fifth."""
    arrays = np.load(data)
    images = torch.from_numpy(arrays["images"]).float()[:, None] / 127.5 - 1
    labels = torch.from_numpy(arrays["labels"]).long()
    held_out = torch.arange(len(images)) % HELD_OUT == 0
    x, y = images[~held_out], labels[~held_out]
    with torch.random.fork_rng():
        torch.random.manual_seed(SEED)
        net = untrained()
        optimizer = torch.optim.Adam(net.parameters(), CLASSIFIER_LR)
        for _ in range(CLASSIFIER_STEPS):
            i = torch.randint(len(x), (BATCH,))
            nn.functional.cross_entropy(net["head"](net["body"](x[i])), y[i]).backward()
            optimizer.step()
            optimizer.zero_grad()
    net.eval()
    with torch.no_grad():
        right = net["head"](net["body"](images[held_out])).argmax(1) == labels[held_out]
    return net, float(right.float().mean())


def main() -> None:
    """Write OUT/data.npz, OUT/teacher/, OUT/classifier.safetensors and OUT/PROVENANCE.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write_data(out / "data.npz")
    train(out / "data.npz").save_pretrained(str(out / "teacher"))
    net, accuracy = classify(out / "data.npz")
    save_file(net.state_dict(), out / "classifier.safetensors")
    provenance = {
        "data": "sklearn.datasets.load_digits: 1797 images of the UCI optdigits test set (Alpaydin and Kaynak, 1998)",
        "licence": "as distributed with scikit-learn, BSD-3-Clause; both networks: Apache-2.0, like this package",
        "command": "python -m scm_distill.builtin.make_digits OUT",
        "training": {"steps": STEPS, "batch": BATCH, "lr": LR, "warmup": WARMUP, "seed": SEED, "ema": EMA_DECAY},
        "classifier": {
            "steps": CLASSIFIER_STEPS,
            "batch": BATCH,
            "lr": CLASSIFIER_LR,
            "seed": SEED,
            "trained on": "four fifths of the digits",
            "accuracy on the last fifth": round(accuracy, 4),
        },
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__, "numpy": np.__version__},
        "machine": platform.machine(),
    }
    (out / "PROVENANCE.json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main()
