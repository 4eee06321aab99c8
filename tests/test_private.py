"""What leaves this machine names no folder of it and no token."""

import pytest

from scm_distill.config.private import hidden, without_paths


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/my models/kitten", "kitten"),
        ("~/kitten", "kitten"),
        (r"C:\Users\me\kitten", "kitten"),
        ("teacher.repo=/home/me/kitten", "teacher.repo=kitten"),
        ("--out=/runs/kitten/", "--out=kitten"),
        ("{config: /home/me/a.json, other: '/b/c'}", "{config: a.json, other: 'c'}"),
        ("no such file: /home/me/a.json.", "no such file: a.json."),
        ("file:///home/me/a.json is gone", "a.json is gone"),
        ("https://user:secret@host.org/a/b?c=/d", "https://host.org/a/b?c=d"),
        ("--token hf_abcdefghijklmnop", "--token (token)"),
        ("me/model", "me/model"),
        ("builtin:digits/teacher", "builtin:digits/teacher"),
        ("runs/kitten and/or 24/7, a / b </p>", "runs/kitten and/or 24/7, a / b </p>"),
    ],
)
def test_paths_and_tokens_are_hidden(text: str, shown: str) -> None:
    assert hidden(text) == shown


def test_nested_settings_are_hidden_too() -> None:
    content = {"teacher": {"repo": "/a/b", "call": {"height": 512}}, "list": ["/c/d", 0.5, None, True]}
    assert without_paths(content) == {"teacher": {"repo": "b", "call": {"height": 512}}, "list": ["d", 0.5, None, True]}
