"""What the loopback Hub keeps: users, repos with commits and branches, large files by sha256 or in a xet store."""

import hashlib
import json
import struct
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".png", ".gif", ".mp4", ".wav", ".model")  # what .gitattributes hands to LFS
SHARD_HEADER, SHARD_ENTRY = 48, 48  # bytes in an .mdb shard of hf-xet
VERIFIED, HAS_SHA256 = 1 << 31, 1 << 30  # flags of a file in a shard


@dataclass(frozen=True)
class User:
    """An account, and the token it writes with; `role` is read, write or fineGrained."""

    name: str
    token: str
    role: str = "write"
    orgs: tuple[tuple[str, str], ...] = ()  # name, roleInOrg

    def may_write(self, namespace: str) -> bool:
        """Whether this token may change what belongs to `namespace`."""
        own = namespace == self.name or any(org == namespace and role != "read" for org, role in self.orgs)
        return own and self.role != "read"

    def whoami(self) -> dict[str, Any]:
        """As /api/whoami-v2 tells it."""
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.orgs]
        token = {"displayName": "test", "role": self.role}
        return {"type": "user", "name": self.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


ADA = User("ada", "hf_" + "a" * 34, orgs=(("lab", "write"), ("museum", "read")))
BOB = User("bob", "hf_" + "b" * 34)
READER = User("ada", "hf_" + "r" * 34, role="read")


@dataclass(frozen=True)
class File:
    """One entry of a tree. `content` is None for a large file."""

    size: int
    content: bytes | None = None
    sha256: str | None = None

    @property
    def oid(self) -> str:
        """The git object id: of the content, or of the LFS pointer."""
        content = self.content
        if content is None:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def compared(self) -> str:
        """What the client compares to skip a file that has not changed."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """A snapshot of a repo."""

    sha: str
    title: str
    files: dict[str, File]


@dataclass
class Repo:
    """Commits, and the branches and pull requests that name them."""

    id: str
    private: bool
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("main", "initial commit", {".gitattributes": File(0, b"")})

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch, a pull request or a sha."""
        return self.commits.get(self.refs.get(revision, revision))

    def add(self, ref: str, title: str, files: dict[str, File]) -> Commit:
        """A commit on top of `ref`."""
        listing = sorted((path, file.oid) for path, file in files.items())
        sha = hashlib.sha1(json.dumps([listing, title, self.refs.get(ref), len(self.commits)]).encode()).hexdigest()
        self.commits[sha] = Commit(sha, title, files)
        self.refs[ref] = sha
        return self.commits[sha]

    def apply(self, lines: list[dict[str, Any]], revision: str, *, pull_request: bool) -> Commit | str:
        """Commit the operations of an ndjson body; the commit, or what the Hub answers when the parent is stale."""
        base = self.commits[self.refs[revision]]
        files = dict(base.files)
        title = ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    title = value["summary"]
                    if value.get("parentCommit", base.sha) != base.sha:
                        return "A commit has happened since."
                case "file":
                    content = b64decode(value["content"])
                    files[value["path"]] = File(len(content), content)
                case "lfsFile":
                    files[value["path"]] = File(value["size"], None, value["oid"])
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    raise AssertionError(other)
        number = sum(ref.startswith("refs/pr/") for ref in self.refs) + 1
        return self.add(f"refs/pr/{number}" if pull_request else revision, title, files)


def xet_hashes(store: Path) -> dict[str, str]:
    """sha256 to xet hash of every file in an on-disk xet store, read from its shards."""

    def name(raw: bytes) -> str:
        return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))

    found = {}
    for path in store.rglob("*.mdb"):
        raw, at = path.read_bytes(), SHARD_HEADER
        while (file := raw[at : at + 32]) != b"\xff" * 32:
            flags, entries = struct.unpack_from("<II", raw, at + 32)
            at += SHARD_ENTRY * (1 + entries * (2 if flags & VERIFIED else 1))
            if flags & HAS_SHA256:
                found[name(raw[at : at + 32])] = name(file)
                at += SHARD_ENTRY
    return found
