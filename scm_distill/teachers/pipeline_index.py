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
    if not path.exists():
        try:
            return dict(DiffusionPipeline.load_config(folder, revision=revision))
        except Exception as error:  # anything can come out of a failed download
            raise not_loaded(folder, repo, error) from error
    try:  # diffusers' own errors do not name the file
        index = files.read_json(path)
        if not isinstance(index.get("_class_name"), str | list):
            raise Damaged(path, f"has {index.get('_class_name')!r} as _class_name, where a pipeline class belongs")
    except Damaged as error:
        fix = (
            "Give a folder as save_pretrained of a pipeline writes it; an export is made again by train --resume auto."
        )
        raise UserError(error.problem, fix) from error
    return index
