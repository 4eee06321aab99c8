"""Reads files on disk, and makes batches of them: x_0 (B, ...) and the ids (B,) of their conditions."""

from scm_distill.data.images import Data, Images, open_images

__all__ = ["Data", "Images", "open_images"]
