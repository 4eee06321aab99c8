"""Files on disk become batches x_0 (B, ...) with ids (B,) of their conditions."""

from scm_distill.data.images import Data, Images, batches, open_images

__all__ = ["Data", "Images", "batches", "open_images"]
