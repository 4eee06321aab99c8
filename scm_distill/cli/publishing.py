"""The push that a recipe plans: its rights are looked at before training, and it is made after the export."""

from pathlib import Path

from scm_distill import config, teachers
from scm_distill.errors import UserError
from scm_distill.export import hub, staging
from scm_distill.training.report import Reporter


def preflight(recipe: config.Recipe, report: Reporter) -> None:
    """Token, rights, network and licence, before hours of training; nothing is changed. Raises UserError."""
    push, repo = recipe.push, recipe.teacher.repo
    if push.repo is None:
        return
    client = hub.Client()
    target = client.preflight(push.repo, private=push.private)
    hub_id = teachers.hub_id_of(repo)
    facts = {"base_model": hub_id or Path(repo).name, "hub_id": hub_id, "license": teachers.license_of(repo)}
    home = Path(repo if repo.endswith(".safetensors") else teachers.resolve(repo))
    _, warnings = client.licence(facts, push.license, home, public=not target.private)
    kind = "private" if target.private else "public"
    report.say(f"push: {target.repo} ({kind}, {'there' if target.exists else 'new'}) may be written")
    for warning in warnings:
        report.say(f"note: {warning}")


def publish(recipe: config.Recipe, folder: Path, report: Reporter) -> str | None:
    """Push the student of a finished run; its address, or None where none is planned. Raises UserError."""
    push = recipe.push
    if push.repo is None:
        return None
    try:
        pushed = hub.Client().push(
            staging.locate(str(folder)), push.repo, private=push.private, revision=push.revision, license=push.license,
            report=report,
        )  # fmt: skip
    except UserError as error:
        again = f"The student is in {folder}; to push it: scm-distill push {folder} {push.repo}"
        raise UserError(
            f"Trained and exported, but not pushed: {error.problem}", f"{error.fix} {again}", code=1
        ) from error
    return pushed.url
