"""The model_index.json of a teacher: the class of its pipeline and of each part."""

from pathlib import Path

from diffusers import DiffusionPipeline

from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged
from scm_distill.artifacts.layout import INDEX
from scm_distill.errors import UserError
from scm_distill.teachers.failures import not_loaded
from scm_distill.teachers.places import resolve


def index(repo: str, revision: str | None = None) -> dict[str, object]:
    """The contents of the model_index.json of `repo`. Raises UserError when it is missing or damaged."""
    return read(resolve(repo), repo, revision)


def read(folder: str, repo: str, revision: str | None) -> dict[str, object]:
    """The model_index.json of the folder or Hub id `folder` that the user calls `repo`. Raises UserError."""
    path = Path(folder) / INDEX
    try:
        if path.exists():  # diffusers' own errors do not name the file
            parts = files.read_json(path)
            wrong = [name for name, kind in parts.items() if isinstance(kind, list) and len(kind) != 2]
            if wrong or not isinstance(parts.get("_class_name"), str):
                raise Damaged(path, f"is damaged at {', '.join(wrong) or '_class_name'}")
        return dict(DiffusionPipeline.load_config(folder, revision=revision))
    except Damaged as error:
        fix = (
            "Give a folder as save_pretrained of a pipeline writes it; an export is made again by train --resume auto."
        )
        raise UserError(error.problem, fix) from error
    except Exception as error:  # anything can come out of a damaged folder or a failed download
        raise not_loaded(folder, repo, error) from error
