"""Another interpreter, which knows diffusers only: runs the two-step call of an exported folder, writes what it saw.

Reads one JSON object a line, {"folder", "denoiser", "call", "out"}, and answers each with a line.
"""

import functools
import json
import sys
import warnings
from typing import Any

import torch
from safetensors.torch import save_file


class Refuse:
    """scm_distill cannot be imported here."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.split(".")[0] == "scm_distill":
            raise ImportError(name)


@torch.no_grad()
def run(folder: str, denoiser: str, call: dict[str, Any], out: str) -> int:
    """Load, call, and save the denoiser's inputs, its times, the scheduler's draws and its last sample."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    net, scheduler, seen, draws = getattr(pipeline, denoiser), pipeline.scheduler, {}, []
    forward, step, randn, randn_like = net.forward, scheduler.step, torch.randn, torch.randn_like
    count = 0

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        x = args[0] if args else next(iter(kwargs.values()))
        seen[f"x{count}"] = (torch.stack(x) if isinstance(x, list) else x).clone()
        count += 1
        return forward(*args, **kwargs)

    @functools.wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        def noted(draw: Any) -> Any:
            def keep(*a: Any, **k: Any) -> Any:
                drawn = draw(*a, **k)
                if "last" not in seen:  # in the first step
                    draws.append(drawn)
                return drawn

            return keep

        torch.randn, torch.randn_like = noted(randn), noted(randn_like)
        try:
            result = step(*args, **kwargs)
        finally:
            torch.randn, torch.randn_like = randn, randn_like
        seen["last"] = result[0].clone()
        return result

    net.forward, scheduler.step = watched, stepped
    pipeline(generator=torch.random.manual_seed(7), **call)
    if len(draws) == 1:
        seen["z"] = draws[0].clone()
    save_file({k: v.contiguous() for k, v in seen.items()}, out)
    return count


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())  # type: ignore[arg-type]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for line in sys.stdin:
        print("answer", json.dumps({"calls": run(**json.loads(line))}), flush=True)
