"""The licence that a student is published under: its teacher's, or another that the publisher names."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scm_distill.artifacts.export_record import Facts
from scm_distill.artifacts.licence_fields import FIELDS
from scm_distill.errors import UserError
from scm_distill.publish.card_text import LICENCE_FILES

UNKNOWN = ("", "none", "unknown")


@dataclass(frozen=True)
class TeacherLicence:
    """A teacher, and the licence fields of its own card: `license`, `license_name`, `license_link`, or none."""

    name: str  # to show
    hub_id: str | None  # NAMESPACE/NAME, where the teacher is on the Hub
    fields: Mapping[str, str]


def of_teacher(facts: Facts) -> TeacherLicence:
    """The teacher's licence as an export knows it."""
    return TeacherLicence(facts.base_model, facts.hub_id, facts.license)


def licence(teacher: TeacherLicence, override: str | None = None, folder: Path | None = None) -> dict[str, str] | None:
    """The licence fields of the student's front matter; None where no licence is known.

    `override` is a licence of the Hub's list, such as apache-2.0, instead of the teacher's. A relative license_link
    names a file in the teacher's repository or, for a local teacher, in the export `folder`, which has copies of the
    teacher's licence files; a link to a file that is not there is left out.
    """
    inherited = dict(teacher.fields)
    if override is not None and override != inherited.get("license"):
        return None if override.strip().lower() in UNKNOWN else {"license": override}
    name, link = inherited.get("license", ""), inherited.get("license_link")
    if link and "://" not in link:
        if teacher.hub_id:
            inherited["license_link"] = f"https://huggingface.co/{teacher.hub_id}/blob/main/{link}"
        elif folder is None or not (folder / link).is_file():
            del inherited["license_link"]
    if name.lower() in UNKNOWN or (name == "other" and len(inherited) == 1):
        return None
    return inherited


def chosen(requested: str | None, teacher: TeacherLicence, folder: Path) -> dict[str, str]:
    """The student's licence fields, complete as the Hub wants them; empty where no licence is known.

    `requested` is what the publisher asks for: an id of the Hub's list, NAME=URL for any other licence, or None for
    the teacher's. `folder` is the export. Raises UserError for `other` without a name and an address.
    """
    if requested and "=" in requested:
        name, link = (part.strip() for part in requested.split("=", 1))
        if not name or "://" not in link:
            raise UserError(f"{requested!r} is no NAME=URL of a licence.", "Write for example my-licence=https://...")
        return {"license": "other", "license_name": name, "license_link": link}
    fields = licence(teacher, requested, folder) or {}
    if fields.get("license") == "other" and len(fields) < len(FIELDS):
        raise UserError(
            "The licence `other` needs a name and an address.",
            "Give both, by --license or push.license: NAME=URL, such as flux-1-dev-non-commercial-license=https://...",
        )
    return fields


def refuse_unknown(fields: Mapping[str, str], teacher: str) -> None:
    """Raise UserError where a public repository would have no licence (`fields` is empty); `teacher` is its name."""
    if not fields:
        raise UserError(
            f"The licence of the teacher, {teacher}, is not known.",
            "Give the student's own by --license or push.license, such as apache-2.0, or push it private.",
        )


def warnings(fields: Mapping[str, str], inherited: Mapping[str, str], hub_id: str | None, *, gated: bool) -> list[str]:
    """What the publisher should know, a sentence each, without a full stop.

    `fields` are the student's licence fields, `inherited` those of its teacher, whose repository on the Hub is
    `hub_id`; `gated`: that repository asks for terms to be accepted.
    """
    licences = " ".join([*fields.values(), *inherited.values()]).lower()
    found = []
    if gated:
        found.append(f"{hub_id} is gated: the terms that you accepted there may bind the student too")
    if "-nc" in licences or "non-commercial" in licences or "noncommercial" in licences:
        found.append("the licence of the teacher or of the card forbids commercial use; that holds for the student too")
    if inherited and _name(fields) != _name(inherited):
        found.append(f"the licence of the teacher is {_name(inherited)}; the card says {_name(fields)}")
    return found


def _name(fields: Mapping[str, str]) -> str:
    return fields.get("license_name") or fields.get("license", "not known")


def copy_licence(repo: str, folder: Path) -> None:
    """Copy the licence files of a teacher's folder `repo` into `folder`; a Hub id or a single file has none to copy."""
    home = Path(repo).expanduser()
    if home.is_dir():
        for pattern in LICENCE_FILES:
            for file in sorted(home.glob(pattern)):
                if file.is_file():
                    shutil.copyfile(file, folder / file.name)
