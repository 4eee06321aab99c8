"""What leaves this machine names no folder of it and no token."""

import pytest

from scm_distill import config
from scm_distill.artifacts import private
from scm_distill.artifacts.private import hidden, leak, named, public, without_paths

TOKEN = "api_org_" + "a1B2" * 8


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
        ("https://user:secret@host.org/a/b?c=/d", "https://host.org/a/b?c=/d"),
        ("--token hf_abcdefghijklmnop", "--token (token)"),
        ("cannot read /home/jane/secret/x: size=/tmp/y", "cannot read x: size=y"),
        ("~jane/ACME/run", "run"),
        ("../ACME secret/run", "run"),
        ("./teachers/private/x", "x"),
        ("see /scratch/jane/data, or ../ACME/b (c)", "see data, or b (c)"),
        ("in PATH /a/b:/c/d", "in PATH b:d"),
        ("host:/data/jane/x and sqlite:////home/jane/y", "host:x and sqlite:y"),
        ("file:///scratch/jane/p.png", "p.png"),
        (r"of D:\jane\my set\x, \\server\jane\y", "of x, y"),
        (f"with {TOKEN} and hf_diffusers", "with (token) and hf_diffusers"),
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


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/a (b), c/set", "set"),
        ("../ACME/x", "x"),
        ("~jane/ACME/x/", "x"),
        ("secret/prompts.txt", "prompts.txt"),
        ("file:///scratch/jane/p.png", "p.png"),
        (r"C:\jane\x", "x"),
        ("builtin:digits/data.npz", "builtin:digits/data.npz"),
        ("org/teacher", "org/teacher"),
        (f"x/{TOKEN}", "(token)"),
    ],
)
def test_of_a_path_the_last_name_stays(path: str, name: str) -> None:
    assert named(path, "org/teacher") == name


def test_a_name_that_may_be_of_the_hub_stays() -> None:
    names = ("facebook/dinov2-large", "./nets/own", "nets/secret/own", "the teacher's own samples, 50 steps")
    assert [public(name) for name in names] == ["facebook/dinov2-large", "own", "own", names[3]]


def test_a_recipe_keeps_its_prompts_and_no_folder() -> None:
    said = "/bad, ugly/deformed, ~/x"
    settings = {
        "teacher": {"repo": "org/teacher", "config": "../ACME/parts", "call": {"prompt_2": said, "x": "a /b/c"}},
        "data": {"source": "file:///scratch/jane/p", "prompts": "secret/prompts.txt"},
        "guidance": {"negative_prompt": f"{said} {TOKEN}"}, "train": {"steps": 1, "batch_size": 1},
    }  # fmt: skip
    dumped = config.parse(settings).model_dump(mode="json")
    shown = private.recipe(dumped, "org/teacher")
    teacher = shown["teacher"]
    assert (teacher["repo"], teacher["config"]) == ("org/teacher", "parts")
    assert teacher["call"] == {"prompt_2": said, "x": "a c"}
    assert (shown["data"]["source"], shown["data"]["prompts"]) == ("p", "prompts.txt")
    assert shown["guidance"]["negative_prompt"] == f"{said} (token)"
    assert private.recipe(dumped, None)["teacher"]["repo"] == "teacher"
    assert config.parse(shown)


@pytest.mark.parametrize(
    "text",
    ["/scratch/jane", "(see /scratch/jane/x)", "a:/mnt/jane", "~jane/x", "~/x", r"C:\me\x", r"\\s\me", "file:///x"],
)
def test_an_absolute_path_is_a_leak(text: str) -> None:
    assert leak(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://a.org/b/c?d=/e/f",
        "and/or 24/7 a/b/c",
        "/bad, ugly/deformed",
        "</a/> </b>",
        "../samples/0.png",
        "s3://a/b/c",
    ],
)
def test_other_text_is_none(text: str) -> None:
    assert leak(text) is None
