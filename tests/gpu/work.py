"""One stage in this process: `python -m gpu.work MODULE FUNCTION --device cuda --folder DIR --answer FILE`."""

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from gpu.notes import Notes


def facts(device: str) -> dict[str, Any]:
    """The device's name, and on CUDA its compute capability and memory. Raises RuntimeError where there is no GPU."""
    import torch

    if device == "cpu":
        return {"device": f"cpu, {torch.get_num_threads()} thread(s)"}
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no CUDA device; --device cpu --toy tries the script without one")
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory, GiB": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


def main(arguments: list[str]) -> int:
    """Call the function with the stage's notes; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("function")
    parser.add_argument("--device", choices=("cuda", "cpu", "foreign"), required=True)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    args = parser.parse_args(arguments)
    device, real = "cpu" if args.device == "cpu" else "cuda", args.device == "cuda"
    notes = Notes(args.answer, args.folder, device, args.toy, real)
    try:
        if args.device == "foreign":  # before anything imports torch
            importlib.import_module("foreign").activate()
        notes.facts = facts(device)
        notes.save()
        getattr(importlib.import_module(args.module), args.function)(notes)
    except Exception as error:  # whatever it is, it is this stage's answer
        traceback.print_exc()
        notes.failures.append(" ".join(f"{type(error).__name__}: {error}".split())[:500])
    notes.complete = True
    notes.save()
    return 1 if notes.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
