"""`scm-distill recipes`: the packaged recipes, and the schema of every setting."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from scm_distill.cli import console
from scm_distill.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List, show and copy the packaged recipes.")


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Name the packaged recipes, each with the first line of its header."""
    with console.user_errors(as_json=as_json):
        from scm_distill import config

        headers = {name: _text(name).splitlines()[0].lstrip("# ") for name in config.names()}
        if as_json:
            console.result_json(headers)
            return
        for name, header in headers.items():
            console.result(f"{name}  {header}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A packaged recipe or a .yaml file.")]) -> None:
    """Print a recipe."""
    with console.user_errors():
        console.result(_text(name).rstrip())


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A packaged recipe.")],
    to: Annotated[Path | None, typer.Argument(help="Default: NAME.yaml here.")] = None,
) -> None:
    """Copy a recipe, to change it. An existing file is left alone."""
    with console.user_errors():
        from scm_distill import config

        target = to or Path(f"{name}.yaml")
        target = target / f"{name}.yaml" if target.is_dir() else target
        source = config.path_of(name)
        if target.exists():
            raise UserError(f"{target} exists.", "Give another name: scm-distill recipes copy NAME FILE.")
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}.", "Give a folder that exists.") from error
        console.result(str(target))
        console.hint(f"scm-distill train {target} --dry-run")


@app.command()
def schema(as_json: Annotated[bool, typer.Option("--json", help="As a JSON schema.")] = False) -> None:
    """Print every setting of a recipe: its type, its default, what it does, and where the default comes from."""
    with console.user_errors(as_json=as_json):
        from scm_distill import config

        if as_json:
            console.result_json(config.Recipe.model_json_schema())
            return
        console.result(config.settings_page())


def _text(name: str) -> str:
    from scm_distill import config

    return config.path_of(name).read_text(encoding="utf-8")
