"""The command line, put together from its commands. Nothing here imports torch before a command needs it."""

from typing import Annotated

import typer

from scm_distill import __version__
from scm_distill.cli import console, launch
from scm_distill.cli.doctor import doctor
from scm_distill.cli.evaluate import evaluate
from scm_distill.cli.inspect import inspect
from scm_distill.cli.push import push
from scm_distill.cli.recipes import app as recipes_app
from scm_distill.cli.report import report
from scm_distill.cli.sample import sample
from scm_distill.cli.train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Turn a pretrained diffusion model into one that samples in two steps.",
    epilog="First run: scm-distill train digits, then scm-distill sample runs/digits --grid",
)
for command in (train, sample, inspect, doctor, report, push):
    app.command()(command)
app.command("eval")(evaluate)
app.add_typer(recipes_app, name="recipes")


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
