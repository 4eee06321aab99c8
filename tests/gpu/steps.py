"""The step of networks of real size, with random weights, by tests/benchmarks/step.py; and two-step sampling."""

import argparse
import gc
import sys
import time
from pathlib import Path
from typing import Any

import torch

from gpu.notes import Notes
from gpu.runs import reported

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

NETWORKS, BATCHES = ("DiT", "MMDiT"), (1, 8)
BAR = 0.11  # seconds of two steps of a 1.5 B network at 512 px on an A100 (arXiv 2410.11081)
TIMES = 20  # samples drawn, of which the median is taken


def arguments(notes: Notes, batch: int, rounds: int) -> argparse.Namespace:
    """Those of step.py."""
    precision = "fp32" if notes.device == "cpu" else "bf16"
    return argparse.Namespace(
        device=notes.device, size="small" if notes.toy else "real", precision=precision,
        compile="off" if notes.toy else "blocks",
        batch=batch, rounds=rounds, ways=["one pass", "one pass, compiled blocks"],
    )  # fmt: skip


def cases(notes: Notes) -> list[tuple[str, Any, int]]:
    """Name, maker and batch of each network that is measured."""
    from networks import networks

    made = networks("small" if notes.toy else "real")
    chosen = [(name, make, batch) for name, make in made.items() if name.startswith(NETWORKS) for batch in BATCHES]
    return chosen[:1] if notes.toy else chosen


def compile_real(notes: Notes) -> None:
    """Seconds of the first compiled step; the compiler's cache on disk then serves the stage that times it."""
    from step import Bench, ways

    for name, make, batch in cases(notes):
        with reported(notes, f"{name}, batch {batch}"):
            args = arguments(notes, batch, 1)
            bench = Bench(make, batch, notes.device, args.precision)
            begin = time.perf_counter()
            bench.step(ways(bench, args)["one pass, compiled blocks"])()
            torch.cuda.synchronize()
            notes.put(f"{name}, batch {batch}, first compiled step, s", round(time.perf_counter() - begin, 1))
            del bench
            free()


def step(notes: Notes) -> None:
    """Host and device time of the step, with and without compiled blocks, beside a forward and a training step."""
    from step import measured

    for name, make, batch in cases(notes):
        with reported(notes, f"{name}, batch {batch}"):
            result = measured(make, arguments(notes, batch, 3))
            notes.put(f"{name}, batch {batch}", result)
            for way, why in result["failed"].items():
                notes.expect(False, f"{name}, batch {batch}, {way}: {why}")
            free()


def free() -> None:
    """Give memory back, of networks that are no longer needed."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def latency(notes: Notes) -> None:
    """Median seconds of the stock two-step call of an SD3 pipeline without text encoders, and of its VAE, batch 1."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from networks import networks

    dtype = torch.float32 if notes.device == "cpu" else torch.bfloat16
    make = next(f for name, f in networks("small" if notes.toy else "real").items() if name.startswith("MMDiT"))
    with torch.device(notes.device):
        net, shape, conditions = make()
        widths = (16, 16, 16, 16) if notes.toy else (128, 256, 512, 512)
        vae = AutoencoderKL(
            latent_channels=16, block_out_channels=widths, layers_per_block=2, sample_size=1024,
            norm_num_groups=16 if notes.toy else 32, use_quant_conv=False, use_post_quant_conv=False,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    pipe: Any = StableDiffusion3Pipeline(net, scheduler, vae, *[None] * 6).to(notes.device, dtype)
    pipe.set_progress_bar_config(disable=True)
    prompt = torch.randn(1, *conditions["encoder_hidden_states"], device=notes.device, dtype=dtype)
    pooled = torch.randn(1, *conditions["pooled_projections"], device=notes.device, dtype=dtype)
    side = shape[-1] * 8

    def draw() -> Any:
        return pipe(
            prompt_embeds=prompt, pooled_prompt_embeds=pooled, num_inference_steps=2, guidance_scale=0.0,
            height=side, width=side, output_type="latent",
        ).images  # fmt: skip

    @torch.no_grad()
    def decode() -> Any:
        return vae.decode(latents, return_dict=False)

    latents = draw()
    two, pixels = seconds(draw, notes), seconds(decode, notes)
    notes.put("parameters", sum(p.numel() for p in net.parameters()))
    notes.put("pixels a side", side)
    notes.put("two steps, s", float(f"{two:.4g}"))
    notes.put("VAE, s", float(f"{pixels:.4g}"))
    notes.put("of the paper's 0.11 s on an A100", round(two / BAR, 3))
    notes.expect(bool(torch.isfinite(latents).all()), "the latents are not finite")


def seconds(f: Any, notes: Notes) -> float:
    """The median of a call's seconds until the device is done, after three that do not count."""
    times = []
    for i in range(3 + (2 if notes.toy else TIMES)):
        begin = time.perf_counter()
        f()
        if notes.device == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]
