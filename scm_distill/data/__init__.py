"""Images on disk become batches x_0 (B, C, H, W) in [-1, 1] with labels (B,)."""

from scm_distill.data.images import Images, batches, open_images

__all__ = ["Images", "batches", "open_images"]
