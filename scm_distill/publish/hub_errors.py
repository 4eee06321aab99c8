"""What a Hub or the network refuses, in plain words."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from scm_distill.errors import UserError, one_line

# The base of what the client's HTTP library raises: httpx2, httpx or requests, by its version.
LIBRARY = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] in ("httpx2", "httpx", "requests")]
HTTP_ERROR: type[BaseException] = LIBRARY[-1]
XET_ROUTE = "xet-write-token"  # in the one error that hf-xet raises for a refusal


class NoXet(Exception):
    """This Hub takes large files over LFS only."""


@contextmanager
def explained(endpoint: str, repo: str, token: str | None) -> Iterator[None]:
    """Raise UserError for what the client raises: code 1, and 2 for what the command itself can mend."""
    try:
        yield
    except (NoXet, UserError):
        raise
    except (HTTP_ERROR, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if (told := _told(cause, endpoint, repo)) is None:
            raise
        problem, fix, code = told
        if token:
            problem, fix = problem.replace(token, "***"), fix.replace(token, "***")
        raise UserError(problem, fix, code=code) from error


def _told(error: BaseException, endpoint: str, repo: str) -> tuple[str, str, int] | None:
    """Problem, fix and exit code; None for an error that is not the Hub's."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be pushed.", "Unset it.", 2
    if isinstance(error, HFValidationError):
        return f"{repo!r} is no name of a repo.", "Give NAMESPACE/NAME, or NAME for one of your own.", 2
    if isinstance(error, HfHubHTTPError):
        return _answered(error, endpoint, repo)
    said = str(error)
    if XET_ROUTE in said:
        found = re.search(r"\((\d{3}) ", said)
        if found and found[1] == "404":
            raise NoXet from error
        if found:
            return _status(int(found[1]), "", endpoint, repo)
    if isinstance(error, PermissionError) and error.filename is None:  # of hf-xet; a file of ours has a name
        return _status(403, said, endpoint, repo)
    if isinstance(error, (HTTP_ERROR, ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return (
            f"{endpoint} cannot be reached: {_short(said)}",
            f"Check the network{', and HF_ENDPOINT, which names it' if os.environ.get('HF_ENDPOINT') else ''}. "
            "The same command continues.",
            1,
        )
    return None


def _answered(error: HfHubHTTPError, endpoint: str, repo: str) -> tuple[str, str, int]:
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no such revision.", "Give a branch to --revision: one that is not there is made.", 1
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated, and your account is not let in.", f"Ask for access at {endpoint}/{repo}.", 1
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return _status(404, "", endpoint, repo)
    return _status(status, error.server_message or "", endpoint, repo)


def _status(status: int, said: str, endpoint: str, repo: str) -> tuple[str, str, int]:
    because = f" ({_short(said)})" if said else ""
    again = "Try again later: the same command continues."
    match status:
        case 401:
            which = "the one in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the one of `hf auth login`"
            return (
                f"{endpoint} does not accept your token, {which}.",
                "Make one with the right to write in its settings, then `hf auth login`; HF_TOKEN comes before that.",
                1,
            )
        case 403:
            return (
                f"Your token may not write to {repo}{because}.",
                "Use a token with the right to write, and a namespace of yours; `hf auth whoami` lists them.",
                1,
            )
        case 404:
            return f"{endpoint} shows you no repo {repo}.", "Check its name, and `hf auth whoami` for your rights.", 1
        case 412:
            return f"{repo} changed while it was pushed to.", "Type the same command again.", 1
        case 429:
            return f"{endpoint} asks for a pause: too many requests{because}.", again, 1
        case _ if status >= 500:
            return f"{endpoint} has a fault of its own (HTTP {status}){because}.", again, 1
    return f"{endpoint} refused (HTTP {status}){because}.", f"See whether {repo} is as it should be there.", 1


def _short(text: str) -> str:
    """One line; addresses without the query, which may hold a signature."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", one_line(text, 2000))[:200]


def refuse_reader(account: Mapping[str, Any], repo: str, *, create_pr: bool) -> None:
    """Raise UserError for an account (of /api/whoami-v2) that is known not to suffice."""
    token = account.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped")
    writes = scopes is None or any("write" in right for scope in scopes for right in scope.get("permissions", ()))
    if token.get("role") == "read" or not writes:
        raise UserError(
            f"The token of {account['name']} may only read.",
            "Make one with the right to write in the settings of the Hub, then `hf auth login`, or set HF_TOKEN.",
            code=1,
        )
    namespace = repo.split("/")[0]
    orgs = {org["name"]: org.get("roleInOrg") for org in account.get("orgs", ())}
    if create_pr or namespace == account["name"] or orgs.get(namespace, "read") != "read":  # None: it does not tell
        return
    raise UserError(
        f"{account['name']} may not write to {namespace}.",
        f"Push to {account['name']}/{repo.split('/')[-1]}, or propose a change of {repo} with --create-pr.",
        code=1,
    )


def refuse_card(path: Path) -> None:
    """Raise UserError where the Hub does not take the card's front matter, before anything large is uploaded."""
    try:
        ModelCard.load(path).validate()
    except ValueError as error:
        raise UserError(
            f"The Hub refuses the front matter of the card: {one_line(error, 300)}",
            "Mend the fields that it names: --license for the licence, others in the README.md of the repo.",
            code=1,
        ) from error
