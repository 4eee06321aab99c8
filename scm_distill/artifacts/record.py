"""What all our JSON files have in common: a frozen model with a version, read with one kind of error.

`version` belongs to a kind of file, and a file of another version is not read. Settings that are added with a default
do not raise it: keys that this version does not know are ignored, so that it reads what a later release wrote.
A key that is removed, renamed or takes on another meaning raises it.
"""

import json
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged


class Part(BaseModel):
    """A JSON object within a file."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Record(Part):
    """A JSON file, or a line of one."""

    FIX: ClassVar[str] = "Remove it, and make it again."  # what to do where it cannot be used

    version: int = 1

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file. Raises Damaged, a UserError, for a file that is missing or anything else than one."""
        try:
            return cls.parse(files.read_text(path), path)
        except Damaged as error:
            raise Damaged(path, error.reason, cls.FIX if error.fix == Damaged.FIX else error.fix) from error

    @classmethod
    def parse(cls, text: str, path: Path) -> Self:
        """The record that `text` of the file `path` holds. Raises Damaged."""
        content = files.json_object(text, path)
        version, ours = content.get("version"), cls.model_fields["version"].default
        if version != ours:
            newer = isinstance(version, int) and version > ours
            raise Damaged(path, f"is of {'a later' if newer else 'an earlier'} version of scm-distill", cls.FIX)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Damaged(path, f"is damaged at {where}: {first['msg'].lower()}", cls.FIX) from error

    def content(self) -> dict[str, object]:
        """The fields that were given, as JSON holds them, `version` first."""
        return {"version": self.version, **self.model_dump(exclude={"version"}, exclude_unset=True)}

    def write(self, path: Path) -> None:
        """Write the file, complete or not at all."""
        files.write_json(path, self.content())

    def line(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(self.content(), ensure_ascii=False)
