"""Attention on a CUDA device whose memory is the host's: which operator computes it, and that the result is right."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign import build

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(build.compiler() is None, reason="the foreign device is built with g++"),
]

SCRIPT = '''
import json, sys
import foreign
foreign.activate()
import torch
from torch.autograd import forward_ad as fwAD
from torch.nn.attention import SDPBackend, sdpa_kernel
from scm_distill.autodiff.forward_ad import TangentMode

ATTEND = torch.nn.functional.scaled_dot_product_attention


def derived(parts, tangents, mode, graph, **settings):
    """O, dO and the gradients of q, k and v, in float64 on the host."""
    leaves = [x.clone().requires_grad_(graph) for x in parts]
    with mode, fwAD.dual_level():
        y, dy = fwAD.unpack_dual(ATTEND(*(fwAD.make_dual(x, d) for x, d in zip(leaves, tangents)), **settings))
        y, dy = y.clone(), dy.detach().clone()
    grads = torch.autograd.grad(y.square().sum(), leaves) if graph else ()
    return [x.detach().cpu().double() for x in (y, dy, *grads)]


def case(dtype="bfloat16", mask=None, graph=True, tf32=False, H=4, Hk=4, N=40, M=40, D=16, E=16, rank=4, **settings):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    g = torch.Generator().manual_seed(0)
    dtype = getattr(torch, dtype)
    lead = (2, 1)[: rank - 3]
    shapes = ((*lead, H, N, D), (*lead, Hk, M, D), (*lead, Hk, M, E))
    parts, tangents = ([torch.randn(s, generator=g).to(dtype) for s in shapes] for _ in range(2))
    seen, added = torch.rand((*lead, 1, 1, M), generator=g) > 0.3, torch.randn(N, M, generator=g).to(dtype)
    settings = {"enable_gqa": H != Hk, **settings}
    there = [[x.to("cuda") for x in some] for some in (parts, tangents)]
    given = {"boolean": seen, "added": added}.get(mask)
    with foreign.counting() as count:
        found = derived(*there, TangentMode(), graph, attn_mask=None if given is None else given.to("cuda"), **settings)
    wide = given.double() if mask == "added" else given
    doubles = [[x.double() for x in some] for some in (parts, tangents)]
    exact = derived(*doubles, sdpa_kernel(SDPBackend.MATH), graph, attn_mask=wide, **settings)
    forward = [n.partition("::")[2] for n in count.by_operator if "attention" in n and "backward" not in n]
    return forward, max(float((x - y).norm() / y.norm()) for x, y in zip(found, exact))


print(json.dumps([case(**settings) for settings in json.loads(sys.argv[1])]))
'''
FLASH, EFFICIENT = "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"
KERNEL = "attention_tangent"
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no mask": ({}, [FLASH, KERNEL]),
    "no mask, without a graph": ({"graph": False}, [FLASH, KERNEL]),
    "cross": ({"M": 77}, [FLASH, KERNEL]),
    "no batch": ({"rank": 3}, [FLASH, KERNEL]),
    "boolean": ({"mask": "boolean", "M": 77}, [EFFICIENT, KERNEL]),
    "added": ({"mask": "added", "M": 77, "graph": False}, [EFFICIENT, KERNEL]),
    "added, with a graph": ({"mask": "added"}, [EFFICIENT, KERNEL]),
    "causal": ({"is_causal": True}, [FLASH, KERNEL]),
    "causal, other lengths": ({"is_causal": True, "M": 30, "graph": False}, [KERNEL]),
    "causal, other lengths, with a graph": ({"is_causal": True, "M": 30}, [EFFICIENT, KERNEL]),  # PyTorch's own O
    "grouped": ({"Hk": 2}, [FLASH, KERNEL]),
    "grouped, boolean": ({"Hk": 2, "mask": "boolean", "graph": False}, [KERNEL]),
    "other width": ({"E": 8, "graph": False}, [KERNEL]),
    "other width, with a graph": ({"E": 8}, [EFFICIENT, KERNEL]),
    "TF32": ({"dtype": "float32", "tf32": True}, [EFFICIENT, KERNEL]),
    "TF32, boolean": ({"dtype": "float32", "tf32": True, "mask": "boolean", "M": 77}, [EFFICIENT, KERNEL]),
    "float32": ({"dtype": "float32"}, [EFFICIENT]),
    "float32, without a graph": ({"dtype": "float32", "graph": False}, []),
}


def test_the_operators_and_their_values() -> None:
    tests = Path(__file__).parents[1]
    path = {"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/bin:/bin:/usr/local/bin", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps([settings for settings, _ in CASES.values()])]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    assert run.returncode == 0, run.stderr[-3000:]
    results = dict(zip(CASES, json.loads(run.stdout), strict=True))
    assert {name: operators for name, (operators, _) in results.items()} == {name: o for name, (_, o) in CASES.items()}
    for name, (_, error) in results.items():
        assert error < (1e-5 if "32" in name else 2e-2), name
