"""Scheduler configurations of published pipelines: class, a pipeline that holds it (own-: a fine-tune), keys, values.

Each distinct one of 121 files that lay on the Hub from 2022 to 2026 is here once, with the keys that its class does not
take and without those that the file lacks.
"""

from typing import Any

SD: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
DDPM: dict[str, Any] = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
PNDM: dict[str, Any] = {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
CLIPPING: dict[str, Any] = {
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "thresholding": False,
}
THRESHOLDING: dict[str, Any] = {"sample_max_value": 1.0, "dynamic_thresholding_ratio": 0.995, "thresholding": False}
FLOW: dict[str, Any] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
}
NO_SIGMAS: dict[str, Any] = {"use_beta_sigmas": False, "use_exponential_sigmas": False, "use_karras_sigmas": False}
UNIPC: dict[str, Any] = {
    "disable_corrector": [],
    "lower_order_final": True,
    "predict_x0": True,
    "solver_order": 2,
    "solver_p": None,
    "solver_type": "bh2",
}

PUBLISHED: list[tuple[str, str, dict[str, Any]]] = [
    ("CogVideoXDDIM", "cogvideox-configs", {**SD, "clip_sample": False, "clip_sample_range": 1.0, "prediction_type":
     "v_prediction", "rescale_betas_zero_snr": True, "sample_max_value": 1.0, "set_alpha_to_one": True,
     "snr_shift_scale": 1.0, "steps_offset": 0, "timestep_spacing": "trailing"}),
    ("CogVideoXDDIM", "cogvideox-configs", {**SD, "clip_sample": False, "clip_sample_range": 1.0, "prediction_type":
     "v_prediction", "rescale_betas_zero_snr": True, "sample_max_value": 1.0, "set_alpha_to_one": True,
     "snr_shift_scale": 3.0, "steps_offset": 0, "timestep_spacing": "linspace"}),
    ("CogVideoXDDIM", "cogvideox-2b", {**SD, "clip_sample": False, "clip_sample_range": 1.0, "prediction_type":
     "v_prediction", "rescale_betas_zero_snr": True, "sample_max_value": 1.0, "set_alpha_to_one": True,
     "snr_shift_scale": 3.0, "steps_offset": 0, "timestep_spacing": "trailing"}),
    ("CosineDPMSolverMultistep", "stable-audio-open-1.0", {"euler_at_final": False, "final_sigmas_type": "zero",
     "lower_order_final": True, "num_train_timesteps": 1000, "prediction_type": "v_prediction", "rho": 7.0,
     "sigma_data": 1.0, "sigma_max": 500, "sigma_min": 0.3, "sigma_schedule": "exponential", "solver_order": 2,
     "solver_type": "midpoint"}),
    ("DDIM", "ldm-text2im-like", {"beta_end": 0.012, "beta_schedule": "linear", "beta_start": 0.00085, "clip_sample":
     False, "num_train_timesteps": 1000, "timestep_values": None, "trained_betas": None}),
    ("DDIM", "stable-materials", {**SD, **PNDM, **CLIPPING, "clip_sample": False, "interpolation_type": "linear",
     "prediction_type": "epsilon", "rescale_betas_zero_snr": False, "timestep_spacing": "leading"}),
    ("DDIM", "own-text-to-image", {**SD, **PNDM, **CLIPPING, "clip_sample": False, "prediction_type": "epsilon",
     "rescale_betas_zero_snr": False, "timestep_spacing": "leading"}),
    ("DDIM", "lgm-full", {**SD, **CLIPPING, "clip_sample": False, "prediction_type": "epsilon",
     "rescale_betas_zero_snr": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}),
    ("DDIM", "own-textovideo", {**SD, **PNDM, **CLIPPING, "clip_sample": False, "prediction_type": "epsilon"}),
    ("DDIM", "anything-v3", {**SD, **PNDM, "clip_sample": False, "prediction_type": "epsilon"}),
    ("DDIM", "own-disney-dreambooth", {**SD, "clip_sample": False, "prediction_type": "epsilon", "set_alpha_to_one":
     False, "steps_offset": 1}),
    ("DDIM", "sd-2.1", {**SD, **PNDM, "clip_sample": False, "prediction_type": "v_prediction"}),
    ("DDIM", "sd-1.5-inpainting", {**SD, **PNDM, "clip_sample": False}),
    ("DDIM", "own-dadale", {**SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DDIM", "ldm-super-resolution", {"beta_end": 0.0155, "beta_schedule": "scaled_linear", "beta_start": 0.0015,
     "clip_sample": False, "num_train_timesteps": 1000, "set_alpha_to_one": True, "steps_offset": 1, "trained_betas":
     None}),
    ("DDIM", "audioldm-s-full-v2", {**CLIPPING, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "beta_start":
     0.0015, "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one":
     False, "steps_offset": 1, "trained_betas": None}),
    ("DDIM", "ldm-celebahq-256", {"beta_end": 0.0195, "beta_schedule": "scaled_linear", "beta_start": 0.0015,
     "clip_sample": False, "num_train_timesteps": 1000, "trained_betas": None}),
    ("DDIM", "sd-x4-upscaler", {**PNDM, "beta_end": 0.02, "beta_schedule": "scaled_linear", "beta_start": 0.0001,
     "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction", "trained_betas": None}),
    ("DDPM", "own-owl-characters", {**SD, "clip_sample": False, "clip_sample_range": 1.0, "prediction_type":
     "epsilon", "set_alpha_to_one": False, "steps_offset": 1, "variance_type": "fixed_small"}),
    ("DDPM", "own-ldm-celebahq", {**CLIPPING, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "beta_start":
     0.0015, "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon",
     "rescale_betas_zero_snr": False, "steps_offset": 0, "timestep_spacing": "leading", "timestep_values": None,
     "timesteps": 1000, "trained_betas": None, "variance_type": "fixed_small"}),
    ("DDPM", "own-ddpm-cotraining", {**DDPM, **CLIPPING, "clip_sample": True, "prediction_type": "epsilon",
     "rescale_betas_zero_snr": False, "steps_offset": 0, "timestep_spacing": "leading", "variance_type":
     "fixed_small"}),
    ("DDPM", "own-street-ddpm", {**DDPM, "clip_sample": True, "prediction_type": "epsilon", "variance_type":
     "fixed_small"}),
    ("DDPM", "ddpm-cifar10", {**DDPM, "clip_sample": True, "variance_type": "fixed_large"}),
    ("DDPM", "ddpm-cat-256", {**DDPM, "clip_sample": True, "variance_type": "fixed_small"}),
    ("DDPM", "sd-x4-upscaler", {"beta_end": 0.02, "beta_schedule": "scaled_linear", "beta_start": 0.0001,
     "clip_sample": True, "num_train_timesteps": 1000, "prediction_type": "epsilon", "trained_betas": None,
     "variance_type": "fixed_small"}),
    ("DDPMWuerstchen", "stable-cascade", {"s": 0.008, "scaler": 1.0}),
    ("DEISMultistep", "dreamshaper-8", {**SD, **PNDM, **THRESHOLDING, "algorithm_type": "deis", "clip_sample": False,
     "lower_order_final": True, "prediction_type": "epsilon", "solver_order": 2, "solver_type": "logrho",
     "timestep_spacing": "leading", "use_karras_sigmas": False}),
    ("EDMDPMSolverMultistep", "playground-2.5", {**THRESHOLDING, "algorithm_type": "dpmsolver++", "euler_at_final":
     False, "final_sigmas_type": "zero", "lower_order_final": True, "num_train_timesteps": 1000, "prediction_type":
     "epsilon", "rho": 7.0, "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2,
     "solver_type": "midpoint"}),
    ("EulerAncestralDiscrete", "instruct-pix2pix", {**SD, **PNDM, **THRESHOLDING, "algorithm_type": "dpmsolver++",
     "clip_sample": False, "lower_order_final": True, "prediction_type": "epsilon", "solver_order": 2, "solver_type":
     "midpoint"}),
    ("EulerAncestralDiscrete", "zero123plus", {**PNDM, "beta_end": 0.012, "beta_schedule": "linear", "beta_start":
     0.00085, "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction", "trained_betas":
     None}),
    ("EulerAncestralDiscrete", "sdxl-turbo-resaved", {**SD, **PNDM, "clip_sample": False, "interpolation_type":
     "linear", "prediction_type": "epsilon", "sample_max_value": 1.0, "timestep_spacing": "trailing"}),
    ("EulerDiscrete", "own-sdxl-rlx1", {**SD, **PNDM, "clip_sample": False, "interpolation_type": "linear",
     "prediction_type": "epsilon", "rescale_betas_zero_snr": False, "sample_max_value": 1.0, "sigma_max": None,
     "sigma_min": None, "timestep_spacing": "leading", "timestep_type": "discrete", "use_karras_sigmas": False}),
    ("EulerDiscrete", "objectclear", {**SD, **PNDM, "clip_sample": False, "interpolation_type": "linear",
     "prediction_type": "epsilon", "sample_max_value": 1.0, "timestep_spacing": "leading", "use_karras_sigmas":
     False}),
    ("EulerDiscrete", "svd-xt", {**SD, **PNDM, "clip_sample": False, "interpolation_type": "linear",
     "prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002, "timestep_spacing": "leading",
     "timestep_type": "continuous", "use_karras_sigmas": True}),
    ("FlowMatchEulerDiscrete", "ltx-video-0.9", {**NO_SIGMAS, "base_image_seq_len": 1024, "base_shift": 0.95,
     "invert_sigmas": False, "max_image_seq_len": 4096, "max_shift": 2.05, "num_train_timesteps": 1000, "shift": 1.0,
     "shift_terminal": 0.1, "use_dynamic_shifting": True}),
    ("FlowMatchEulerDiscrete", "nucleus-image", {**FLOW, **NO_SIGMAS, "invert_sigmas": False, "shift": 1.0,
     "shift_terminal": None, "stochastic_sampling": False, "time_shift_type": "exponential", "use_dynamic_shifting":
     False}),
    ("FlowMatchEulerDiscrete", "ernie-image", {**FLOW, **NO_SIGMAS, "invert_sigmas": False, "shift": 3.0,
     "shift_terminal": None, "stochastic_sampling": False, "time_shift_type": "exponential", "use_dynamic_shifting":
     False}),
    ("FlowMatchEulerDiscrete", "flux.2-klein-4b", {**FLOW, **NO_SIGMAS, "invert_sigmas": False, "shift": 3.0,
     "shift_terminal": None, "stochastic_sampling": False, "time_shift_type": "exponential", "use_dynamic_shifting":
     True}),
    ("FlowMatchEulerDiscrete", "bria-3.2", {**FLOW, **NO_SIGMAS, "invert_sigmas": False, "shift": 3.0,
     "shift_terminal": None, "time_shift_type": "exponential", "use_dynamic_shifting": True}),
    ("FlowMatchEulerDiscrete", "krea-2-raw", {**NO_SIGMAS, "base_image_seq_len": 256, "base_shift": 0.5,
     "invert_sigmas": False, "max_image_seq_len": 6400, "max_shift": 1.15, "num_train_timesteps": 1000, "shift": 1.0,
     "shift_terminal": None, "stochastic_sampling": False, "time_shift_type": "exponential", "use_dynamic_shifting":
     True}),
    ("FlowMatchEulerDiscrete", "qwen-image", {**NO_SIGMAS, "base_image_seq_len": 256, "base_shift": 0.5,
     "invert_sigmas": False, "max_image_seq_len": 8192, "max_shift": 0.9, "num_train_timesteps": 1000, "shift": 1.0,
     "shift_terminal": 0.02, "stochastic_sampling": False, "time_shift_type": "exponential", "use_dynamic_shifting":
     True}),
    ("FlowMatchEulerDiscrete", "flux.1-schnell", {**FLOW, "shift": 1.0, "use_dynamic_shifting": False}),
    ("FlowMatchEulerDiscrete", "flux.1-dev", {**FLOW, "shift": 3.0, "use_dynamic_shifting": True}),
    ("FlowMatchEulerDiscrete", "z-image-turbo", {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting":
     False}),
    ("FlowMatchEulerDiscrete", "sd3-medium", {"num_train_timesteps": 1000, "shift": 3.0}),
    ("MiniMaxH3", "minimax-h3", {"shift": 12.0}),
    ("MiniMaxH3", "minimax-h3", {"shift": 3.0}),
    ("PNDM", "own-urpm", {**SD, **PNDM, **CLIPPING, "clip_sample": False, "prediction_type": "epsilon"}),
    ("PNDM", "meinamix-onnx", {**SD, **PNDM, "clip_sample": False, "prediction_type": "epsilon", "timestep_spacing":
     "leading"}),
    ("PNDM", "own-no1", {**SD, **PNDM, "clip_sample": False, "prediction_type": "epsilon"}),
    ("PNDM", "sd-1.4", {**SD, **PNDM, "clip_sample": False}),
    ("PNDM", "own-image-gen", {**SD, **PNDM}),
    ("UniPCMultistep", "controlnet-background-generation", {**SD, **PNDM, **THRESHOLDING, **UNIPC, "clip_sample":
     False, "prediction_type": "epsilon", "timestep_spacing": "linspace", "use_karras_sigmas": False}),
    ("UniPCMultistep", "wan2.2-t2v-a14b", {**DDPM, **THRESHOLDING, **NO_SIGMAS, **UNIPC, "final_sigmas_type": "zero",
     "flow_shift": 3.0, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False, "steps_offset": 0,
     "time_shift_type": "exponential", "timestep_spacing": "linspace", "use_dynamic_shifting": False,
     "use_flow_sigmas": True}),
    ("UniPCMultistep", "wan2.1-t2v-1.3b", {**DDPM, **THRESHOLDING, **NO_SIGMAS, **UNIPC, "final_sigmas_type": "zero",
     "flow_shift": 3.0, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False, "steps_offset": 0,
     "timestep_spacing": "linspace", "use_flow_sigmas": True}),
    ("UniPCMultistep", "wan2.2-ti2v-5b", {**DDPM, **THRESHOLDING, **NO_SIGMAS, **UNIPC, "final_sigmas_type": "zero",
     "flow_shift": 5.0, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False, "steps_offset": 0,
     "time_shift_type": "exponential", "timestep_spacing": "linspace", "use_dynamic_shifting": False,
     "use_flow_sigmas": True}),
    ("UniPCMultistep", "wan2.1-i2v-14b", {**DDPM, **THRESHOLDING, **NO_SIGMAS, **UNIPC, "final_sigmas_type": "zero",
     "flow_shift": 5.0, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False, "steps_offset": 0,
     "timestep_spacing": "linspace", "use_flow_sigmas": True}),
]  # fmt: skip
