"""Options that several commands have."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")]
Processes = Annotated[
    int | None, typer.Option("--num-processes", min=1, help="Processes on this machine, one a GPU. Default: one.")
]
