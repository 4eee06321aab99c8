"""Files are whole or not there, have the usual mode and the same bytes each time; damage has one kind of error."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scm_distill.artifacts import files
from scm_distill.artifacts.files import Damaged


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_at_the_end_of_the_block_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("before")
    with files.atomically(path) as beside:
        beside.write_text("after")
        assert (beside.parent, beside.suffix, path.read_text()) == (tmp_path, ".mp4", "before")
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_file_that_was_not_finished(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(error), files.atomically(path) as beside:  # noqa: PT012
        beside.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "export"
    for name in ("old", "new"):
        with files.atomically(path) as beside:
            beside.mkdir()
            (beside / name).touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_folder_that_was_moved_aside_by_a_killed_process_is_put_back(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "export"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.startswith(files.WRITING):
            os._exit(9)
        return rename(self, target)

    if (child := os.fork()) == 0:  # a process of its own, to be killed between the two renames
        Path.rename = killed  # type: ignore[assignment]
        with files.atomically(path) as beside:
            beside.mkdir()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not path.exists()
    files.recover(path)
    assert [p.name for p in path.iterdir()] == ["old"]
    with files.atomically(path) as beside:  # what the killed process had begun is no hindrance
        beside.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


SAVE = """
import sys, torch
from pathlib import Path
from scm_distill.artifacts.files import save_tensors
metadata = {name: name.upper() for name in ("format", "t_mid", "sigma_d", "steps", "a", "b", "c", "é")}
save_tensors({"x": torch.arange(6).view(2, 3).T, "h": torch.ones(3, dtype=torch.bfloat16)}, Path(sys.argv[1]), metadata)
"""


def test_tensors_are_the_same_bytes_in_each_process(tmp_path: Path) -> None:
    found = set()
    for i in range(2):
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / f"{i}")], check=True)
        found.add((tmp_path / f"{i}").read_bytes())
    assert len(found) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert list(file.metadata()) == list(file.metadata())
        assert file.metadata()["é"] == "É"
        assert torch.equal(file.get_tensor("x"), torch.arange(6).view(2, 3).T)
        assert torch.equal(file.get_tensor("h"), torch.ones(3, dtype=torch.bfloat16))
    header = json.loads(found.pop()[8:].partition(b"}}")[0] + b"}}")
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


def test_a_file_may_hold_no_tensors(tmp_path: Path) -> None:
    files.save_tensors({}, tmp_path / "a")
    assert files.read_tensors(tmp_path / "a") == {}


def test_tensors_that_are_none_are_damage(tmp_path: Path) -> None:
    files.save_tensors({"x": torch.ones(9)}, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for content in (b"", b"{}", b"torn", whole[:-1], whole[:20], "[1]".encode("utf-16")):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(Damaged, match="is no safetensors file: "):
            files.read_tensors(tmp_path / "a")
    with pytest.raises(Damaged, match="is missing"):
        files.read_tensors(tmp_path / "none")
    with pytest.raises(Damaged):
        files.read_tensors(tmp_path)


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_follow_the_umask(umask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.save_tensors({"x": torch.ones(1)}, tmp_path / "a.safetensors", {"b": "c"})
        files.write_json(tmp_path / "a.json", {})
        other = tmp_path / "unet" / "b.safetensors"
        other.parent.mkdir()
        other.touch(mode=0o600)
        files.follow_umask(tmp_path)
    finally:
        os.umask(before)
    assert {mode(path) for path in tmp_path.rglob("*") if path.is_file()} == {expected}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\0\0\0", "is empty"),
        (b"{", "is no JSON: Expecting property name"),
        (b'{"a": 1} {"a"', "is no JSON: Extra data"),
        (b"[1]", "holds a list where a JSON object belongs"),
        (b"null", "holds a NoneType where"),
        (b"[" * 100_000, "is no JSON"),
        ('{"a": 1}'.encode("utf-16"), "is no UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no UTF-8 text"),
    ],
)
def test_each_damage_is_one_kind_of_error(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=reason) as error:
        files.read_json(path)
    assert error.value.problem == f"{path} {error.value.reason}."
    assert error.value.code == 2


def test_a_missing_file_and_a_folder_are_damage_too(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="is a folder"):
        files.read_json(tmp_path)
    with pytest.raises(Damaged, match="is missing"):
        files.read_json(tmp_path / "none")
    assert files.lines_of(tmp_path / "none") == []
    with pytest.raises(Damaged, match="is a folder"):
        files.lines_of(tmp_path)
