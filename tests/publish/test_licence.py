"""The licence that a student is published under."""

from pathlib import Path

import pytest

from scm_distill.errors import UserError
from scm_distill.publish import licence

TEACHER = licence.TeacherLicence("teacher", None, {"license": "other", "license_name": "a-1"})


@pytest.mark.parametrize("given", ["unknown", "none", ""])
def test_a_licence_that_is_none_is_not_one(given: str, tmp_path: Path) -> None:
    assert licence.chosen(given, TEACHER, tmp_path) == {}
    with pytest.raises(UserError, match="is not known"):
        licence.refuse_unknown({}, TEACHER.name)


@pytest.mark.parametrize("given", ["mine=", "=https://x.org", "mine=LICENSE"])
def test_another_licence_needs_a_name_and_an_address(given: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no NAME=URL"):
        licence.chosen(given, TEACHER, tmp_path)


def test_one_other_licence_in_place_of_another_is_said(tmp_path: Path) -> None:
    picked = licence.chosen("mine=https://x.org/licence", TEACHER, tmp_path)
    assert picked == {"license": "other", "license_name": "mine", "license_link": "https://x.org/licence"}
    assert licence.warnings(picked, TEACHER.fields, None, gated=False) == [
        "the licence of the teacher is a-1; the card says mine"
    ]
    assert licence.warnings(TEACHER.fields, TEACHER.fields, None, gated=False) == []
