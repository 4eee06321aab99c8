"""What a run reserves on the GPU beside what was planned, and what becomes of one that does not fit."""

import gc
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from gpu.notes import Notes
from gpu.runs import SHORT, reported

WITHIN = 0.10  # of the plan
SHARE = 0.6  # of what a run is planned to need, that it is left with


def teacher(folder: Path, *, toy: bool) -> Path:
    """A DDPM of the size of google/ddpm-cifar10-32, or a toy, with random weights, saved."""
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
        widths = (32, 64, 64, 64) if toy else (128, 256, 256, 256)
        net = UNet2DModel(
            sample_size=8 if toy else 32, block_out_channels=widths, down_block_types=down,
            up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        )  # fmt: skip
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(str(folder))
    return folder


def recipe(notes: Notes, **changes: Any) -> Any:
    """Three steps of that teacher, at a micro-batch that takes some gigabytes."""
    from scm_distill import read_recipe

    folder = notes.folder / "teacher"
    n = 8 if notes.toy else 128
    settings = {
        **SHORT, "teacher.repo": str(folder if folder.exists() else teacher(folder, toy=notes.toy)),
        "train.batch_size": n, "objective.tangent": "jvp",
        "train.steps": 3, "train.evaluate_every": 3, "train.evaluate_samples": n,
    }  # fmt: skip
    return read_recipe("digits", {**settings, **changes})


def trained(made: Any, name: str, notes: Notes) -> Any:
    """Set up and train, without the export; returns the setup."""
    from scm_distill.artifacts import layout
    from scm_distill.artifacts.claim import claimed
    from scm_distill.progress import Silent
    from scm_distill.training import run, setup

    with claimed(notes.folder / name, parts=(layout.PREVIEWS, layout.CHECKPOINTS)):
        done = setup.build(made, notes.folder / name, None, Silent())
        run.Run(done).train()
    return done


def plan(notes: Notes) -> None:
    """The largest reserved memory of three steps beside the plan of the same run."""
    runs: dict[str, dict[str, Any]] = {
        "fp32": {"train.precision": "fp32", "train.memory": "fast"},
        "bf16": {"train.precision": "bf16", "train.memory": "fast"},
        "bf16, lean": {"train.precision": "bf16", "train.memory": "lean"},
    }
    for name, changes in list(runs.items())[:: 3 if notes.toy else 1]:
        with reported(notes, name):
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            made = recipe(notes, **changes)
            done = trained(made, name.replace(", ", "-"), notes)
            expected = done.planner.estimate(made, done.memory)
            reserved, allocated = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
            off = reserved / expected.total - 1
            notes.put(
                name,
                {
                    "planned, MiB": round(expected.total / 2**20), "reserved, MiB": round(reserved / 2**20),
                    "allocated, MiB": round(allocated / 2**20), "phase": expected.phase, "off": round(off, 3),
                },
            )  # fmt: skip
            notes.expect(abs(off) <= WITHIN, f"{name}: reserved is {off:+.1%} off the plan {expected}")
            del done


def out_of_memory(notes: Notes) -> None:
    """Under a cap below what the run needs, one UserError names the settings that would help."""
    from scm_distill import UserError, plan_train, train

    needed = plan_train(recipe(notes, **{"train.memory": "fast"})).memory_needed
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(SHARE * needed / total)
    try:
        train(recipe(notes, **{"train.memory": "fast"}), out=notes.folder / "capped")
    except UserError as error:
        notes.put("problem", error.problem[:200])
        notes.put("fix", error.fix)
        notes.expect("memory" in error.problem.lower(), f"the error is about something else: {error.problem[:200]}")
        notes.expect("saves about" in error.fix, f"no setting is named: {error.fix}")
    else:
        notes.expect(False, f"a run that needs {needed / 2**20:.0f} MiB fitted into {SHARE:.0%} of that")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
