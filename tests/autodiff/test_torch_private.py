"""torch's private names: each exists in this version of torch, and one file alone reaches for them."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import scm_distill
from scm_distill.autodiff import torch_private

PACKAGE = Path(scm_distill.__file__).parent
SHIM = Path(torch_private.__file__)
NAMES = (
    "torch._C.DisableTorchFunction",
    "torch._C.DisableTorchFunctionSubclass",
    "torch._foreach_lerp_",
    "torch._inductor.runtime.cache_dir_utils.cache_dir",
    "torch._subclasses.fake_tensor.FakeTensor",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch._subclasses.fake_tensor.unset_fake_temporarily",
    "torch.distributed.distributed_c10d._get_default_store",
    "torch.Tensor._make_wrapper_subclass",
    "torch.UntypedStorage._cdata",
    "torch.cuda._sleep",
    "torch.nn.modules.batchnorm._BatchNorm",
    "torch.ops.aten._scaled_dot_product_efficient_attention",
    "torch.ops.aten._scaled_dot_product_flash_attention",
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward",
    "torch.ops.aten._softmax_backward_data",
    "torch.ops.aten.gelu_backward",
    "torch.ops.aten.native_group_norm",
    "torch.ops.aten.native_group_norm_backward",
    "torch.ops.aten.native_layer_norm",
    "torch.ops.aten.native_layer_norm_backward",
    "torch.ops.aten.silu_backward",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._pytree.tree_flatten",
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map",
    "torch.utils._pytree.tree_unflatten",
)


@pytest.mark.parametrize("name", NAMES)
def test_this_torch_has_it(name: str) -> None:
    owner, _, leaf = name.rpartition(".")
    try:
        found = importlib.import_module(owner)
    except ImportError:
        found = torch
        for part in owner.split(".")[1:]:
            found = getattr(found, part, None)
    assert hasattr(found, leaf), f"torch {torch.__version__} has no {name}, which {SHIM.name} stands for."


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _private(name: str) -> bool:
    """Whether a dotted name of torch goes through a private part, or through the operators below autograd."""
    root, *parts = name.split(".")
    own = root in ("torch", "nn", "Tensor") and any(p.startswith("_") and not p.endswith("__") for p in parts)
    return own or name.startswith("torch.ops.aten")


def _uses(path: Path) -> Iterator[str]:
    """Private names of torch in a file: imported, reached through attributes, or of a storage."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _private(alias.name))
        elif isinstance(node, ast.ImportFrom):
            yield from (n for alias in node.names if _private(n := f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Attribute) and (_private(_dotted(node)) or node.attr == "_cdata"):
            yield _dotted(node) or node.attr


def test_no_other_file_reaches_for_a_private_name() -> None:
    found = {str(path.relative_to(PACKAGE)): set(_uses(path)) for path in PACKAGE.rglob("*.py") if path != SHIM}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_list_is_what_the_file_uses() -> None:
    used = {name for name in _uses(SHIM) if name not in ("torch._C", "torch.ops.aten")}
    assert {"torch.UntypedStorage._cdata" if name.endswith("_cdata") else name for name in used} == set(NAMES)
