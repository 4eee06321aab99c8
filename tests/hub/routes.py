"""The JSON routes: accounts, repos, commits, trees, and downloads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from hub_rules import HUB_LICENCES

from hub import lfs
from hub.store import LARGE, Commit, File, Repo

if TYPE_CHECKING:
    from hub.server import Hub, Request, Response


def reply(status: int = 200, body: Any = None, **headers: str) -> Response:
    """A response; header names with underscores for dashes."""
    from hub.server import Response

    return Response(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def missing(what: str, status: int = 404) -> Response:
    """The Hub's way to say that something is not there."""
    return reply(status, {"error": f"{what} not found"}, X_Error_Code=f"{what}NotFound")


def readable(hub: Hub, request: Request, repo: str) -> Repo | None:
    """The repo, if this user may know of it."""
    found = hub.repos.get(repo)
    if found is None or not found.private:
        return found
    user, namespace = request.user, repo.split("/")[0]
    return found if user and (user.name == namespace or namespace in dict(user.orgs)) else None


def refused(hub: Hub, request: Request, repo: str, *, pull_request: bool = False) -> Response | None:
    """Why this user may not write, if so."""
    if readable(hub, request, repo) is None:
        return missing("Repo", 404 if request.user else 401)
    if request.user is None:
        return reply(401, {"error": "Unauthorized"})
    allowed = request.user.role != "read" if pull_request else request.user.may_write(repo.split("/")[0])
    said = "you must use a write token to upload to a repository"
    return None if allowed else reply(403, {"error": said}, X_Error_Message=said)


def whoami(hub: Hub, request: Request) -> Response:
    """Who the token belongs to."""
    return reply(200, request.user.whoami()) if request.user else reply(401, {"error": "Unauthorized"})


def create(hub: Hub, request: Request) -> Response:
    """A new repo, with its initial commit."""
    if request.user is None:
        return reply(401, {"error": "Unauthorized"})
    namespace = request.json.get("organization") or request.user.name
    repo = f"{namespace}/{request.json['name']}"
    if not request.user.may_write(namespace):
        said = f'You don\'t have the rights to create a model under the namespace "{namespace}"'
        return reply(403, {"error": said}, X_Error_Message=said)
    url = f"{hub.url}/{repo}"
    if repo in hub.repos:
        return reply(409, {"error": "You already created this model repo", "url": url})
    hub.repos[repo] = Repo(repo, request.json.get("visibility") == "private")
    return reply(200, {"url": url, "name": repo})


def validate(hub: Hub, request: Request) -> Response:
    """The card's front matter: the fields whose values the Hub knows."""
    front = request.json["content"].split("---")[1]
    data = yaml.safe_load(front)
    errors = []
    if "license" in data and data["license"] not in HUB_LICENCES:
        errors.append({"message": '"license" must be one of [apache-2.0, mit, ...]'})
    return reply(400 if errors else 200, {"errors": errors, "warnings": []})


