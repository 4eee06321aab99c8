"""What is used of huggingface_hub beyond its documented interface is still there, and does what it is used for.

`XET_ROUTE` is held by `test_hub.test_a_hub_without_xet_gets_the_files_over_lfs`, where hf-xet is refused.
"""

import importlib
import re
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._runtime import is_xet_available

import scm_distill
from scm_distill.publish import hub_private

PRIVATE = re.compile(r"huggingface_hub[\w.]*\._|huggingface_hub[\w. ]* import _|huggingface_hub import .*constants")


def test_the_switch_of_xet_is_read_at_each_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(constants, "HF_HUB_DISABLE_XET"), "huggingface_hub.constants has no HF_HUB_DISABLE_XET anymore"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    before = is_xet_available()
    with hub_private.without_xet():
        assert not is_xet_available(), "huggingface_hub does not read constants.HF_HUB_DISABLE_XET anymore"
    assert (is_xet_available(), constants.HF_HUB_DISABLE_XET) == (before, False)


def test_the_errors_of_the_http_library_have_one_base() -> None:
    library = importlib.import_module(hub_private.HTTP_ERROR.__module__.split(".")[0])
    assert issubclass(HfHubHTTPError, hub_private.HTTP_ERROR)
    names = ("ConnectError", "ReadTimeout") if hasattr(library, "ConnectError") else ("ConnectionError", "Timeout")
    for name in names:
        assert issubclass(getattr(library, name), hub_private.HTTP_ERROR), name


def test_nothing_else_of_the_client_is_private() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in Path(scm_distill.__file__).parent.rglob("*.py")}
    assert {path.name for path, text in files.items() if PRIVATE.search(text)} == {"hub_private.py"}
