"""Flow-matching image pipelines with language models as text encoders."""

from typing import Any

from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    UniPCMultistepScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
)

from zoo import family, parts
from zoo.flow_image import flux_scheduler

SPECIAL = ["<pad>", "<unk>", "<bos>", "<sop>", "<|im_start|>", "<|im_end|>"]
WORDS = (
    "system user assistant describe the image by detailing color shape size texture quantity text spatial "
    "relationships of objects and background you are an designed to generate superior images with degree alignment "
    "based on textual prompts or prompt start"
)
PIECES = [*WORDS.split(), *",:.-<>", "\n", *parts.LETTERS, *(f"##{letter}" for letter in parts.LETTERS)]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# what every language model below has in common
SMALL: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(PIECES), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 5,
    "initializer_range": 0.3,
}  # fmt: skip
VISION: dict[str, Any] = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 2, "out_hidden_size": 16,
}  # fmt: skip
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def word_tokenizer(*prefix: str) -> PreTrainedTokenizerFast:
    """The words of the pipelines' templates are tokens, as in Qwen's; other words are spelled."""
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    split = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*prefix, "$A"], special_tokens=[(token, vocab[token]) for token in prefix]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", unk_token="<unk>", bos_token="<bos>",
        additional_special_tokens=["<sop>", "<|im_start|>"], model_max_length=1024, chat_template=CHAT,
    )  # fmt: skip


def qwen3(**changes: Any) -> Qwen3Config:
    """A Qwen3 over `word_tokenizer`."""
    return Qwen3Config(**{**SMALL, "head_dim": 8, **changes})


def gemma() -> Gemma2Model:
    """A Gemma 2 over `word_tokenizer`."""
    return Gemma2Model(Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8)).eval()


def qwen_vl() -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL over `word_tokenizer`."""
    text = {**SMALL, "num_hidden_layers": 3, "rope_parameters": MROPE}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=VISION, initializer_range=0.3)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_vae() -> AutoencoderKLQwenImage:
    """A causal video VAE of one frame that halves the image once."""
    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[-0.7571, -0.7089, -0.9113, 0.1075], latents_std=[2.8184, 1.4541, 2.3275, 2.6558],
    ).eval()  # fmt: skip


@family("sana", height=32, width=32, max_sequence_length=32, use_resolution_binning=False)
def sana() -> DiffusionPipeline:
    """Sana: linear attention, a DPM-Solver over flow sigmas, an instruction put before the prompt."""
    net = SanaTransformer2DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        sample_size=32,
    )  # fmt: skip
    vae = AutoencoderDC(
        latent_channels=8, attention_head_dim=4, encoder_block_out_channels=(4, 8, 8),
        decoder_block_out_channels=(4, 8, 8), encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()), decoder_qkv_multiscales=((), (), ()), scaling_factor=0.41407,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, beta_schedule="linear",
        final_sigmas_type="zero",
    )  # fmt: skip
    return SanaPipeline(
        transformer=parts.awaken(net), scheduler=scheduler, vae=vae.eval(), text_encoder=gemma(),
        tokenizer=word_tokenizer("<bos>"),
    )  # fmt: skip


@family("lumina2", height=64, width=64, max_sequence_length=64)
def lumina2() -> DiffusionPipeline:
    """Lumina-Image 2: time runs from noise (0) to image (1), the sign of the output is flipped."""
    net = Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=16, num_layers=1, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(128, 16, 16), cap_feat_dim=16,
    )  # fmt: skip
    # the pipeline takes it for granted that the VAE halves three times
    vae = parts.vae(
        block_out_channels=(4, 4, 4, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0), vae=vae,
        text_encoder=gemma(), tokenizer=word_tokenizer("<bos>"),
    )  # fmt: skip


@family("zimage", height=16, width=16, max_sequence_length=32)
def zimage() -> DiffusionPipeline:
    """Z-Image: lists of samples and of unpadded prompts; time runs from noise (0) to image (1)."""
    net = ZImageTransformer2DModel(
        in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 2, 2], axes_lens=[128, 16, 16],
    )  # fmt: skip
    return ZImagePipeline(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=parts.vae(scaling_factor=0.3611, shift_factor=0.1159), text_encoder=Qwen3Model(qwen3()).eval(),
        tokenizer=word_tokenizer(),
    )  # fmt: skip


@family("qwenimage", height=16, width=16, max_sequence_length=32)
def qwenimage() -> DiffusionPipeline:
    """Qwen-Image: unpadded prompts, a dynamic shift with a last sigma above zero, a video VAE."""
    net = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    scheduler = flux_scheduler(shift=1.0, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
    return QwenImagePipeline(
        transformer=parts.awaken(net), scheduler=scheduler, vae=qwen_vae(), text_encoder=qwen_vl(),
        tokenizer=word_tokenizer(),
    )  # fmt: skip


@family("cogview4", height=16, width=16)
def cogview4() -> DiffusionPipeline:
    """CogView4: the network is told unshifted integer times while the sigmas are shifted."""
    net = CogView4Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, text_embed_dim=16,
        time_embed_dim=16, condition_dim=4, pos_embed_max_size=8, sample_size=8, rope_axes_dim=(8, 8),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
    )
    return CogView4Pipeline(
        transformer=parts.awaken(net), scheduler=scheduler, vae=parts.vae(),
        text_encoder=GlmModel(GlmConfig(**SMALL, head_dim=8)).eval(), tokenizer=word_tokenizer("<bos>", "<sop>"),
    )  # fmt: skip


@family("flux2_klein", height=16, width=16, max_sequence_length=32)
def flux2_klein() -> DiffusionPipeline:
    """FLUX.2 klein: three layers of Qwen3 side by side, latents normalised by the VAE's batch norm."""
    net = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=48, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_size=16,
    )  # fmt: skip
    vae.bn.running_mean.normal_(std=0.1)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return Flux2KleinPipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(), vae=vae.eval(),
        text_encoder=Qwen3ForCausalLM(qwen3(num_hidden_layers=28)).eval(), tokenizer=word_tokenizer(),
    )  # fmt: skip


