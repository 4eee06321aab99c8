"""A headless Chromium by the DevTools protocol over a pipe: what a page says, asks for and how wide it is."""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0  # seconds


@dataclass
class Seen:
    """What opening a page showed."""

    errors: list[str] = field(default_factory=list)  # console messages of error level, and exceptions
    requests: list[str] = field(default_factory=list)  # addresses, without the data: ones
    width: int = 0  # of the whole page in CSS pixels
    values: dict[str, Any] = field(default_factory=dict)  # JavaScript expression: its value


class Browser:
    """One browser; each `open` is a tab of its own."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive, self.rest, self.number = send, receive, b"", 0
        self.events: list[dict[str, Any]] = []

    def open(
        self, url: str, width: int, height: int, *, evaluate: tuple[str, ...] = (), shot: Path | None = None,
        dark: bool = False,
    ) -> Seen:  # fmt: skip
        """Load `url` in a window of this size; a phone's, below 600 pixels."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable", session)
        mobile = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.events.clear()
        self._call("Page.navigate", session, url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        seen = Seen()
        for expression in ("document.documentElement.scrollWidth", *evaluate):
            result = self._call("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"]
            seen.values[expression] = result.get("value")
        seen.width = seen.values.pop("document.documentElement.scrollWidth")
        if shot:
            data = self._call("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
            shot.write_bytes(base64.b64decode(data))
        for event in self.events:
            self._note(event["method"], event.get("params", {}), seen)
        self._call("Target.closeTarget", targetId=target)
        return seen

    def _note(self, method: str, params: dict[str, Any], seen: Seen) -> None:
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            seen.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            seen.errors.append(json.dumps(params["args"]))
        elif method == "Runtime.exceptionThrown":
            seen.errors.append(params["exceptionDetails"]["text"])
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            seen.requests.append(params["request"]["url"])

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.receive], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self.receive, 1 << 20) if ready else b""
            assert piece, "the browser does not answer"
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own, which ends with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    assert CHROMIUM
    line = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", line, CHROMIUM, *FLAGS, f"--user-data-dir={profile}"], pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
