"""Which errors are a lack of memory: PyTorch's allocator has a class of its own, the libraries beside it have texts.

cuBLAS, cuDNN, NCCL and the driver allocate for themselves; what they raise arrives as a plain RuntimeError.
"""

import errno
import re
from contextlib import suppress

import torch

# Of PyTorch on any device ("CUDA out of memory", "CUDA error: out of memory", "CUDA driver error: out of memory"), of
# NCCL ("Cuda failure 2 'out of memory'"), of the libraries ("CUBLAS_STATUS_ALLOC_FAILED") and of the host.
CERTAIN = re.compile(
    r"out of memory|_ALLOC(?:ATION)?_FAILED|can't allocate memory|not enough memory|std::bad_alloc", re.IGNORECASE
)
# Said where memory is short, and for other reasons.
POSSIBLE = re.compile(
    r"CUBLAS_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)|CUDNN_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)"
    r"|CUSOLVER_STATUS_INTERNAL_ERROR|unable to find an engine|unhandled cuda error|ncclUnhandledCudaError"
)
SCARCE = 2**30  # bytes free on a GPU, below which a possible lack of memory is taken for one; a library wants 0.1 to 1
FRAGMENTED = 0.1  # share of a GPU that PyTorch may hold without use before that is told


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the host or on a device.

    Errors of a library that may have another cause count where less than SCARCE is free on the current GPU.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if CERTAIN.search(text):
        return True
    return bool(POSSIBLE.search(text)) and free_on_gpu() < SCARCE


def free_on_gpu() -> float:
    """The bytes that are free on the current GPU; infinity where there is none, or it does not answer."""
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # after an error of its own a device may answer nothing
            return float(torch.cuda.mem_get_info()[0])
    return float("inf")


def fragmentation() -> str:
    """What to do about memory that PyTorch holds on the GPU without using it, where that is much; else nothing."""
    if not torch.cuda.is_available():
        return ""
    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if held < FRAGMENTED * total:
        return ""
    return (
        f" {held / 2**30:.3g} GiB are held in pieces that did not fit: set the environment variable "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."
    )
