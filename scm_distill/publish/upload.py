"""Uploading files: only what changed, large ones one by one, over xet or LFS, in one commit."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile

from scm_distill.artifacts.layout import StudentFolder
from scm_distill.progress import Reporter
from scm_distill.publish import staging
from scm_distill.publish.hub_errors import NoXet, explained
from scm_distill.publish.hub_private import without_xet

LARGE = 5 << 20  # bytes; such files are uploaded one by one, so that an interrupted push goes on at the next
OURS = re.compile(  # the files that a push writes under fixed names, and the gallery
    "|".join(
        [*map(re.escape, staging.TOP), r"samples/\d+\.(png|gif|mp4|wav)", r"training/(config\.yaml|metrics\.jsonl)"]
    )
)
STALE = (".safetensors", ".safetensors.index.json")  # weights of an earlier push, in the folder of a component


@dataclass(frozen=True)
class Destination:
    """Where a commit goes: a repository, and a branch of it (None: main) or a new pull request."""

    repo_id: str
    revision: str | None
    create_pr: bool


def changed(files: Mapping[str, Path], remote: Mapping[str, RepoFile]) -> list[str]:
    """The names in `files` whose content the repository does not hold; both are by path in the repository."""
    return [name for name, path in files.items() if name not in remote or not _same(path, remote[name])]


def _same(path: Path, entry: RepoFile) -> bool:
    """Whether a file has the content that the Hub lists: by its size, then its sha256 (LFS) or its git object id."""
    if path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        if entry.lfs is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
        blob = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
        blob.update(file.read())
        return blob.hexdigest() == entry.blob_id


def stale(model: StudentFolder, files: Mapping[str, Path], remote: Mapping[str, RepoFile]) -> list[str]:
    """What an earlier push left of another student, and `files` does not replace: to be deleted.

    That is weights in the folders of the pipeline's components, and files that only a push writes.
    """
    folders = tuple(f"{name}/" for name in staging.components(model.export))
    return [
        name
        for name in remote
        if name not in files and ((name.startswith(folders) and name.endswith(STALE)) or OURS.fullmatch(name))
    ]


def megabytes(size: int) -> str:
    """A number of bytes in MB, or in GB from 1 GB on."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def commit(
    api: HfApi,
    files: Mapping[str, Path],
    deletions: Sequence[str],
    parent: str,
    destination: Destination,
    report: Reporter,
    token: str | None,
) -> CommitInfo:
    """Add `files` and delete `deletions`, by path in the repository, in one commit on top of the commit `parent`.

    A Hub without a xet store refuses hf-xet's first question, and the client does not go on over LFS: this does, once.
    Raises UserError for what the Hub refuses; `token` is kept out of its text.
    """
    try:
        with explained(api.endpoint, destination.repo_id, token):
            return _commit(api, files, deletions, parent, destination, report)
    except NoXet:
        report.say(f"{api.endpoint} has no xet store: uploading over LFS")
    with without_xet():
        return _commit(api, files, deletions, parent, destination, report)


def _commit(
    api: HfApi,
    files: Mapping[str, Path],
    deletions: Sequence[str],
    parent: str,
    destination: Destination,
    report: Reporter,
) -> CommitInfo:
    """The work of `commit`, over xet or LFS as the client is set."""
    additions = {name: CommitOperationAdd(name, path) for name, path in files.items()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    large = [name for name, size in sizes.items() if size >= LARGE]
    for i, name in enumerate(large):
        report.say(f"uploading {name}, {megabytes(sizes[name])} ({i + 1} of {len(large)} large files)")
        api.preupload_lfs_files(additions=[additions[name]], free_memory=False, **asdict(destination))
    created: CommitInfo = api.create_commit(
        operations=[*additions.values(), *map(CommitOperationDelete, deletions)],
        commit_message="Two-step student by scm-distill",
        parent_commit=parent,
        **asdict(destination),
    )
    return created
