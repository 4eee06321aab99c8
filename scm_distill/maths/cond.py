"""The conditions of a batch: the inputs of a network beside x_t and t, one mapping of tensors, batch first.

NAME      an argument of the denoiser: 'class_labels', or its path in the stock call, such as
          'added_cond_kwargs.text_embeds'                                             (B, ...)
u/NAME    the same argument for the unconditional prediction of guidance; its shape
          may differ from NAME's                                                      (B, ...)
w         guidance scale                                                              (B,)
none      placeholder in a record on disk of a denoiser that takes no conditions,
          removed when the record is read                                             (B,)

u/NAME exists for every NAME or for none, and is of use only beside w.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Cond = Mapping[str, Tensor]

SCALE, NONE = "w", "none"
UNCONDITIONAL = "u/"  # prefix


def with_unconditional(c: Cond, u: Cond) -> dict[str, Tensor]:
    """One mapping of the conditional arguments `c` and the unconditional ones `u`, which have the same names."""
    return {**c, **{f"{UNCONDITIONAL}{name}": value for name, value in u.items()}}


def conditional(cond: Cond) -> dict[str, Tensor]:
    """`cond` without the unconditional arguments."""
    return {name: value for name, value in cond.items() if not name.startswith(UNCONDITIONAL)}


def unconditional(cond: Cond) -> dict[str, Tensor]:
    """The unconditional arguments alone, under their plain names; empty where guidance is off."""
    prefix = UNCONDITIONAL
    return {name.removeprefix(prefix): value for name, value in cond.items() if name.startswith(prefix)}


def unguided(cond: Cond) -> dict[str, Tensor]:
    """The plain arguments alone: without guidance scale and unconditional arguments."""
    return {name: value for name, value in conditional(cond).items() if name != SCALE}


def rows(cond: Cond, index: slice | Tensor) -> dict[str, Tensor]:
    """The samples `index` of the batch: a slice, or their indices (n,)."""
    return {name: value[index] for name, value in cond.items()}


def on_device(cond: Cond, device: torch.device) -> dict[str, Tensor]:
    """`cond` on a device."""
    return {name: value.to(device) for name, value in cond.items()}
