"""report.html of a run: one file, from what lies in the run folder, that asks for nothing else and runs nothing."""

import os
from pathlib import Path

from scm_distill.artifacts import files, layout
from scm_distill.errors import UserError
from scm_distill.progress import Reporter
from scm_distill.report import run_folder


def write(run: Path, out: Path | None = None, *, report: Reporter | None = None) -> Path:
    """Write the report of the run folder `run` to `out` (RUN/report.html), complete or not at all; returns its path.

    `report` is told of each damaged file that the page does without. Raises UserError for a folder that is no run, for
    a damaged recipe, scm_distill.json or eval.json, and where the page cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from scm_distill.report import page  # matplotlib

    path = out or run / layout.REPORT
    found = run_folder.read(run)
    _refuse_unwritable(path)
    content = page.of(found)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("page.html").render(vars(content))
    try:
        files.write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Choose another file with -o.") from error
    if report:
        for sentence in content.passed_over:
            report.say(f"note: {sentence}")
    return path


def _refuse_unwritable(path: Path) -> None:
    """Raise UserError where no file can be written to `path`, before the plots are drawn."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder.", "Give a file with -o, such as report.html.")
        if not path.parent.is_dir():
            raise UserError(
                f"{path} cannot be written: there is no folder {path.parent}.", "Make it, or choose another."
            )
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Choose another file with -o.") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: its folder is read-only.", "Choose another file with -o.")
