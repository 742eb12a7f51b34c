"""A headless Chromium for tests, driven through chromedriver with nothing but the standard library.

    with Browser() as page:
        page.open(Path("report/index.html"))
        page.run("return document.title")

Debian and Ubuntu: tests/install_chromium.sh. Every instance has its own empty profile; background services that
would call out are switched off.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip
TIMEOUT = 60


def available() -> bool:
    return CHROMIUM is not None and DRIVER is not None


class Browser:
    """One window of `width` x `height` CSS pixels. Use as a context manager; not for several threads."""

    def __init__(self, width: int = 1280, height: int = 900):
        self.size = (width, height)
        self.profile = tempfile.mkdtemp(prefix="chromium-")

    def __enter__(self) -> Browser:
        port = _free_port()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], **quiet)
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._wait_until_ready()
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                      "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}  # fmt: skip
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            self.url += f"/session/{session}"
            self.resize(*self.size)
            self.open("about:blank")  # away from the start page; what that one asked for is not the tests' business
            self.requests(), self.console()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            self._call("DELETE", "")
        except (OSError, AssertionError):
            pass  # the session never began, or Chromium is gone: end the driver all the same
        self.driver.terminate()
        self.driver.wait(TIMEOUT)
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, page: Path | str) -> None:
        """Load a file or URL and wait for its load event."""
        self._call("POST", "/url", {"url": page.resolve().as_uri() if isinstance(page, Path) else page})

    def run(self, script: str, *arguments) -> object:
        """The value that the JavaScript function body `script` returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", size)

    def colour_scheme(self, scheme: str) -> None:
        """ "light" or "dark", as the reader's system would ask for."""
        self.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def console(self) -> list[str]:
        """Console messages and page errors since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """URLs that pages asked for since the last call, the page itself included."""
        events = [json.loads(e["message"])["message"] for e in self._call("POST", "/se/log", {"type": "performance"})]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path, whole_page: bool = False) -> Path:
        shot = self.devtools(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole_page, **self._clip(whole_page)}
        )
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _clip(self, whole_page: bool) -> dict:
        if not whole_page:
            return {}
        width, height = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        return {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}

    def devtools(self, command: str, parameters: dict) -> dict:
        """A command of the Chrome DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None

    def _wait_until_ready(self) -> None:
        for _ in range(10 * TIMEOUT):
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError("chromedriver did not come up")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
