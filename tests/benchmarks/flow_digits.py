"""A small SD3-class teacher of the digits, for a real distillation through the traced reading: prompts, flow, guidance.

    python tests/benchmarks/flow_digits.py OUT && scm-distill train OUT/recipe.yaml -o OUT/run

The prompts are the words zero to nine, through text encoders of random weights; the latents are the digits
themselves, so the VAE is never used and previews show nothing. About 5 + 10 minutes on one quiet core.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from scm_distill.builtin import path

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import parts

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STEPS, BATCH, DROPPED = 5000, 64, 0.1
RECIPE = """
teacher: {{repo: {out}/teacher, call: {{height: 16, width: 16, max_sequence_length: 8}}}}
data: {{source: teacher, prompts: {out}/prompts.txt, samples: 2048}}
guidance: {{scale: 2.0}}
objective: {{P_mean: -0.1, P_std: 1.6, warmup_steps: 500}}
optimizer: {{name: adam, lr: 2.0e-4}}
train: {{steps: 1500, batch_size: 64, checkpoint_every: 500, evaluate_every: 500, threads: 1, device: cpu}}
sampler: {{teacher_steps: 30}}
export: {{samples: 1536}}
"""


def pipeline() -> StableDiffusion3Pipeline:
    """SD3 with latents of one channel, 8 x 8, and prompts of 8 tokens."""
    tokenizers = [parts.clip_tokenizer() for _ in range(2)]
    for tokenizer in tokenizers:
        tokenizer.model_max_length = 8
    net = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=1, out_channels=1, num_layers=3, attention_head_dim=16,
        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=64, pooled_projection_dim=32,
        pos_embed_max_size=8,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=net, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0), vae=parts.vae(1, shift_factor=0.0),
        text_encoder=parts.clip(projection=True), tokenizer=tokenizers[0],
        text_encoder_2=parts.clip(projection=True), tokenizer_2=tokenizers[1],
        text_encoder_3=parts.t5(32), tokenizer_3=parts.letter_tokenizer(8),
    )  # fmt: skip


def train(pipe: StableDiffusion3Pipeline) -> None:
    """Flow matching with a tenth of the prompts dropped; cosine learning rate, EMA of the last third."""
    with np.load(path("builtin:digits/data.npz")) as arrays:
        x_0 = torch.from_numpy(arrays["images"]).float()[:, None] / 127.5 - 1
        labels = torch.from_numpy(arrays["labels"]).long()
    with torch.no_grad():
        text, _, pooled, _ = pipe.encode_prompt(
            prompt=[*WORDS, ""], prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=8
        )
    net = pipe.transformer.train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    ema = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    g, begin = torch.Generator().manual_seed(0), time.time()
    for step in range(STEPS):
        i = torch.randint(len(x_0), (BATCH,), generator=g)
        prompt = torch.where(torch.rand(BATCH, generator=g) < DROPPED, 10, labels[i])
        s, eps = torch.randn(BATCH, generator=g).sigmoid(), torch.randn(BATCH, 1, 8, 8, generator=g)
        wide = s[:, None, None, None]
        v = net((1 - wide) * x_0[i] + wide * eps, text[prompt], pooled[prompt], 1000 * s, return_dict=False)[0]
        loss = (v - (eps - x_0[i])).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        ema.update_parameters(net)
        if step % 500 == 0:
            print(f"{step}/{STEPS} loss {loss.item():.4f}, {time.time() - begin:.0f} s", file=sys.stderr)
    net.load_state_dict(ema.module.state_dict())
    net.eval()


if __name__ == "__main__":
    out = Path(sys.argv[1]).resolve()
    torch.set_num_threads(1)
    torch.random.manual_seed(0)
    made = pipeline()
    train(made)
    made.save_pretrained(str(out / "teacher"))
    (out / "prompts.txt").write_text("\n".join(WORDS) + "\n")
    (out / "recipe.yaml").write_text(RECIPE.format(out=out))
