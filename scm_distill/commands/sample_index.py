"""The files of `sample`: their endings, and the index that says what each of them is."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.record import Record
from scm_distill.errors import UserError
from scm_distill.progress import Reporter
from scm_distill.sampling.backends import Facts

INDEX = "index.jsonl"
FORMATS = ("mp4", "gif")


class Entry(Record):
    """A line of index.jsonl: a file, and how it was drawn."""

    file: str
    seed: int
    prompt: str | None = None
    label: int | None = None
    steps: int
    by: str  # student or teacher
    flagged: bool = False  # by a safety checker: the file is black


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
    """index.jsonl of a folder, a line a file; entries of earlier calls stay unless their file is written anew."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path, self._names, self.begun = folder / INDEX, set(names), False

    def add(self, entry: Entry) -> None:
        """Note a file that is complete."""
        if not self.begun:
            self.begun = True
            kept = [line for line, entry in self._lines() if entry is not None and entry.file not in self._names]
            files.write_text(self.path, "".join(line + "\n" for line in kept))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(entry.line() + "\n")

    def check(self, report: Reporter) -> None:
        """Say so where a killed process left half a line; it will go.

        Raises UserError for a file of this name that is no index, or one of another version.
        """
        entries = [entry for _, entry in self._lines()]
        if None in entries[:-1] or entries == [None]:
            raise UserError(f"{self.path} is no index of samples.", "Choose another folder with -o.")
        if None in entries:
            report.say(f"the last line of {self.path} is torn: it is left out")

    def _lines(self) -> Iterator[tuple[str, Entry | None]]:
        for line in files.lines_of(self.path):
            try:
                yield line, Entry.parse(line, self.path)
            except Damaged:
                yield line, None