@family("krea2", height=16, width=16, max_sequence_length=32)
def krea2() -> DiffusionPipeline:
    """Krea 2: the prompt is a stack of the encoder's layers; guidance is off at 0."""
    net = Krea2Transformer2DModel(
        in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, timestep_embed_dim=16, text_hidden_dim=16, num_text_layers=2, text_num_attention_heads=2,
        text_num_key_value_heads=1, text_intermediate_size=32, num_layerwise_text_blocks=1, num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    config = Qwen3VLConfig(
        text_config={**SMALL, "head_dim": 8, "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        vision_config={**VISION, "deepstack_visual_indexes": [0]},
        initializer_range=0.3,
    )
    return Krea2Pipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(max_image_seq_len=6400), vae=qwen_vae(),
        text_encoder=Qwen3VLModel(config).eval(), tokenizer=word_tokenizer(), text_encoder_select_layers=(1, 2),
    )  # fmt: skip


@family("ovis", height=16, width=16, max_sequence_length=32)
def ovis() -> DiffusionPipeline:
    """Ovis-Image: Flux with a Qwen3 in place of its encoders, and plain guidance."""
    net = OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    return OvisImagePipeline(
        transformer=parts.awaken(net), scheduler=flux_scheduler(),
        vae=parts.vae(scaling_factor=0.3611, shift_factor=0.1159), text_encoder=Qwen3Model(qwen3()).eval(),
        tokenizer=word_tokenizer(),
    )  # fmt: skip


@family("hunyuanimage", height=16, width=16)
def hunyuanimage() -> DiffusionPipeline:
    """HunyuanImage 2.1: a guider component in the folder, a thousand padded text tokens, no glyph embedder."""
    net = HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=16, rope_axes_dim=(4, 4),
    )  # fmt: skip
    vae = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        spatial_compression_ratio=2, sample_size=16, scaling_factor=0.75289,
    )  # fmt: skip
    return HunyuanImagePipeline(
        transformer=parts.awaken(net), scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0), vae=vae.eval(),
        text_encoder=qwen_vl(), tokenizer=word_tokenizer(), text_encoder_2=parts.t5(), tokenizer_2=ByT5Tokenizer(),
        guider=AdaptiveProjectedMixGuidance(),
    )  # fmt: skip


@family("hidream", height=128, width=128, max_sequence_length=32)
def hidream() -> DiffusionPipeline:
    """HiDream-I1: four text encoders, layers of Llama stacked before the batch, experts, the sign is flipped."""
    # the pipeline scales every size to that of 128 x 128 latents: patches of 16, and a VAE that halves nothing
    net = HiDreamImageTransformer2DModel(
        patch_size=16, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=32, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(4, 2, 2), max_resolution=(128, 128), llama_layers=[0, 1],
    )  # fmt: skip
    vae = parts.vae(
        block_out_channels=(4,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        scaling_factor=0.3611, shift_factor=0.1159, mid_block_add_attention=False,
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return HiDreamImagePipeline(
        transformer=parts.awaken(net), scheduler=scheduler, vae=vae, text_encoder=parts.clip(projection=True),
        tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.clip(projection=True),
        tokenizer_2=parts.clip_tokenizer(), text_encoder_3=parts.t5(), tokenizer_3=parts.letter_tokenizer(),
        text_encoder_4=LlamaForCausalLM(LlamaConfig(**SMALL)).eval(), tokenizer_4=word_tokenizer("<bos>"),
    )  # fmt: skip
