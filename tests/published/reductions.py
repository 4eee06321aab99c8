"""What is made smaller in a published configuration: widths, depths, heads, groups, sizes, vocabularies.

A key that a file lacks is not added. A value is the reduced one, or a function of the published one.
"""

from collections.abc import Mapping
from typing import Any

TEXT = 16  # the width of text and image encoders
T5 = 32  # of T5, which Stable Diffusion 3 puts beside two encoders of TEXT
WORDS = 64  # in every vocabulary


def least(value: Any, smallest: int = 8) -> Any:
    """Widths in the same proportions, the smallest of them `smallest`."""
    low = min(value)
    return [max(1, round(v / low)) * smallest for v in value]


def ones(value: Any) -> Any:
    """1 for a number, and for every number of a list."""
    return [ones(v) for v in value] if isinstance(value, list) else 1


def heads(value: Any) -> Any:
    """2 heads where there is one number for all levels, else in the same proportions from 1."""
    return least(value, 1) if isinstance(value, list) else 2


def cross(value: Any) -> Any:
    """The width of what is attended to: two text encoders' for 2048, a level's own for a list."""
    if isinstance(value, list):
        return least(value)
    return None if value is None else {2048: 2 * TEXT, 4096: T5}.get(value, TEXT)


def projected(value: Any) -> Any:
    """Numbers embedded with 8 channels each beside a pooled text, as of SDXL; else the width of a text."""
    embedded = {2816: 6 * 8 + TEXT, 2560: 5 * 8 + TEXT, 768: 3 * 8}
    return None if value is None else embedded.get(value, TEXT)


UNET: dict[str, Any] = {
    "block_out_channels": least, "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": heads,
    "cross_attention_dim": cross, "sample_size": 8, "transformer_layers_per_block": ones, "num_attention_heads": heads,
    "addition_time_embed_dim": lambda v: v and 8, "projection_class_embeddings_input_dim": projected,
    "motion_num_attention_heads": 2, "time_cond_proj_dim": lambda v: v,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": lambda v: [4] * len(v), "norm_num_groups": 2, "layers_per_block": ones, "sample_size": 64,
    "num_vq_embeddings": 16,
}  # fmt: skip
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2, "num_layers": 2, "num_single_layers": 2, "caption_channels": T5, "sample_size": 8,
}  # fmt: skip
ENCODER: dict[str, Any] = {
    "hidden_size": TEXT, "intermediate_size": 2 * TEXT, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "projection_dim": TEXT, "vocab_size": WORDS, "d_model": T5, "d_ff": 2 * T5, "d_kv": 8,
    "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "head_dim": 8, "max_window_layers": 2, "depth": 2,
    "out_hidden_size": TEXT, "embed_dim": TEXT, "n_positions": 512, "mrope_section": [2, 1, 1],
}  # fmt: skip

