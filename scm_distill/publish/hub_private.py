"""What this package uses of huggingface_hub beyond its documented interface; a test names each of these.

`HTTP_ERROR` is the base class of the errors that the client's HTTP library raises: httpx2, httpx or requests, by the
client's version, which does not export it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

HTTP_LIBRARIES = ("httpx2", "httpx", "requests")
XET_ROUTE = "xet-write-token"  # the route of the Hub that the text of hf-xet's one error for a refusal names


def _http_error() -> type[BaseException]:
    bases = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] in HTTP_LIBRARIES]
    return bases[-1]


HTTP_ERROR = _http_error()


@contextmanager
def without_xet() -> Iterator[None]:
    """In this block, uploads go over LFS. The environment's HF_HUB_DISABLE_XET would be read at import only."""
    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
