"""What `torch.cuda` says of the foreign device: one GPU of compute capability 9.0, always idle."""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

NAME, CAPABILITY = "Foreign device", (9, 0)
TOTAL = 16 * 2**30  # bytes of memory that it says it has


class Stream:
    """A queue of work that is always done."""

    device = torch.device("cuda", 0)
    stream_id = cuda_stream = device_index = 0
    waited: Callable[[str], None]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def wait_stream(self, _: Any) -> None: ...

    def wait_event(self, _: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.waited("torch.cuda.Stream.synchronize")


class Event:
    """A point of a queue, always reached."""

    waited: Callable[[str], None]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, _: Any = None) -> None: ...

    def wait(self, _: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0

    def synchronize(self) -> None:
        self.waited("torch.cuda.Event.synchronize")


def _moved(storage: Any, *, device: Any, non_blocking: bool = False) -> Any:
    """The storage on another device; PyTorch makes none of CUDA where it was built without."""
    source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return source.to(device, non_blocking=non_blocking).untyped_storage()


def _cloned(storage: Any) -> Any:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).clone().untyped_storage()


def patch(library: ctypes.CDLL, waited: Callable[[str], None]) -> None:
    """Let `torch.cuda` speak of the device of `library`; `waited` hears of every call that waits for it."""
    Stream.waited = Event.waited = staticmethod(waited)  # type: ignore[assignment]
    limit = [TOTAL]
    library.foreign_limit(ctypes.c_int64(TOTAL))

    def set_fraction(fraction: float, device: Any = None) -> None:
        limit[0] = int(fraction * TOTAL)
        library.foreign_limit(ctypes.c_int64(limit[0]))

    now, peak = library.foreign_now, library.foreign_peak
    now.restype = peak.restype = ctypes.c_int64
    properties = SimpleNamespace(
        name=NAME, major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=TOTAL, multi_processor_count=132,
        max_threads_per_multi_processor=2048, warp_size=32, regs_per_multiprocessor=65536, gcnArchName="",
        shared_memory_per_block_optin=232448, L2_cache_size=50 * 2**20,
    )  # fmt: skip
    for name, value in {
        "_cuda_getDeviceCount": lambda: 1, "_cuda_getDevice": lambda: 0, "_cuda_setDevice": lambda _: None,
        "_cuda_isInBadFork": lambda: False, "_cuda_getCompiledVersion": lambda: 12060,
        "_cuda_setStream": lambda **_: None, "_cuda_getCurrentRawStream": lambda _=0: 0,
    }.items():  # fmt: skip
        setattr(torch._C, name, value)
    generator = torch.Generator("cuda")
    for name, value in {
        "_lazy_init": lambda: None, "init": lambda: None, "is_initialized": lambda: True, "_initialized": True,
        "default_generators": (generator,), "_exchange_device": lambda _: 0, "_maybe_exchange_device": lambda _: 0,
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "set_device": lambda _: None, "get_device_name": lambda _=None: NAME,
        "get_device_capability": lambda _=None: CAPABILITY,
        "get_device_properties": lambda _=None: properties, "is_bf16_supported": lambda *_, **__: True,
        "get_arch_list": lambda: ["sm_90"], "synchronize": lambda _=None: waited("torch.cuda.synchronize"),
        "Stream": Stream, "Event": Event, "current_stream": lambda _=None: Stream(),
        "default_stream": lambda _=None: Stream(), "set_stream": lambda _: None,
        "stream": lambda stream: stream or Stream(), "empty_cache": lambda: None,
        "mem_get_info": lambda _=None: (limit[0] - now(), limit[0]),
        "memory_allocated": lambda _=None: now(), "max_memory_allocated": lambda _=None: peak(),
        "memory_reserved": lambda _=None: now(), "max_memory_reserved": lambda _=None: peak(),
        "reset_peak_memory_stats": lambda _=None: library.foreign_reset_peak(),
        "set_per_process_memory_fraction": set_fraction, "ipc_collect": lambda: None,
    }.items():  # fmt: skip
        setattr(torch.cuda, name, value)
        if hasattr(torch.cuda.memory, name):
            setattr(torch.cuda.memory, name, value)
    torch.UntypedStorage.clone = _cloned  # type: ignore[method-assign, assignment]
    torch.UntypedStorage.to = _moved  # type: ignore[method-assign, assignment]
    torch.cuda.random.default_generators = (generator,)  # type: ignore[attr-defined]
    torch.cuda.streams.Stream, torch.cuda.streams.Event = Stream, Event  # type: ignore[misc, assignment]
