"""Single .safetensors files with all parts of a pipeline: what keeps one from being loaded."""

import traceback
from pathlib import Path

from torch import nn

from scm_distill.artifacts import tensor_files
from scm_distill.errors import UserError


def check(path: Path) -> None:
    """Raises UserError where the file is not there completely, or holds an adapter only; its header is read."""
    held = tensor_files.header(path)
    if held and all("lora" in name or name.endswith(".alpha") for name in held):
        raise UserError(
            f"{path} is a LoRA ({next(iter(held))}), not a whole checkpoint.",
            "Load the pipeline that it belongs to, pipe.load_lora_weights(FILE), pipe.fuse_lora(), "
            "pipe.unload_lora_weights() and pipe.save_pretrained(FOLDER); FOLDER is then the teacher.",
        )


def incomplete(error: Exception, repo: str) -> UserError | None:
    """The refusal of a file that lacks a weight, where that is why diffusers raised `error`; None where it is not.

    diffusers does not name the weight: it is left on the meta device in the network that is being loaded.
    """
    fix = "It is incomplete, or of another kind than teacher.pipeline and teacher.config say."
    if isinstance(error, KeyError) and error.args and "." in str(error.args[0]):
        return UserError(f"{repo} lacks {error.args[0]}.", fix)
    if "meta tensor" not in str(error):
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            if isinstance(value, nn.Module):
                left = [name for name, p in value.named_parameters() if p.is_meta]
                if left:
                    return UserError(f"{repo} lacks {left[0]} of its {type(value).__name__}.", fix)
    return None
