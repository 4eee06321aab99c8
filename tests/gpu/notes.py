"""What a stage finds out, written to a file at once, so that a stage which is killed keeps what it had."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Notes:
    """Figures and failures of a stage that runs on `device` ("cuda" or "cpu"), in small sizes where `toy` is set.

    `real` says whether the device is a GPU: "cuda" may be the one of tests/foreign, which computes on the CPU.
    `folder` is an empty folder for the files of the stage; `answer` is the file that `run` reads.
    """

    answer: Path
    folder: Path
    device: str
    toy: bool
    real: bool
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    complete: bool = False

    def put(self, name: str, value: Any) -> None:
        """Keep a figure; `value` is JSON."""
        self.figures[name] = value
        self.save()

    def expect(self, holds: bool, otherwise: str) -> None:
        """The stage fails, with the sentence `otherwise`, unless `holds`; it goes on all the same."""
        if not holds:
            self.failures.append(otherwise)
            self.save()

    def save(self) -> None:
        """Write all to the file, which is whole at any time."""
        names = ("facts", "figures", "failures", "complete")
        beside = self.answer.with_suffix(".part")
        beside.write_text(json.dumps({name: getattr(self, name) for name in names}))
        beside.replace(self.answer)
