"""Unconditional pixel-space pipelines."""

from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel

from zoo import family


def unet() -> UNet2DModel:
    """Two levels over 8x8 RGB, the lower one with attention."""
    return UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


@family("ddpm", conditions="none")
def ddpm() -> DiffusionPipeline:
    """DDPM: epsilon, linear betas."""
    return DDPMPipeline(unet=unet(), scheduler=DDPMScheduler(variance_type="fixed_large"))


@family("ddim", conditions="none")
def ddim() -> DiffusionPipeline:
    """DDIM: epsilon, cosine betas."""
    return DDIMPipeline(unet=unet(), scheduler=DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
