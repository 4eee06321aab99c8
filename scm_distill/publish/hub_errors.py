"""What the Hub or the network refuses, in plain words."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from scm_distill.publish.hub_private import HTTP_ERROR, XET_ROUTE

AGAIN = "Try again later: the same command continues."


class NoXet(Exception):
    """This Hub takes large files over LFS only."""


@dataclass(frozen=True)
class Account:
    """Whom a token belongs to, as far as the Hub says."""

    name: str
    reads_only: bool  # the token has no right to write anything
    organizations: Mapping[str, str | None]  # those of the account: name to its role there, None where it is not said

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Account":
        """From the Hub's answer to /api/whoami-v2, of which other Hubs send parts only."""
        token = answer.get("auth", {}).get("accessToken", {})
        scopes = token.get("fineGrained", {}).get("scoped")
        writes = scopes is None or any("write" in right for scope in scopes for right in scope.get("permissions", ()))
        roles = {organization["name"]: organization.get("roleInOrg") for organization in answer.get("orgs", ())}
        return cls(str(answer["name"]), token.get("role") == "read" or not writes, roles)


@contextmanager
def explained(endpoint: str, repo: str, token: str | None) -> Iterator[None]:
    """Raise UserError for what the client raises in this block, and NoXet where the Hub has no xet store.

    The error's code is 2 where the command itself can be mended, else 1. `token` is kept out of its text. What is no
    error of the Hub, the network or a file stays as it is.
    """
    try:
        yield
    except (NoXet, UserError):
        raise
    except (HTTP_ERROR, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if (explanation := _explanation(cause, endpoint, repo)) is None:
            raise
        problem, fix, code = explanation
        if token:
            problem, fix = problem.replace(token, "***"), fix.replace(token, "***")
        raise UserError(problem, fix, code=code) from error


def _explanation(error: BaseException, endpoint: str, repo: str) -> tuple[str, str, int] | None:
    """Problem, fix and exit code; None for an error that is not of the Hub, the network or a file."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing can be pushed.", "Unset it.", 2
    if isinstance(error, HFValidationError):
        return f"{repo!r} is no name of a repo.", "Give NAMESPACE/NAME, or NAME for one of your own.", 2
    if isinstance(error, HfHubHTTPError):
        return _of_answer(error, endpoint, repo)
    text = str(error)
    if XET_ROUTE in text:
        found = re.search(r"\((\d{3}) ", text)
        if found and found[1] == "404":
            raise NoXet from error
        if found:
            return _of_status(int(found[1]), "", endpoint, repo)
    if isinstance(error, PermissionError) and error.filename is None:  # hf-xet's; one about a file names it
        return _of_status(403, text, endpoint, repo)
    if isinstance(error, (HTTP_ERROR, ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return (
            f"{endpoint} cannot be reached: {_short(text)}",
            f"Check the network{', and HF_ENDPOINT, which names it' if os.environ.get('HF_ENDPOINT') else ''}. "
            "The same command continues.",
            1,
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}.", "Look at its rights and its disk.", 2
    return None


def _of_answer(error: HfHubHTTPError, endpoint: str, repo: str) -> tuple[str, str, int]:
    """Problem, fix and exit code of an answer of the Hub that is a refusal."""
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no such revision.", "Give a branch to --revision: one that does not exist is made.", 1
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated, and your account is not let in.", f"Ask for access at {endpoint}/{repo}.", 1
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return _of_status(404, "", endpoint, repo)
    return _of_status(status, error.server_message or "", endpoint, repo)


def _of_status(status: int, message: str, endpoint: str, repo: str) -> tuple[str, str, int]:
    """Problem, fix and exit code of an HTTP status; `message` is what the Hub said beside it."""
    because = f" ({_short(message)})" if message else ""
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
            return f"{endpoint} asks for a pause: too many requests{because}.", AGAIN, 1
        case _ if status >= 500:
            return f"{endpoint} has a fault of its own (HTTP {status}){because}.", AGAIN, 1
    return f"{endpoint} refused (HTTP {status}){because}.", f"See {endpoint}/{repo} in a browser.", 1


def _short(text: str) -> str:
    """One line; addresses without the query, which may hold a signature."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", one_line(text, 2000))[:200]


def refuse_reader(account: Account, repo: str, *, create_pr: bool) -> None:
    """Raise UserError where it is known that the account may not write to `repo`, NAMESPACE/NAME."""
    if account.reads_only:
        raise UserError(
            f"The token of {account.name} may only read.",
            "Make one with the right to write in the settings of the Hub, then `hf auth login`, or set HF_TOKEN.",
            code=1,
        )
    namespace, _, name = repo.partition("/")
    if create_pr or namespace == account.name or account.organizations.get(namespace, "read") != "read":
        return
    raise UserError(
        f"{account.name} may not write to {namespace}.",
        f"Push to {account.name}/{name}, or propose a change of {repo} with --create-pr.",
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
