"""Which errors are a lack of memory, by the texts of the libraries, and that no command ends in a traceback of one."""

import errno
from collections.abc import Callable

import pytest
import torch

from scm_distill import memory
from scm_distill.commands import short_of_memory
from scm_distill.errors import UserError

LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB"),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 1.2 GB, max allowed: 9 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 2359296 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to "),
    RuntimeError("std::bad_alloc"),
    torch.distributed.DistBackendError(
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled cuda error (run with "
        "NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: Call to CUDA function failed.\n"
        "Last error:\nCuda failure 2 'out of memory'"
    ),
]
POSSIBLE = [
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("NCCL error in: NCCLUtils.hpp:275, unhandled cuda error (run with NCCL_DEBUG=INFO for details)"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("out of resource: shared memory, Required: 278528, Hardware limit: 232448. Reducing block sizes or "),
    RuntimeError("Trying to create tensor with negative dimension"),
    ValueError("out of memory"),
    OSError(errno.ENOSPC, "No space left on device"),
    KeyError("low_pass"),
    UserError("Out of memory: told already."),
]


def gpu_with(free: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80 * 2**30))


@pytest.mark.parametrize("error", LACKS, ids=lambda e: f"{type(e).__name__}: {str(e)[:40]}")
def test_what_the_libraries_say_where_memory_is_short(error: BaseException) -> None:
    assert memory.out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda e: f"{type(e).__name__}: {str(e)[:40]}")
def test_other_errors_are_no_lack_of_memory(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_with(0, monkeypatch)
    assert not memory.out_of_memory(error)


@pytest.mark.parametrize("error", POSSIBLE, ids=lambda e: str(e)[:40])
def test_an_unclear_error_is_one_where_the_gpu_is_full(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not memory.out_of_memory(error)  # no GPU
    gpu_with(200 * 2**20, monkeypatch)
    assert memory.out_of_memory(error)
    gpu_with(20 * 2**30, monkeypatch)
    assert not memory.out_of_memory(error)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (_ for _ in ()).throw(RuntimeError("device-side assert")))
    assert not memory.out_of_memory(error)


@pytest.fixture
def failing() -> Callable[[BaseException], None]:
    @short_of_memory.told("Out of memory", "Do less.")
    def fail(error: BaseException) -> None:
        raise error

    return fail


def test_a_lack_of_memory_is_told_and_another_error_passes(failing: Callable[[BaseException], None]) -> None:
    with pytest.raises(UserError, match="Out of memory: cuDNN error: CUDNN_STATUS_ALLOC_FAILED Do less") as told:
        failing(LACKS[6])
    assert told.value.code == 1
    with pytest.raises(RuntimeError, match="mat1"):
        failing(OTHERS[0])
    with pytest.raises(UserError, match="told already"):
        failing(OTHERS[-1])


@pytest.mark.parametrize(("held", "said"), [(30, True), (2, False)])
def test_memory_held_in_pieces_is_named(
    held: int, said: bool, failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_with(0, monkeypatch)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 70 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: (70 - held) * 2**30)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("Properties", (), {"total_memory": 80 * 2**30})
    )
    with pytest.raises(UserError) as told:
        failing(LACKS[0])
    assert (f"{held} GiB are held in pieces" in told.value.fix) == said