REDUCED: Mapping[str, Mapping[str, Any]] = {
    "UNet2DConditionModel": UNET,
    "UNet3DConditionModel": UNET,
    "UNetSpatioTemporalConditionModel": UNET,
    "UNet2DModel": {**UNET, "attention_head_dim": 8},
    "ControlNetModel": {**UNET, "conditioning_embedding_out_channels": lambda v: [4] * len(v)},
    "AutoencoderKL": VAE,
    "AutoencoderKLTemporalDecoder": VAE,
    "VQModel": VAE,
    "AutoencoderKLFlux2": VAE,
    "AutoencoderKLMagvit": VAE,
    "AutoencoderKLCogVideoX": {**VAE, "sample_height": 64, "sample_width": 64},
    "AutoencoderKLLTXVideo": {**VAE, "decoder_block_out_channels": lambda v: [4] * len(v),
                              "decoder_layers_per_block": ones},
    "AutoencoderKLWan": {"base_dim": 4, "num_res_blocks": 1},
    "AutoencoderKLQwenImage": {"base_dim": 4, "num_res_blocks": 1},
    "AutoencoderDC": {"attention_head_dim": 8, "decoder_block_out_channels": lambda v: [32] * len(v),
                      "decoder_layers_per_block": ones, "encoder_block_out_channels": lambda v: [32] * len(v),
                      "encoder_layers_per_block": ones},
    "AutoencoderOobleck": {"encoder_hidden_size": 4, "decoder_channels": 4, "channel_multiples": ones,
                           "downsampling_ratios": lambda v: [2] * len(v), "sampling_rate": 64},
    "Transformer2DModel": {**TRANSFORMER, "attention_head_dim": 8, "cross_attention_dim": lambda v: v and 16},
    "SD3Transformer2DModel": {**TRANSFORMER, "attention_head_dim": 8, "caption_projection_dim": 16,
                              "joint_attention_dim": T5, "pooled_projection_dim": 2 * TEXT, "pos_embed_max_size": 8,
                              "dual_attention_layers": lambda v: v},
    "FluxTransformer2DModel": {**TRANSFORMER, "joint_attention_dim": T5, "pooled_projection_dim": TEXT},
    "Flux2Transformer2DModel": {**TRANSFORMER, "joint_attention_dim": 3 * TEXT},
    "SanaTransformer2DModel": {**TRANSFORMER, "attention_head_dim": 8, "cross_attention_dim": 16,
                               "cross_attention_head_dim": 8, "num_cross_attention_heads": 2, "caption_channels": TEXT},
    "WanTransformer3DModel": {**TRANSFORMER, "attention_head_dim": 12, "ffn_dim": 32, "text_dim": T5, "freq_dim": 16},
    "CogVideoXTransformer3DModel": {**TRANSFORMER, "attention_head_dim": 16, "text_embed_dim": T5,
                                    "time_embed_dim": 16, "sample_height": 8, "sample_width": 8, "sample_frames": 9},
    "LTXVideoTransformer3DModel": {**TRANSFORMER, "attention_head_dim": 8, "cross_attention_dim": 16},
    "StableAudioDiTModel": {**TRANSFORMER, "attention_head_dim": 8, "num_key_value_attention_heads": 1,
                            "cross_attention_dim": T5, "cross_attention_input_dim": T5, "time_proj_dim": 16,
                            "global_states_input_dim": 2 * T5, "sample_size": 16.0},
    "StableAudioProjectionModel": {"conditioning_dim": T5, "text_encoder_dim": T5},
    "QwenImageTransformer2DModel": {**TRANSFORMER, "joint_attention_dim": TEXT, "pooled_projection_dim": TEXT},
    "ZImageTransformer2DModel": {"cap_feat_dim": TEXT, "dim": 256, "n_heads": 2, "n_kv_heads": 2, "n_layers": 2,
                                 "n_refiner_layers": 1},
    "AllegroTransformer3DModel": {**TRANSFORMER, "attention_head_dim": 12, "cross_attention_dim": 24},
    "AuraFlowTransformer2DModel": {**TRANSFORMER, "attention_head_dim": 8, "caption_projection_dim": 16,
                                   "joint_attention_dim": T5, "num_mmdit_layers": 1, "num_single_dit_layers": 1,
                                   "pos_embed_max_size": 64},
    "PaellaVQModel": {"bottleneck_blocks": 1, "embed_dim": 8, "num_vq_embeddings": 16},
    "StableCascadeUNet": {"block_out_channels": lambda v: [16] * len(v), "num_attention_heads": lambda v: [2] * len(v),
                          "conditioning_dim": 16, "clip_text_pooled_in_channels": TEXT,
                          "clip_text_in_channels": lambda v: v and TEXT, "clip_image_in_channels": lambda v: v and TEXT,
                          "down_num_layers_per_block": ones, "up_num_layers_per_block": ones,
                          "down_blocks_repeat_mappers": ones, "up_blocks_repeat_mappers": ones},
    "Krea2Transformer2DModel": {**TRANSFORMER, "num_key_value_heads": 1, "intermediate_size": 32,
                                "text_hidden_dim": TEXT, "text_intermediate_size": 32, "text_num_attention_heads": 2,
                                "text_num_key_value_heads": 2, "timestep_embed_dim": 16,
                                "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1},
    "ErnieImageTransformer2DModel": {**TRANSFORMER, "hidden_size": 32, "ffn_hidden_size": 32, "text_in_dim": TEXT},
    "EasyAnimateTransformer3DModel": {**TRANSFORMER, "time_embed_dim": 16, "text_embed_dim": TEXT},
    "index": {"text_encoder_select_layers": lambda v: [1 + i % 2 for i in range(len(v))]},
    "SpeechT5HifiGan": {"upsample_initial_channel": 32, "model_in_dim": 64},
    "LDMBertModel": {"encoder_layers": 1, "encoder_ffn_dim": 32, "encoder_attention_heads": 2, "head_dim": 8,
                     "vocab_size": WORDS},
}  # fmt: skip


def encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a text or image encoder, reduced; its parts too."""
    out = {key: encoder(v) if isinstance(v, dict) else v for key, v in reduced(config, ENCODER).items()}
    if isinstance(out.get("layer_types"), list):
        out["layer_types"] = out["layer_types"][: out["num_hidden_layers"]]
    return out


def reduced(config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """A published configuration with the changes of a table."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        change = table.get(key)
        if change is None or value is None:
            out[key] = value
        else:
            out[key] = change(value) if callable(change) else change
    return out
