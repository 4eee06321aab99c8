"""The tiny pipelines of tests/zoo, as the tests of the teachers have them."""

from teachers.conftest import folder_of, fresh, teacher_of

__all__ = ["folder_of", "fresh", "teacher_of"]
