"""What a Hub refuses is told in plain words, with the right exit code."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hub import ADA, READER, Hub, User
from hub.pushing import push, refusal
from huggingface_hub import constants

from scm_distill.errors import UserError
from scm_distill.publish import hub_errors
from scm_distill.publish.hub import Client
from scm_distill.publish.hub_errors import Account

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own uploads


@pytest.mark.parametrize(("status", "problem"), [(403, "may not write"), (401, "does not accept")])
def test_rights_that_the_xet_store_misses(start: Callable[..., Hub], run: Path, status: int, problem: str) -> None:
    hub = start(xet=True)
    hub.fail("GET", "xet-write-token", status, times=9)
    error = refusal(hub, run)
    assert (error.code, problem in error.problem) == (1, True)


STRANGER = User("eve", "hf_" + "e" * 34)


@pytest.mark.parametrize(
    ("repo", "user", "options", "problem"),
    [
        ("ada/student", STRANGER, {}, "does not accept your token"),
        ("ada/student", READER, {}, "may only read"),
        ("bob/student", ADA, {}, "ada may not write to bob"),
        ("museum/student", ADA, {}, "ada may not write to museum"),
        ("bob/student", ADA, {"create_pr": True}, "shows you no repo bob/student"),
    ],
)
def test_what_the_hub_refuses_is_told_apart(
    start: Callable[..., Hub], run: Path, repo: str, user: User, options: dict, problem: str
) -> None:
    hub = start()
    error = refusal(hub, run, repo, user, **options)
    assert (error.code, problem in error.problem) == (1, True), error
    assert not hub.repos
    with pytest.raises(UserError, match=problem.split()[-1]):
        Client(hub.url, user.token).preflight(repo, **options)


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "whoami", 503, "HTTP 503"),
        ("GET", "whoami", 429, "too many requests"),
        ("POST", "/repos/create", 403, "may not write"),
        ("POST", "/commit/", 412, "changed while"),
        ("POST", "/commit/", 413, "HTTP 413"),
    ],
)
def test_answers_of_the_hub_in_plain_words(
    start: Callable[..., Hub], run: Path, method: str, path: str, status: int, problem: str
) -> None:
    hub = start()
    hub.fail(method, path, status)
    error = refusal(hub, run)
    assert (error.code, problem in error.problem) == (1, True), error


def test_what_the_command_itself_can_mend(
    start: Callable[..., Hub], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = start()
    with pytest.raises(UserError, match="no token") as caught:
        Client(hub.url).preflight("ada/student")
    assert caught.value.code == 2
    assert refusal(hub, run, "a/b/c").code == 2
    assert not hub.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refusal(hub, run)
    assert (error.code, "HF_HUB_OFFLINE" in error.problem) == (2, True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1 cannot be reached.*HF_ENDPOINT") as caught:
        Client("http://127.0.0.1:1", ADA.token).preflight("ada/student")
    assert caught.value.code == 1


def test_preflight_changes_nothing(start: Callable[..., Hub], run: Path) -> None:
    hub = start()
    target = Client(hub.url, ADA.token).preflight("student", private=True)
    assert (target.repo, target.exists, target.private) == ("ada/student", False, True)
    assert Client(hub.url, ADA.token).preflight("lab/student").repo == "lab/student"
    assert not hub.repos
    push(hub, run, "student")
    target = Client(hub.url, ADA.token).preflight("ada/student")
    assert (target.exists, target.private) == (True, False)


def account(role: str = "write", scopes: list[dict] | None = None, **orgs: str | None) -> dict:
    fine = {} if scopes is None else {"fineGrained": {"scoped": scopes}}
    known = [{"name": name, **({"roleInOrg": role} if role else {})} for name, role in orgs.items()]
    return {"name": "ada", "orgs": known, "auth": {"accessToken": {"role": role, **fine}}}


READS = [{"entity": {"name": "ada"}, "permissions": ["repo.content.read"]}]
WRITES = [*READS, {"entity": {"name": "lab"}, "permissions": ["repo.write"]}]


@pytest.mark.parametrize(
    ("known", "repo", "allowed"),
    [
        (account(), "ada/student", True),
        (account("fineGrained", READS), "ada/student", False),
        (account("fineGrained", WRITES, lab="admin"), "lab/student", True),
        (account(lab=None), "lab/student", True),  # a Hub that does not tell roles
        (account(lab="read"), "lab/student", False),
        ({"name": "ada"}, "ada/student", True),  # a Hub that tells little
        ({"name": "ada"}, "lab/student", False),
    ],
)
def test_who_is_known_not_to_write(known: dict, repo: str, allowed: bool) -> None:
    if allowed:
        hub_errors.refuse_reader(Account.of(known), repo, create_pr=False)
        return
    with pytest.raises(UserError, match=r"may only read|may not write"):
        hub_errors.refuse_reader(Account.of(known), repo, create_pr=False)
