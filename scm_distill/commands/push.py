"""`push`, and the push that a recipe plans: looked at before training, made after the export."""

import contextlib
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from scm_distill import config
from scm_distill.artifacts import layout
from scm_distill.commands.arguments import AnyPath
from scm_distill.errors import UserError
from scm_distill.progress import Reporter, Silent
from scm_distill.publish import hub
from scm_distill.publish.hub import PushPlan, PushResult
from scm_distill.publish.licence import TeacherLicence, copy_licence


def preflight(recipe: config.Recipe) -> list[str]:
    """Look at token, rights, network and licence before hours of training, and say what was found.

    Nothing is changed. Empty where no push is planned. Raises UserError.
    """
    planned, repo = recipe.push, recipe.teacher.repo
    if planned.repo is None:
        return []
    from scm_distill import teachers  # torch, which a push of a finished student does not need

    client = hub.Client()
    target = client.preflight(planned.repo, private=planned.private)
    hub_id = teachers.hub_id_of(repo)
    teacher = TeacherLicence(hub_id or Path(repo).name, hub_id, teachers.license_of(repo))
    with tempfile.TemporaryDirectory() as as_exported:
        copy_licence(repo, Path(as_exported))
        _, warnings = client.licence(teacher, planned.license, Path(as_exported), public=not target.private)
    kind = "private" if target.private else "public"
    return [f"{target.repo} ({kind}, {'exists' if target.exists else 'new'}) may be written", *warnings]


def publish(recipe: config.Recipe, folder: Path, report: Reporter) -> str | None:
    """Push the student of a finished run; its address, or None where none is planned. Raises UserError."""
    planned = recipe.push
    if planned.repo is None:
        return None
    try:
        pushed = push(
            folder, planned.repo, private=planned.private, revision=planned.revision, license=planned.license,
            report=report,
        )  # fmt: skip
    except UserError as error:
        words = ["scm-distill", "push", str(folder), planned.repo, *(["--private"] if planned.private else [])]
        for flag, value in (("--revision", planned.revision), ("--license", planned.license)):
            words += [flag, value] if value else []
        again = f"The student is in {folder}; to push it: {shlex.join(words)}"
        raise UserError(
            f"Trained and exported, but not pushed: {error.problem}", f"{error.fix} {again}", code=1
        ) from error
    return pushed.url


def push(
    model: AnyPath,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    license: str | None = None,
    report: Reporter | None = None,
) -> PushResult:
    """Publish a student on the Hub in one commit; a second push sends only what changed.

    `model` is a run folder or an exported pipeline folder, `repo` NAMESPACE/NAME or the NAME of one of your own. It is
    made where it does not exist, with `private`; `revision` is a branch, `create_pr` proposes the commit instead.
    `license` is an id or NAME=URL, by default the teacher's. The token and the Hub are huggingface_hub's.

    Raises UserError. After a KeyboardInterrupt the same call continues: what is uploaded stays there.
    """
    student = layout.local_student(str(model))
    with _without_bars() if report is None else contextlib.nullcontext():
        try:
            return hub.Client().push(
                student, repo, private=private, revision=revision, create_pr=create_pr, license=license,
                report=report or Silent(),
            )  # fmt: skip
        except KeyboardInterrupt:
            if report is not None:
                report.say("what is uploaded stays there: the same command continues")
            raise


def plan_push(model: AnyPath, repo: str, *, private: bool = False, license: str | None = None) -> PushPlan:
    """What `push` would send, and the card; the Hub is asked for nothing but the account. Raises UserError."""
    return hub.Client().plan(layout.local_student(str(model)), repo, private=private, license=license)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars of its uploads."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
