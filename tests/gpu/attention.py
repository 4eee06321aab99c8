"""The attention kernel on a GPU: its variants, its tests, and its time against PyTorch's own attention."""

import os
import re
import subprocess
import sys
from pathlib import Path

from gpu.notes import Notes

ROOT = Path(__file__).parents[2]
WIDTHS, LENGTHS, TEXT = (64, 72, 128), (1178, 4096), 77  # head dimensions; tokens; tokens of a prompt
BATCH, HEADS = 4, 16
NO_SPILL = 128  # the widest head for which no variant may spill
WORKERS = 4  # of pytest: each compiles with one core, and shares the GPU


def kernels(notes: Notes) -> None:
    """Compile every variant for this GPU, in parallel, and list registers, shared memory and spills."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    import kernel_table

    gpus: tuple[int, ...] = (80, 90)  # where there is no GPU, for those that others have
    if notes.real:
        major, minor = torch.cuda.get_device_capability()
        gpus = (10 * major + minor,)
    if notes.toy:
        kernel_table.WIDTHS = {torch.bfloat16: (64,)}
    rows = []
    for one in kernel_table.table(gpus, os.cpu_count() or 1):
        v = one.variant
        name = f"sm_{v.gpu} {v.dtype} D {v.width} {v.kind} {'x'.join(map(str, v.tile))}"
        rows.append([name, one.registers, one.shared, one.spills])
        notes.put("name, registers, bytes shared, bytes spilled", rows)
        notes.expect(v.width > NO_SPILL or one.spills == 0, f"{name} spills {one.spills} bytes")
    notes.put("variants", len(rows))
    notes.put("variants that spill", sum(row[-1] > 0 for row in rows))
    notes.expect(bool(rows), "there are no variants")


def tests(notes: Notes) -> None:
    """The kernel's tests on CUDA."""
    file = "tests/autodiff/test_flash_gpu.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        str(WORKERS),
        "-m",
        "gpu",
        file,
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ.copy())
    print(done.stdout, done.stderr)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", done.stdout)}
    for kind, count in counts.items():
        notes.put(kind, count)
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)
    notes.expect(done.returncode == 0, f"pytest ended with {done.returncode}: {', '.join(failed[:5]) or 'see log.txt'}")
    notes.expect(counts.get("passed", 0) > 0, "no test ran")


def timing(notes: Notes) -> None:
    """Medians of attention with its tangent, and of PyTorch's forward alone, on the same bf16 tensors."""
    import torch
    from torch.nn import functional
    from triton.testing import do_bench

    from scm_distill.autodiff.attention import backend

    notes.put("bf16 product of 8192, TFLOP/s", round(_product(torch, do_bench), 1))
    for width in WIDTHS:
        for n in LENGTHS:
            for m in (n, TEXT):
                g = torch.Generator("cuda").manual_seed(n + m + width)
                shapes = [(BATCH, HEADS, length, width) for length in (n, m, m)]
                q, k, v, dq, dk, dv = (
                    torch.randn(shape, generator=g, device="cuda", dtype=torch.bfloat16) for shape in 2 * shapes
                )
                how = backend(q.device, q.dtype)
                notes.expect("Triton" in how, f"D {width}: attention is {how}")
                plain = do_bench(lambda q=q, k=k, v=v: functional.scaled_dot_product_attention(q, k, v), **_MEDIAN)
                ours = do_bench(lambda x=(q, k, v, dq, dk, dv): with_tangent(*x), **_MEDIAN)
                notes.put(
                    f"D {width}, N {n}, M {m}",
                    {
                        "forward, ms": round(plain, 4),
                        "with tangent, ms": round(ours, 4),
                        "ratio": round(ours / plain, 2),
                    },
                )


_MEDIAN = {"warmup": 25, "rep": 100, "return_mode": "median"}  # milliseconds


def with_tangent(*tensors: object) -> None:
    """Attention of three tensors and their tangents, as the step calls it."""
    import torch
    from torch.autograd import forward_ad as fwAD

    from scm_distill.autodiff.attention import scaled_dot_product_attention

    with torch.no_grad(), fwAD.dual_level():
        q, k, v = (fwAD.make_dual(x, dx) for x, dx in zip(tensors[:3], tensors[3:], strict=True))
        scaled_dot_product_attention(q, k, v)


def _product(torch: object, do_bench: object) -> float:
    """TFLOP/s of a bf16 product of random matrices, the ceiling of this machine."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / do_bench(lambda: a @ b, **_MEDIAN) / 1e9
