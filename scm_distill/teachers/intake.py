"""What is known of a teacher before anything heavy is loaded: from its index, its class, and its files."""

from collections.abc import Mapping
from pathlib import Path

from scm_distill.errors import UserError
from scm_distill.teachers import parts, pipeline_class, pipeline_index, unet2d


def check(folder: str, repo: str, revision: str | None) -> None:
    """Raise UserError where the pipeline in `folder`, a folder or a Hub id, cannot be a teacher.

    `repo` is what the user calls it. Of a Hub id only configuration files are downloaded.
    """
    index: Mapping[str, object] = pipeline_index.read(folder, repo, revision)
    beside = parts.given_beside(folder, index, revision)
    refiner = bool(index.get("requires_aesthetics_score"))
    kind = pipeline_class.check(index, repo, text=beside is None and not refiner)
    parts.check_entries(index, kind, repo)
    unet2d.check_parts(index, repo)
    parts.check(index, kind, folder, repo)
    parts.check_sizes(folder, index, repo, revision)
    if beside is not None:
        raise UserError(f"{repo} needs {beside[0]}: {beside[1]}.", pipeline_class.DRIVEN)


def check_file(path: Path, pipeline: str | None, repo: str) -> None:
    """Raise UserError where the single file `path`, of the class called `pipeline`, cannot be a teacher."""
    if not path.is_file():
        raise UserError(f"There is no file {repo}.", "Check teacher.repo.")
    if pipeline is not None:
        pipeline_class.check({"_class_name": pipeline}, repo, single=True)
    if what := parts.not_whole(path):
        raise UserError(f"{repo} is {what[0]}.", what[1])
