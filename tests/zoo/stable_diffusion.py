"""UNet2DConditionModel pipelines, and the video one made out of them."""

from typing import Any

from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LDMTextToImagePipeline,
    MotionAdapter,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import BertTokenizer

from zoo import family, parts

BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def unet(**changes: object) -> UNet2DConditionModel:
    """Two levels, one with cross-attention."""
    config = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 16, "attention_head_dim": 2,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4,
    }  # fmt: skip
    return UNet2DConditionModel(**{**config, **changes}).eval()


@family("sd15")
def sd15() -> DiffusionPipeline:
    """Stable Diffusion 1.5: epsilon, scaled_linear."""
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return StableDiffusionPipeline(
        vae=parts.vae(), text_encoder=parts.clip(), tokenizer=parts.clip_tokenizer(), unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@family("sd21")
def sd21() -> DiffusionPipeline:
    """Stable Diffusion 2.1: v-prediction, with the betas rescaled to end in pure noise."""
    scheduler = DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=parts.vae(), text_encoder=parts.clip(), tokenizer=parts.clip_tokenizer(), scheduler=scheduler,
        unet=unet(attention_head_dim=(1, 2), use_linear_projection=True), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def xl(scheduler: Any, **changes: Any) -> StableDiffusionXLPipeline:
    """The SDXL pipeline with this scheduler and, as keywords, these changes of its VAE."""
    net = unet(
        cross_attention_dim=32, attention_head_dim=(1, 2), use_linear_projection=True, addition_embed_type="text_time",
        transformer_layers_per_block=(1, 2), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=parts.vae(**{"scaling_factor": 0.13025, **changes}), unet=net, scheduler=scheduler,
        text_encoder=parts.clip(), tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.clip(projection=True),
        tokenizer_2=parts.clip_tokenizer(),
    )  # fmt: skip


@family("sdxl")
def sdxl() -> DiffusionPipeline:
    """SDXL base: epsilon on Euler's sigmas, two text encoders, sizes and a pooled text as extra conditions."""
    return xl(EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"))


@family("playground")
def playground() -> DiffusionPipeline:
    """Playground 2.5: SDXL's pipeline on EDM's preconditioning, time .25 ln sigma; the VAE has latent statistics."""
    return xl(
        EDMDPMSolverMultistepScheduler(prediction_type="epsilon", sigma_data=0.5, sigma_min=0.002, sigma_max=80.0),
        scaling_factor=0.5, latents_mean=[-1.6574, 1.886, -1.383, 2.5155], latents_std=[8.4927, 5.9022, 6.5498, 5.2299],
    )  # fmt: skip


@family("animatediff", modality="video", num_frames=3)
def animatediff() -> DiffusionPipeline:
    """AnimateDiff on Stable Diffusion 1.5: a UNetMotionModel, linear betas."""
    scheduler = DDIMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1,
        timestep_spacing="linspace",
    )  # fmt: skip
    adapter = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=2, motion_norm_num_groups=4, motion_max_seq_length=8,
    )  # fmt: skip
    pipe = AnimateDiffPipeline(
        vae=parts.vae(), text_encoder=parts.clip(), tokenizer=parts.clip_tokenizer(), unet=unet(),
        motion_adapter=parts.awaken(adapter), scheduler=scheduler,
    )  # fmt: skip
    pipe.unet.eval()
    return pipe


@family("ldm", height=64, width=64)
def ldm() -> DiffusionPipeline:
    """Latent diffusion's text-to-image: a BERT of its own, no guidance by default, the VAE in a part named vqvae."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *parts.LETTERS, *(f"##{letter}" for letter in parts.LETTERS)]
    bert = LDMBertConfig(
        vocab_size=len(words), max_position_embeddings=77, encoder_layers=1, encoder_ffn_dim=32,
        encoder_attention_heads=2, head_dim=8, d_model=16,
    )  # fmt: skip
    return LDMTextToImagePipeline(
        vqvae=parts.vae(), bert=LDMBertModel(bert).eval(), unet=unet(),
        tokenizer=BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=77),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )  # fmt: skip
