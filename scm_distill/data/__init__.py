"""Files on disk become batches x_0 (B, ...) with ids (B,) of their conditions."""

from scm_distill.data.images import Data, Images, open_images

__all__ = ["Data", "Images", "open_images"]