def preupload(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    """Which files go to LFS, and what is there of them."""
    if no := refused(hub, request, repo, pull_request="create_pr=1" in request.query):
        return no
    if (commit := hub.repos[repo].at(revision)) is None:
        return missing("Revision")
    files = []
    for file in request.json["files"]:
        large = file["path"].endswith(LARGE) or file["size"] > 10_000_000
        there = commit.files.get(file["path"])
        known = {"oid": there.compared} if there else {}
        mode = "lfs" if large else "regular"
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
    return reply(200, {"files": files})


def commit(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    """Commit to a branch, or as a pull request."""
    pull_request = "create_pr=1" in request.query
    if no := refused(hub, request, repo, pull_request=pull_request):
        return no
    found = hub.repos[repo]
    if revision not in found.refs:
        return missing("Revision")
    lines = [json.loads(line) for line in request.body.splitlines()]
    for line in lines:
        if line["key"] == "lfsFile" and not lfs.holds(hub, line["value"]["oid"]):
            return reply(400, {"error": f"LFS pointer to a missing object: {line['value']['path']}"})
    made = found.apply(lines, revision, pull_request=pull_request)
    if isinstance(made, str):
        return reply(412, {"error": made})
    body = {"success": True, "commitOid": made.sha, "commitUrl": f"{hub.url}/{repo}/commit/{made.sha}"}
    if pull_request:
        number = sum(ref.startswith("refs/pr/") for ref in found.refs)
        body["pullRequestUrl"] = f"{hub.url}/{repo}/discussions/{number}"
    return reply(200, body)


def branch(hub: Hub, request: Request, repo: str, branch: str) -> Response:
    """A new branch, at main."""
    if no := refused(hub, request, repo):
        return no
    found = hub.repos[repo]
    if branch in found.refs:
        return reply(409, {"error": "Reference already exists"})
    found.refs[branch] = found.refs["main"]
    return reply(200, {})


def refs(hub: Hub, request: Request, repo: str) -> Response:
    """Branches and pull requests."""
    if (found := readable(hub, request, repo)) is None:
        return missing("Repo", 404 if request.user else 401)
    listed: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for ref, sha in found.refs.items():
        kind = "pullRequests" if ref.startswith("refs/") else "branches"
        listed[kind].append({"name": ref, "ref": ref, "targetCommit": sha})
    return reply(200, listed)


def _at(hub: Hub, request: Request, repo: str, revision: str | None) -> Commit | Response:
    if (found := readable(hub, request, repo)) is None:
        return missing("Repo", 404 if request.user else 401)
    return found.at(revision or "main") or missing("Revision")


def info(hub: Hub, request: Request, repo: str, revision: str | None) -> Response:
    """What a repo is, at a revision."""
    found = _at(hub, request, repo, revision)
    if not isinstance(found, Commit):
        return found
    private, gated = hub.repos[repo].private, hub.repos[repo].gated and "manual"
    body = {"_id": repo, "id": repo, "sha": found.sha, "private": private, "gated": gated, "tags": []}
    if (card := found.files.get("README.md")) and card.content:
        _, *front = card.content.decode(errors="replace").split("---")
        body["cardData"] = yaml.safe_load(front[0]) if front else None
    return reply(200, {**body, "siblings": [{"rfilename": path} for path in found.files]})


def tree(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    """Every file of a revision."""
    found = _at(hub, request, repo, revision)
    if not isinstance(found, Commit):
        return found
    hashes = lfs.hashes(hub)
    rows = []
    for path, file in found.files.items():
        row: dict[str, Any] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
        if file.sha256:
            row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
            if file.sha256 in hashes:
                row["xetHash"] = hashes[file.sha256]
        rows.append(row)
    return reply(200, rows)


def resolve(hub: Hub, request: Request, repo: str, revision: str, path: str) -> Response:
    """A file, or what is known of it."""
    found = _at(hub, request, repo, revision)
    if not isinstance(found, Commit):
        return found
    if (file := found.files.get(path)) is None:
        return missing("Entry")
    return _content(hub, repo, found, file)


def _content(hub: Hub, repo: str, commit: Commit, file: File) -> Response:
    headers = {"X_Repo_Commit": commit.sha, "ETag": f'"{file.compared}"', "Content_Type": "application/octet-stream"}
    if file.sha256 is None:
        return reply(200, file.content, **headers)
    headers |= {"X_Linked_Etag": f'"{file.sha256}"', "X_Linked_Size": str(file.size)}
    if file.sha256 in hub.blobs:
        return reply(200, hub.blobs[file.sha256], **headers)
    headers["X_Xet_Hash"] = lfs.hashes(hub)[file.sha256]
    headers["X_Xet_Refresh_Route"] = f"{hub.url}/api/models/{repo}/xet-read-token/{commit.sha}"
    return reply(200, None, **headers, Content_Length=str(file.size))
