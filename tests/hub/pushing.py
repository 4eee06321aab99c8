"""What a test of pushing does again and again."""

from pathlib import Path

import pytest

from hub.server import Hub
from hub.store import ADA, BOB, READER, User
from scm_distill.artifacts.layout import local_student
from scm_distill.errors import UserError
from scm_distill.progress import Silent
from scm_distill.publish.hub import Client, PushResult


class Said(Silent):
    """What a push told the person who waits."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Note it."""
        self.lines.append(text)


def push(hub: Hub, run: Path, repo: str = "ada/student", user: User = ADA, **options: object) -> PushResult:
    """Push `run`."""
    return Client(hub.url, user.token).push(
        local_student(str(run)), repo, report=options.pop("report", Silent()), **options
    )


def refusal(hub: Hub, run: Path, repo: str = "ada/student", user: User = ADA, **options: object) -> UserError:
    """What a push is refused for; it never names a token."""
    with pytest.raises(UserError) as caught:
        push(hub, run, repo, user, **options)
    assert not any(one.token in str(caught.value) for one in (ADA, BOB, READER))
    return caught.value
