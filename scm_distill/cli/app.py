"""Typer commands: parse, call, report. Nothing here imports torch before a command needs it."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from scm_distill import __version__
from scm_distill.cli import console, launch
from scm_distill.cli.evaluate import evaluate
from scm_distill.cli.push import push
from scm_distill.cli.recipes import app as recipes_app
from scm_distill.cli.report import report
from scm_distill.cli.sample import sample

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turn a pretrained diffusion model into one that samples in two steps.",
    epilog="First run: scm-distill train digits, then scm-distill sample runs/digits --grid",
)
app.add_typer(recipes_app, name="recipes")
app.command()(push)

Json = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")]


def main() -> None:
    """Run the command line."""
    with launch.attended():
        app()


def _version(wanted: bool) -> None:
    if wanted:
        console.result(f"scm-distill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
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
    num_processes: Annotated[
        int | None, typer.Option("--num-processes", min=1, help="Processes on this machine, one a GPU. Default: one.")
    ] = None,
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
            from scm_distill.commands import train  # torch: seconds, so only once the recipe is known to be right

        console.hush_libraries()
        folder = out or Path("runs") / (recipe if recipe in config.names() else Path(recipe).stem)
        if dry_run:
            _show(train.plan(settings, world=world), as_json=as_json)
            return
        if num_processes and num_processes > 1:
            train.check(settings, folder, resume, world=world)
            changes = [part for override in overrides or () for part in ("--set", override)]
            options = [*changes, "--out", str(folder), *(["--resume", resume] if resume else [])]
            raise typer.Exit(launch.run(["train", *options, *["--json"] * as_json, "--", recipe], world))
        with console.Live(quiet=as_json) as live:
            summary = train.train(settings, folder, resume, live)
        if summary is None:  # a worker process; the main one reports
            return
        if as_json:
            console.result_json(summary)
            return
        rows = [[str(r["sampler"]), str(r["nfe"]), f"{r['distance']:.4g}"] for r in summary["table"]]
        console.table("Distance to the data (lower is better)", ("sampler", "network evaluations", "distance"), rows)
        first = {"prompt": "prompt", "labels": "class_labels=[0]", "none": "batch_size=16"}[summary["driver"]]
        call = ", ".join([first, *(f"{name}={value!r}" for name, value in summary["call"].items())])
        console.say(f"stock diffusers: DiffusionPipeline.from_pretrained(FOLDER)({call})")
        console.result(summary["export"])
        if "url" in summary:
            console.result(summary["url"])
        compare = " --compare teacher" if summary["driver"] == "none" else ""
        prompt = ' -p "a photo of a cat"' if summary["driver"] == "prompt" else ""
        console.hint(f"scm-distill sample {folder}{prompt} --grid{compare}")


app.command()(sample)
app.command("eval")(evaluate)


@app.command()
def inspect(
    teacher: Annotated[str, typer.Argument(help="A pipeline folder, a Hub id, or a single .safetensors file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="As in train; for example -s teacher.call.height=512."),
    ] = None,
    export_check: Annotated[
        bool, typer.Option("--export-check/--no-export-check", help="Write it as a student, and run that by diffusers.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say what a teacher is, whether it can be distilled, and the recipe to start from.

    Examples: scm-distill inspect builtin:digits/teacher; scm-distill inspect runwayml/stable-diffusion-v1-5 --json
    """
    with console.user_errors(as_json=as_json):
        import yaml

        with console.importing():
            from scm_distill.commands import inspect

        console.hush_libraries()
        with console.Live(quiet=as_json) as live:
            facts = inspect.inspect(teacher, overrides or [], export_check=export_check, report=live)
        if as_json:
            console.result_json(facts)
            return
        recipe = facts.pop("recipe")
        _show(facts)
        console.result("")
        console.result(yaml.safe_dump(recipe, sort_keys=False).rstrip())
        console.hint("save these lines as my.yaml, then: scm-distill train my.yaml --dry-run")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and whether the tangent works on it."""
    with console.user_errors(as_json=as_json):
        from scm_distill.commands import doctor

        _show(doctor.doctor(), as_json=as_json)


app.command()(report)


def _show(facts: dict[str, Any], *, as_json: bool = False) -> None:
    if as_json:
        console.result_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        console.result(f"{name:<{width}}  {text}")
