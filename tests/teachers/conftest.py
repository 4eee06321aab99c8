"""The tiny pipelines of tests/zoo: each saved once a session, read once, or read anew where a test changes it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zoo

from scm_distill import teachers
from scm_distill.teachers import Teacher

FolderOf = Callable[[str], Path]
TeacherOf = Callable[..., Teacher]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """The folder of a family, by its name in the zoo."""
    families = zoo.load_all()

    @functools.cache
    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        families[name].pipeline().save_pretrained(str(path))
        return path

    return folder


@pytest.fixture(scope="session")
def fresh(folder_of: FolderOf) -> TeacherOf:
    """A family's teacher, read anew, with more arguments of its stock call."""

    def load(name: str, **call: Any) -> Teacher:
        return teachers.load(str(folder_of(name)), call={**zoo.FAMILIES[name].call, **call})

    return load


@pytest.fixture(scope="session")
def teacher_of(fresh: TeacherOf) -> TeacherOf:
    """A family's teacher, read once a session: to look at only."""
    return functools.cache(fresh)
