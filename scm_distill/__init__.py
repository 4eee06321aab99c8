"""Distil a pretrained diffusion model into one that samples in two steps."""

__version__ = "0.1.0"
