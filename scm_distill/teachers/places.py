"""What is given as a teacher: a pipeline folder, `builtin:NAME`, a Hub id, or one .safetensors file."""

from pathlib import Path

from scm_distill import builtin
from scm_distill.artifacts.layout import INDEX
from scm_distill.errors import UserError


def resolve(repo: str) -> str:
    """The folder of `builtin:NAME` or of a local path, or the Hub id `repo` itself. Raises UserError.

    A local path must be a pipeline folder; a Hub id is not looked up.
    """
    if packaged := builtin.path(repo):
        if not packaged.is_dir():
            raise UserError(f"This package has no teacher {repo!r}.", "The one that ships is builtin:digits/teacher.")
        return str(packaged)
    path = Path(repo).expanduser()
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise UserError(
                f"{repo} is no diffusers pipeline folder: it has no model_index.json.",
                "Give the folder that save_pretrained of a pipeline wrote, or a Hub id.",
            )
        return str(path)
    if path.exists() or repo.startswith(("/", "./", "../", "~")) or repo.endswith("/") or repo.count("/") != 1:
        raise UserError(f"There is no pipeline folder {repo}.", "Check the path, or give a Hub id such as org/name.")
    return repo


def hub_id_of(repo: str) -> str | None:
    """The Hub id that `repo` is; None for a folder, a file or a builtin. Raises UserError."""
    return None if repo.endswith(".safetensors") or Path(resolve(repo)).is_dir() else repo
