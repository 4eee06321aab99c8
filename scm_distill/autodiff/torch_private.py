"""Every name of torch that this package uses and that is not torch's public API; no other file may reach for one.

A new version of torch may drop or change any of them. `tests/autodiff/test_torch_private.py` names each, says which one
is missing, and finds uses elsewhere.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "FakeTensor",  # a tensor with a shape, dtype and device, and no contents
    "FakeTensorMode",  # inside of it every new tensor is one
    "TorchDispatchMode",  # base class: sees every operator, below autograd
    "tree_flatten", "tree_leaves", "tree_map", "tree_unflatten",  # nested lists, tuples and mappings
    "unset_fake_temporarily",  # real tensors inside of a FakeTensorMode
]  # fmt: skip

BatchNorm = _BatchNorm
"""Base class of every layer that keeps running statistics."""

DisableTorchFunction: Any = torch._C.DisableTorchFunction
"""Context: no `__torch_function__`, neither of tensor subclasses nor of modes."""

DisableTorchFunctionSubclass: Any = torch._C.DisableTorchFunctionSubclass
"""Context: no `__torch_function__` of tensor subclasses; modes stay on."""

make_wrapper_subclass: Any = torch.Tensor._make_wrapper_subclass
"""A tensor subclass of a given size, strides and dtype without storage of its own."""

foreach_lerp_: Any = torch._foreach_lerp_
"""x <- x + weight (y - x) for lists of tensors, in few kernels."""

native_layer_norm: Any = torch.ops.aten.native_layer_norm
"""(y, mean, 1 / std) of a layer normalization."""

native_layer_norm_backward: Any = torch.ops.aten.native_layer_norm_backward
"""Its gradients, of which a mask asks for some."""

native_group_norm: Any = torch.ops.aten.native_group_norm
"""(y, mean, 1 / std) of a group normalization."""

native_group_norm_backward: Any = torch.ops.aten.native_group_norm_backward
"""Its gradients, of which a mask asks for some."""

silu_backward: Any = torch.ops.aten.silu_backward
"""silu'(x) times a gradient."""

gelu_backward: Any = torch.ops.aten.gelu_backward
"""gelu'(x) times a gradient."""

softmax_backward: Any = torch.ops.aten._softmax_backward_data
"""The product of a gradient with the Jacobian of softmax, from softmax's output."""

cpu_attention_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
"""Gradients of q, k and v of PyTorch's fused attention for the CPU, from its output and logsumexp."""

flash_attention: Any = torch.ops.aten._scaled_dot_product_flash_attention
"""(O, logsumexp, ...) of fused attention in half precision on CUDA, without a mask; with a backward."""

efficient_attention: Any = torch.ops.aten._scaled_dot_product_efficient_attention
"""(O, logsumexp, ...) of fused attention on CUDA, in float32 too, with a mask that is added; with a backward."""

cuda_sleep: Any = torch.cuda._sleep
"""Keeps the current stream busy for a number of cycles."""


def storage_id(x: torch.Tensor) -> int:
    """A number that tensors share exactly while they share their storage; fake tensors have one too."""
    number: int = x.untyped_storage()._cdata
    return number


def default_store() -> Any:
    """The key-value store in which the processes of the default process group have met."""
    return torch.distributed.distributed_c10d._get_default_store()


def inductor_cache() -> str:
    """The folder in which torch.compile keeps what it compiled, for this run and the next."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # takes a second

    return cache_dir()
