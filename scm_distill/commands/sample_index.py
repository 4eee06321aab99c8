"""The files of `sample`: their endings, and the index that says what each of them is."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scm_distill.errors import UserError
from scm_distill.sampling.backends import Facts

INDEX = "index.jsonl"
FORMATS = ("mp4", "gif")


def suffix_of(facts: Facts, form: str | None) -> str:
    """The ending of the files. Raises UserError for a format that is unknown, or cannot be written here."""
    if form is not None and (facts.modality != "video" or form not in FORMATS):
        fix = "Leave --format away." if facts.modality != "video" else f"Choose {' or '.join(FORMATS)}."
        raise UserError(f"No {facts.modality} is written as {form}.", fix)
    if facts.modality != "video":
        return {"image": ".png", "audio": ".wav"}[facts.modality]
    if form != "gif" and not all(map(find_spec, ("imageio", "imageio_ffmpeg"))):
        raise UserError(
            "Clips are written as .mp4 by imageio and ffmpeg, which are not installed.",
            "pip install 'scm-distill[teachers]', or choose --format gif.",
        )
    return f".{form or 'mp4'}"


class Index:
    """index.jsonl of a folder, an object a file; entries of earlier calls stay unless their file is written anew."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path, self._names, self.begun = folder / INDEX, set(names), False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note a file that is complete."""
        if not self.begun:
            self.begun = True
            kept = [line for line in self._lines() if json.loads(line)["file"] not in self._names]
            beside = self.path.with_name("." + INDEX)
            beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            beside.rename(self.path)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def check(self) -> None:
        """Raise UserError where there is a file of this name that is none of ours."""
        try:
            for line in self._lines():
                json.loads(line)["file"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} is no index of samples.", "Choose another folder with -o.") from error

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
