"""`scm-distill report`: the page of a run, made anew."""

from pathlib import Path
from typing import Annotated

import typer

from scm_distill.cli import console
from scm_distill.cli.options import Json


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File. Default: RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Make the run's report.html anew, with what was measured since.

    Example: scm-distill report runs/digits
    """
    with console.user_errors(as_json=as_json):
        from scm_distill import report

        path = report.write(run, out, report=console.Live(quiet=as_json))
        if as_json:
            console.result_json({"report": str(path)})
            return
        console.result(str(path))
