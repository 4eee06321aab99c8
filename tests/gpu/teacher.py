"""A small stock DDPM, trained on pictures for so many seconds and saved as a pipeline."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.nn import functional

from gpu.pictures import Batches

DECAY = 0.999  # of the average that is saved
LR = 4e-4


def unet(size: int, width: int) -> UNet2DModel:
    """Three levels, attention at a half and a quarter of the side: 14 M parameters at width 96."""
    return UNet2DModel(
        sample_size=size, layers_per_block=2, block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=min(32, width // 2), attention_head_dim=width,
    )  # fmt: skip


def train(
    batches: Batches, folder: Path, width: int, budget: float, prediction: str
) -> tuple[UNet2DModel, dict[str, Any]]:
    """The averaged network (float32) after `budget` seconds, saved as a DDPMPipeline in `folder`; what it took.

    `prediction` is "epsilon" or "v_prediction".
    """
    device = batches.pixels.device
    with torch.random.fork_rng(), torch.device(device):
        torch.random.manual_seed(0)
        net: Any = unet(batches.pixels.shape[-1], width)
    average: Any = copy.deepcopy(net).requires_grad_(False)
    scheduler = DDPMScheduler(prediction_type=prediction)
    root = scheduler.alphas_cumprod.to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0.0)
    begin, step, loss = time.monotonic(), 0, torch.zeros((), device=device)
    for x, _ in batches:
        if step % 10 == 0:  # waits for the device, so that the clock counts what is done
            last = float(loss.detach())
            share = (time.monotonic() - begin) / budget
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = LR * min(1, (step + 1) / 100) * max(0.02, 1 - share)
        k = torch.randint(1000, (len(x),), generator=batches.generator, device=device)
        eps = torch.randn(x.shape, generator=batches.generator, device=device)
        a = root[k][:, None, None, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted = net(a.sqrt() * x + (1 - a).sqrt() * eps, k, return_dict=False)[0]
        target = eps if prediction == "epsilon" else a.sqrt() * eps - (1 - a).sqrt() * x
        loss = functional.mse_loss(predicted.float(), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        decay = min(DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        step += 1
    seconds = time.monotonic() - begin
    DDPMPipeline(average.eval(), scheduler).save_pretrained(str(folder))
    return average, {
        "parameters": sum(p.numel() for p in net.parameters()), "steps": step, "batch": batches.size,
        "loss": round(last, 4), "pictures a second": round(step * batches.size / seconds, 1),
    }  # fmt: skip
