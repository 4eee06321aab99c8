"""The licence of a student: its teacher's, unless its owner says otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNKNOWN = ("", "none", "unknown")


def licence(facts: Mapping[str, Any], override: str | None = None, folder: Path | None = None) -> dict[str, str] | None:
    """Front matter: license, and for `other` license_name and license_link; None where it is not known.

    `override` is a licence of the Hub's list, such as apache-2.0. A link that is relative is that of a file: of the
    teacher's repository, or, for a local teacher, of the export `folder`, into which the licence files were copied.
    """
    inherited = {name: str(value) for name, value in facts["license"].items()}
    if override is not None and override != inherited.get("license"):
        return {"license": override}
    name, link = inherited.get("license", ""), inherited.get("license_link")
    if link and "://" not in link:
        if facts["hub_id"]:
            inherited["license_link"] = f"https://huggingface.co/{facts['hub_id']}/blob/main/{link}"
        elif folder is None or not (folder / link).is_file():
            del inherited["license_link"]
    if name.lower() in UNKNOWN or (name == "other" and len(inherited) == 1):
        return None
    return inherited
