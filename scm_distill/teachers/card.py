"""What a teacher's own model card says of its licence."""

import re
from pathlib import Path
from typing import Any

import yaml

from scm_distill.artifacts.licence_fields import licence_fields
from scm_distill.teachers.places import SINGLE, hub_id_of, resolve

FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)  # the YAML in front of a card


def license_of(repo: str) -> dict[str, str]:
    """The licence fields of a teacher's own card, if it is on this machine; nothing is downloaded. Raises UserError.

    Several licences are one text, separated by commas. A card that is no text, or whose front matter is no YAML, has
    no fields: it decorates a teacher.
    """
    from huggingface_hub import try_to_load_from_cache

    if repo.endswith(SINGLE):
        return {}
    folder = Path(resolve(repo))
    card = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(hub_id_of(repo) or repo, "README.md")
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return {}
    return licence_fields(_front_matter(Path(card)))


def _front_matter(card: Path) -> Any:
    try:
        found = FRONT.search(card.read_bytes().decode("utf-8-sig", errors="replace"))
        return yaml.safe_load(found[1]) if found else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # ValueError: dates that there are not
        return None
