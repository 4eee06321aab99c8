"""report.html of a run: one file, from what lies in the run folder, that asks for nothing else and runs nothing."""

from pathlib import Path

from scm_distill.artifacts import files
from scm_distill.errors import UserError
from scm_distill.report import run_folder

FILE = "report.html"


def write(run: Path, out: Path | None = None) -> Path:
    """Make `out` (RUN/report.html), complete or not at all. Raises UserError."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from scm_distill.report import page  # matplotlib

    found = run_folder.read(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("page.html").render(page.of(found))
    path = out or run / FILE
    try:
        files.write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Choose another file with -o.") from error
    return path
