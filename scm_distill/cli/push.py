"""`scm-distill push`: a student onto the Hub."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from scm_distill.cli import console
from scm_distill.cli.options import Json

if TYPE_CHECKING:
    from scm_distill.publish.hub import PushPlan


def push(
    model: Annotated[str, typer.Argument(help="A run folder, or an exported pipeline folder.")],
    repo: Annotated[str, typer.Argument(help="NAMESPACE/NAME on the Hub, or NAME for one of your own.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repo private, if it is a new one.")] = False,
    revision: Annotated[str | None, typer.Option(help="Push to this branch; made where there is none.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the change as a pull request.")] = False,
    license: Annotated[
        str | None,
        typer.Option(metavar="ID|NAME=URL", help="Licence of the student. Default: its teacher's."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files and card; ask the Hub only who you are.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish a student on the Hub, and print its address. A second push sends only what changed.

    The token is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT names another Hub.

    Examples: scm-distill push runs/digits me/digits-scm --private; scm-distill push runs/sd15 me/sd15-scm --dry-run
    """
    with console.user_errors(as_json=as_json):
        from huggingface_hub.utils.tqdm import disable_progress_bars

        from scm_distill.commands import push

        if dry_run:
            plan = push.plan_push(model, repo, private=private, license=license)
            if as_json:
                console.result_json(dataclasses.asdict(plan))
            else:
                _show(plan)
            return
        if as_json or not console.err.is_terminal:
            disable_progress_bars()
        with console.Live(quiet=as_json) as live:
            pushed = push.push(
                model, repo, private=private, revision=revision, create_pr=create_pr, license=license, report=live
            )
        if as_json:
            console.result_json(pushed)
        else:
            console.result(pushed.url)


def _show(plan: "PushPlan") -> None:
    console.result(plan.card)
    rows = [[name, f"{size:,}"] for name, size in sorted(plan.files.items())]
    console.table(f"Files for {plan.repo}", ("file", "bytes"), rows)
    for warning in plan.warnings:
        console.say(f"note: {warning}")
    console.say(f"dry run as {plan.user}: nothing was sent" if plan.user else "dry run without a token")
