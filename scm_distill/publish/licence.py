"""The licence that a student is published under: its teacher's, or the one that is given."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scm_distill.errors import UserError
from scm_distill.publish.card_text import LICENCE_FILES

UNKNOWN = ("", "none", "unknown")
FIELDS = ("license", "license_name", "license_link")  # of a model card


def licence(facts: Mapping[str, Any], override: str | None = None, folder: Path | None = None) -> dict[str, str] | None:
    """Front matter: license, and for `other` license_name and license_link; None where it is not known.

    `override` is a licence of the Hub's list, such as apache-2.0. A link that is relative is that of a file: of the
    teacher's repository, or, for a local teacher, of the export `folder`, into which the licence files were copied.
    """
    inherited = {name: str(value) for name, value in facts["license"].items()}
    if override is not None and override != inherited.get("license"):
        return None if override.strip().lower() in UNKNOWN else {"license": override}
    name, link = inherited.get("license", ""), inherited.get("license_link")
    if link and "://" not in link:
        if facts["hub_id"]:
            inherited["license_link"] = f"https://huggingface.co/{facts['hub_id']}/blob/main/{link}"
        elif folder is None or not (folder / link).is_file():
            del inherited["license_link"]
    if name.lower() in UNKNOWN or (name == "other" and len(inherited) == 1):
        return None
    return inherited


def chosen(given: str | None, facts: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The card's licence fields; empty where nothing is known. `given`: an id of the Hub, or NAME=URL for another.

    Raises UserError for `other` without the name and the address that the Hub wants then.
    """
    if given and "=" in given:
        name, link = (part.strip() for part in given.split("=", 1))
        if not name or "://" not in link:
            raise UserError(f"{given!r} is no NAME=URL of a licence.", "Write for example my-licence=https://...")
        return {"license": "other", "license_name": name, "license_link": link}
    picked = licence(facts, given, folder) or {}
    if picked.get("license") == "other" and len(picked) < len(FIELDS):
        raise UserError(
            "The licence `other` needs a name and an address.",
            "Give both, by --license or push.license: NAME=URL, such as flux-1-dev-non-commercial-license=https://...",
        )
    return picked


def refuse_unknown(picked: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Raise UserError where a public repo would have no licence."""
    if not picked:
        raise UserError(
            f"The licence of the teacher, {facts['base_model']}, is not known.",
            "Give the student's own by --license or push.license, such as apache-2.0, or push it private.",
        )


def warnings(picked: Mapping[str, str], inherited: Mapping[str, str], teacher: str | None, *, gated: bool) -> list[str]:
    """What whoever publishes should know."""
    said = " ".join([*picked.values(), *inherited.values()]).lower()
    found = []
    if gated:
        found.append(f"{teacher} is gated: the terms that you accepted there may bind the student too")
    if "-nc" in said or "non-commercial" in said or "noncommercial" in said:
        found.append("the licence of the teacher or of the card forbids commercial use; that holds for the student too")
    if inherited and _named(picked) != _named(inherited):
        found.append(f"the licence of the teacher is {_named(inherited)}; the card says {_named(picked)}")
    return found


def _named(fields: Mapping[str, str]) -> str:
    return fields.get("license_name") or fields.get("license", "not known")


def copy_licence(repo: str, folder: Path) -> None:
    """The licence files of a teacher's own folder, into `folder`; none for a Hub id or a single file."""
    home = Path(repo).expanduser()
    if home.is_dir():
        for pattern in LICENCE_FILES:
            for file in sorted(home.glob(pattern)):
                if file.is_file():
                    shutil.copyfile(file, folder / file.name)
