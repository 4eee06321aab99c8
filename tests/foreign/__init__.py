"""A CUDA device without a GPU: the real code on tensors of `cuda:0` whose memory is the host's.

A tensor of it is an ordinary tensor with `device.type == "cuda"`. A mix of devices raises as on CUDA, and `counting`
counts every operator that writes a tensor, and everything that would make the host wait for the device by the line that
asked for it. It has no kernels of its own: the CPU computes, so values are those of the CPU.

A script or a command, in a process of its own (`PYTHONPATH` needs nothing):

    python tests/foreign train digits --out /tmp/run train.steps=3     # scm-distill, on the device
    python tests/foreign tests/benchmarks/step.py --out /tmp/step.json # any script

From Python, before anything imports torch:

    import foreign                       # tests/ is on sys.path in the tests
    foreign.activate()                   # torch.cuda.is_available() is now True
    with foreign.counting() as c:
        work()
    c.operators                          # how many operators wrote a tensor of the device
    c.by_operator                        # Counter: {"aten::add.Tensor": 3, ...}
    c.synchronisations                   # [Wait(what="aten::_local_scalar_dense", line="training/run.py:93")]

`activate` needs g++ (the library is built once, into a temporary folder) and raises RuntimeError without one;
`build.compiler()` says whether there is one. Attention takes the operator that CUDA would choose on sm_90 (flash,
efficient, math; attention.h), by a reference of products; a launch of our Triton kernel becomes the chunked sums.
Whoever wants other memory: `torch.cuda.set_per_process_memory_fraction` of 16 GiB, beyond which allocations raise
`torch.OutOfMemoryError`; `torch.cuda.max_memory_allocated` and `max_memory_reserved` are what was really allocated.
"""

from foreign.device import Count, Wait, activate, counting

__all__ = ["Count", "Wait", "activate", "counting"]
