"""The push that a recipe plans: its rights are looked at before training, and it is made after the export."""

import shlex
import tempfile
from pathlib import Path

from scm_distill import config, teachers
from scm_distill.artifacts import layout
from scm_distill.errors import UserError
from scm_distill.progress import Reporter
from scm_distill.publish import hub
from scm_distill.publish.licence import copy_licence


def preflight(recipe: config.Recipe) -> list[str]:
    """Look at token, rights, network and licence before hours of training, and say what was found.

    Nothing is changed. Empty where no push is planned. Raises UserError.
    """
    push, repo = recipe.push, recipe.teacher.repo
    if push.repo is None:
        return []
    client = hub.Client()
    target = client.preflight(push.repo, private=push.private)
    hub_id = teachers.hub_id_of(repo)
    facts = {"base_model": hub_id or Path(repo).name, "hub_id": hub_id, "license": teachers.license_of(repo)}
    with tempfile.TemporaryDirectory() as as_exported:
        copy_licence(repo, Path(as_exported))
        _, warnings = client.licence(facts, push.license, Path(as_exported), public=not target.private)
    kind = "private" if target.private else "public"
    return [f"{target.repo} ({kind}, {'there' if target.exists else 'new'}) may be written", *warnings]


def publish(recipe: config.Recipe, folder: Path, report: Reporter) -> str | None:
    """Push the student of a finished run; its address, or None where none is planned. Raises UserError."""
    push = recipe.push
    if push.repo is None:
        return None
    try:
        pushed = hub.Client().push(
            layout.local_student(str(folder)), push.repo, private=push.private, revision=push.revision,
            license=push.license, report=report,
        )  # fmt: skip
    except UserError as error:
        words = ["scm-distill", "push", str(folder), push.repo, *(["--private"] if push.private else [])]
        for flag, value in (("--revision", push.revision), ("--license", push.license)):
            words += [flag, value] if value else []
        again = f"The student is in {folder}; to push it: {shlex.join(words)}"
        raise UserError(
            f"Trained and exported, but not pushed: {error.problem}", f"{error.fix} {again}", code=1
        ) from error
    return pushed.url
