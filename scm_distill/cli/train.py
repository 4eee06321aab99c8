"""`scm-distill train`: a recipe in, a run folder and a two-step student out."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from scm_distill.cli import console, launch
from scm_distill.cli.options import Json, Processes
from scm_distill.commands.results import TrainPlan, TrainResult


def train(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe (scm-distill recipes list) or a .yaml file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; beats the file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/RECIPE.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="auto|PATH", help="Continue: the newest checkpoint of the run, or this one."),
    ] = None,
    num_processes: Processes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check recipe, teacher and data; start no run.")] = False,
    as_json: Json = False,
) -> None:
    """Distil a teacher into a two-step student.

    Examples: scm-distill train digits; scm-distill train my.yaml -s optimizer.lr=5e-5 -o runs/mine --resume auto
    """
    os.environ.update(launch.slurm(os.environ))
    with console.user_errors(as_json=as_json):
        from scm_distill import config

        settings = config.read(recipe, overrides or ())
        if num_processes:
            launch.refuse_nested(os.environ)
        world = num_processes or int(os.environ.get("WORLD_SIZE", "1"))
        with console.importing():
            from scm_distill.commands import arguments, train  # torch: seconds, so only once the recipe is right

        folder = arguments.run_folder(recipe, out)
        if dry_run:
            with console.Live(quiet=as_json) as live:
                plan = train.plan_train(settings, processes=world, report=live)
            console.facts(_plan_facts(plan), as_json=as_json)
            return
        if num_processes and num_processes > 1:
            train.check(settings, folder, resume, world=world)
            changes = [part for override in overrides or () for part in ("--set", override)]
            options = [*changes, "--out", str(folder), *(["--resume", resume] if resume else [])]
            raise typer.Exit(launch.run(["train", *options, *["--json"] * as_json, "--", recipe], world))
        with console.Live(quiet=as_json) as live:
            result = train.train(settings, out=folder, resume=resume, report=live)
        if result is None:  # a worker process; the main one shows the result
            return
        if as_json:
            console.result_json(result)
        else:
            _show(result)


def _show(result: TrainResult) -> None:
    rows = [(row.sampler, str(row.nfe), f"{row.distance:.4g}") for row in result.table]
    console.table("Distance to the data (lower is better)", ("sampler", "network evaluations", "distance"), rows)
    first = {"prompt": "prompt", "labels": "class_labels=[0]", "none": "batch_size=16"}[result.driver]
    call = ", ".join([first, *(f"{name}={value!r}" for name, value in result.call.items())])
    console.say(f"stock diffusers: DiffusionPipeline.from_pretrained(FOLDER)({call})")
    console.result(str(result.export))
    if result.url:
        console.result(result.url)
    compare = " --compare teacher" if result.driver == "none" else ""
    prompt = ' -p "a photo of a cat"' if result.driver == "prompt" else ""
    console.hint(f"scm-distill sample {result.run}{prompt} --grid{compare}")


def _plan_facts(plan: TrainPlan) -> dict[str, Any]:
    """The rows of the table, which are the keys of the JSON; a row that does not concern this run is left away."""
    from scm_distill.training.memory.plan import gib

    advice = ", ".join(f"{change} saves {gib(saved)}" for change, saved in plan.memory_advice) or "no setting helps"
    facts = {
        "teacher": f"{plan.repo}, {plan.denoiser}, {plan.prediction}",
        "parameters": plan.parameters,
        "sample": console.shape(plan.sample_shape),
        "times": f"{plan.t_min:.4f} to {plan.t_max:.4f} (t_max)",
        "samples": plan.samples,
        "classes": plan.classes or "unconditional",
        "conditions": f"{plan.conditions}, by {plan.driver}" if plan.driver else None,
        "guidance": plan.guidance,
        "verified": ", ".join(f"{name} {error:.0e}" for name, error in plan.verified.items()) if plan.driver else None,
        "warning": " ".join(f"{doubt}." for doubt in plan.doubts) or None,
        "memory a process": plan.memory,
        "memory free": f"{gib(plan.memory_free)} on this machine's {plan.device}",
        "memory is short": advice if plan.memory_short else None,
        "push": "; ".join(plan.push) or None,
        "processes": plan.processes,
        "steps": plan.steps,
        "epochs": plan.epochs,
    }
    return {name: value for name, value in facts.items() if value is not None}
