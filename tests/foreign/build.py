"""Builds the foreign device's library with g++, once a source and a version of PyTorch; imports no torch."""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = ("device.cpp", "attention.h", "device.h", "hooks.h", "memory.h")
STANDARD = "-std=c++20"  # what PyTorch's headers ask for since 2.12; the earlier ones take it too


def compiler() -> str | None:
    """The C++ compiler of this machine: $CXX or g++; None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def torch_folder() -> Path:
    """Where the installed PyTorch lies."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def library() -> Path:
    """The built library, from the folder $FOREIGN_CACHE or one of the temporary folder. Raises RuntimeError."""
    here, torch = Path(__file__).parent, torch_folder()
    digest = hashlib.sha256(f"{torch} {importlib.metadata.version('torch')} {STANDARD}".encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    folder = Path(os.environ.get("FOREIGN_CACHE") or Path(tempfile.gettempdir()) / f"scm-distill-foreign-{os.getuid()}")
    path = folder / f"{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("The foreign device needs a C++ compiler, and there is no g++.")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one builds
        if not path.exists():
            _build(cxx, here / "device.cpp", torch, path)
    return path


def _build(cxx: str, source: Path, torch: Path, path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".so", delete=False) as made:
        pass
    command = [
        cxx, STANDARD, "-O0", "-w", "-fPIC", "-shared", str(source), "-o", made.name,
        f"-I{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        Path(made.name).unlink()
        raise RuntimeError(f"The foreign device was not built: {done.stderr[-2000:]}")
    Path(made.name).replace(path)
