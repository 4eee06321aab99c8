"""Uploading files: only what changed, large ones one by one, over xet or LFS, in one commit."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from scm_distill.artifacts.layout import StudentFolder
from scm_distill.progress import Reporter
from scm_distill.publish import staging
from scm_distill.publish.hub_errors import NoXet, explained

LARGE = 5 << 20  # bytes; such files are uploaded one by one, so that an interrupted push goes on at the next
OURS = "|".join(  # what a push writes at fixed places, and its gallery
    [*map(re.escape, staging.TOP), r"samples/\d+\.(png|gif|mp4|wav)", r"training/(config\.yaml|metrics\.jsonl)"]
)
STALE = (".safetensors", ".safetensors.index.json")  # of an earlier push, in the folder of a part


def changed(files: Mapping[str, Path], there: Mapping[str, RepoFile]) -> list[str]:
    """The files that the repo does not hold as they are."""

    def same(path: Path, entry: RepoFile) -> bool:
        if path.stat().st_size != entry.size:
            return False
        with path.open("rb") as file:
            if entry.lfs is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
            return git_hash(file.read()) == entry.blob_id

    return [name for name, path in files.items() if name not in there or not same(path, there[name])]


def stale(model: StudentFolder, files: Mapping[str, Path], there: Mapping[str, RepoFile]) -> list[str]:
    """What an earlier push left of another student: weights in the folder of a part, and files that only we write."""
    parts = tuple(f"{name}/" for name in staging.components(model.export))
    ours = re.compile(OURS)
    return [
        name
        for name in there
        if name not in files and ((name.startswith(parts) and name.endswith(STALE)) or ours.fullmatch(name))
    ]


def megabytes(size: int) -> str:
    """A size to read."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def commit(
    api: HfApi,
    files: Mapping[str, Path],
    gone: Sequence[str],
    parent: str,
    where: Mapping[str, Any],
    report: Reporter,
    token: str | None,
) -> CommitInfo:
    """Add `files` and delete `gone` on top of `parent`. `where`: repo_id, revision, create_pr.

    A Hub without a xet store refuses hf-xet's first question, and the client does not go on over LFS: we do, once.
    """
    try:
        with explained(api.endpoint, where["repo_id"], token):
            return _attempt(api, files, gone, parent, where, report)
    except NoXet:
        report.say(f"{api.endpoint} has no xet store: uploading over LFS")
    used, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True  # read at each upload
    try:
        return _attempt(api, files, gone, parent, where, report)
    finally:
        constants.HF_HUB_DISABLE_XET = used


def _attempt(
    api: HfApi,
    files: Mapping[str, Path],
    gone: Sequence[str],
    parent: str,
    where: Mapping[str, Any],
    report: Reporter,
) -> CommitInfo:
    additions = [CommitOperationAdd(name, path) for name, path in files.items()]
    large = [addition for addition in additions if addition.upload_info.size >= LARGE]
    for i, addition in enumerate(large):
        size = megabytes(addition.upload_info.size)
        report.say(f"uploading {addition.path_in_repo}, {size} ({i + 1} of {len(large)} large files)")
        api.preupload_lfs_files(additions=[addition], free_memory=False, **where)
    deletions = [CommitOperationDelete(name) for name in gone]
    made: CommitInfo = api.create_commit(
        operations=[*additions, *deletions],
        commit_message="Two-step student by scm-distill",
        parent_commit=parent,
        **where,
    )
    return made
