"""What is given as a teacher: a pipeline folder, `builtin:NAME`, a Hub id, or one .safetensors file."""

import re
from pathlib import Path

from scm_distill import builtin
from scm_distill.artifacts.layout import INDEX
from scm_distill.errors import UserError
from scm_distill.teachers.no_pipeline import no_pipeline

SINGLE = ".safetensors"
OTHER_WEIGHTS = (".ckpt", ".bin", ".pt", ".pth", ".gguf", ".pkl", ".onnx", ".msgpack", ".h5", ".sft")


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
            raise no_pipeline(path, repo)
        return str(path)
    if found := re.match(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", repo):
        raise UserError(f"{repo} is an address, not a Hub id.", f"Give {found.group(1)}.")
    if Path(repo).suffix.lower() in OTHER_WEIGHTS and (path.exists() or repo.count("/") != 1):
        raise _other_weights(path, repo)
    if path.is_file():
        inside = path.parent / INDEX
        raise UserError(
            f"{repo} is a file, and no {SINGLE} file.",
            f"Give the pipeline folder {path.parent}." if inside.is_file() else "Give a pipeline folder, or a Hub id.",
        )
    if path.exists() or repo.startswith(("/", "./", "../", "~")) or repo.endswith("/") or repo.count("/") != 1:
        raise UserError(f"There is no pipeline folder {repo}.", "Check the path, or give a Hub id such as org/name.")
    return repo


def hub_id_of(repo: str) -> str | None:
    """The Hub id that `repo` is, or of which it is a snapshot in a Hub cache; None for what has none. Raises UserError.

    Files, builtins and other folders have none.
    """
    if repo.endswith(SINGLE) and not Path(repo).is_dir():
        return None
    path = Path(resolve(repo))
    if not path.is_dir():
        return repo
    snapshots = path.absolute().parent
    name = snapshots.parent.name.split("--")
    return "/".join(name[1:]) if snapshots.name == "snapshots" and name[0] == "models" and len(name) > 1 else None


def _other_weights(path: Path, repo: str) -> UserError:
    if not path.exists():
        return UserError(f"There is no file {repo}.", "Check teacher.repo.")
    above = next((p for p in path.absolute().parents[:2] if (p / INDEX).is_file()), None)
    if above is not None:
        return UserError(f"{repo} is a file of one part.", f"Give the pipeline folder {above}.")
    suffix = path.suffix.lower()
    return UserError(
        f"{repo} is a {suffix} file, which is not loaded{': it can run code' if suffix in _PICKLES else ''}.",
        "Give its .safetensors file, with teacher.pipeline and teacher.config, or the folder that "
        "`from_single_file(FILE).save_pretrained(FOLDER)` of its diffusers class writes.",
    )


_PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
