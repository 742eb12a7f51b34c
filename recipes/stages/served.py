"""A checkpoint served on this machine while a stage asks it, and the config of a server that is started by hand:

    python -m recipes.stages.served DIR inputs.policy=CHECKPOINT [key=value ...]     writes DIR/config.yaml
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes.errors import EXIT_INPUT, Problem, StageFailed, UserInputError
from recipes.pipeline import overrides, stage_config
from recipes.pipeline.checks.serving import second_model
from recipes.pipeline.config import CONFIGS
from recipes.pipeline.files import atomic_write_text, config_text
from recipes.pipeline.layers import Layer, read
from recipes.pipeline.processes import Child, stage_command

ADDRESS = "server.json"  # in the data/ folder of a server's stage directory, while it takes requests
_TAIL = 40  # lines of the server's log in an error message


def model_name(sha256: str) -> str:
    """The name of a served checkpoint: the same for the same content, wherever it lies."""
    return f"checkpoint-{sha256[:16]}"


def write_config(directory: Path, layer: Layer) -> dict:
    """Write directory/config.yaml: configs/stage/serve.yaml with `layer` over it. Returns it. Raises UserInputError."""
    cfg, _, _ = stage_config.build("serve", "serve", read(CONFIGS / "stage" / "serve.yaml"), [layer], {})
    atomic_write_text(directory / "config.yaml", config_text(cfg))
    return cfg


@contextmanager
def served(cfg: dict, stage_dir: Path) -> Iterator[dict]:
    """The endpoint that the stage shall ask: cfg["endpoint"] as it is, or one of a server that runs until the end.

    With `inputs.model` the checkpoint is served from a process of its own; cfg["serve"], where the stage has it, holds
    settings of configs/stage/serve.yaml. The endpoint's url and model are then filled in, and "sha256" is the
    checkpoint's content hash. The server's log is stage_dir/logs/serve.log. Raises StageFailed if it does not come up.
    Call it in the main thread: the kernel ends the server with the thread that started it.
    """
    endpoint, checkpoint = cfg["endpoint"], cfg["inputs"].get("model")
    if checkpoint is None:
        yield endpoint
        return
    if problems := [Problem("S1", *finding) for finding in second_model(endpoint)]:
        raise UserInputError(problems)
    directory, log = stage_dir / "data" / "serve", stage_dir / "logs" / "serve.log"
    settings = {"inputs": {"policy": str(checkpoint)}, **{key: cfg[key] for key in ("seed", "template") if key in cfg}}
    config = write_config(directory, Layer("serve", {**cfg.get("serve", {}), **settings}))
    address = directory / "data" / ADDRESS
    address.unlink(missing_ok=True)
    server = _Server(stage_command("serve", str(directory / "config.yaml"), config["resources"]["devices"]), log)
    try:
        found = server.wait(address, config["start_seconds"])
        url = found["url"] + ("/v1" if endpoint["protocol"] == "openai" else "")
        try:
            yield {**endpoint, "url": url, "model": found["model"], "sha256": found["sha256"]}
        except Exception as error:
            if server.ended(0.5):  # a connection is lost a moment before the process is gone
                raise server.failed() from error
            raise
    finally:
        server.stop(address, config["stop_seconds"])


class _Server:
    """The process. code: its exit code once it has ended, else None."""

    def __init__(self, command: list[str], log: Path):
        self.code, self.log, self._ended = None, log, threading.Event()
        self._begin = log.stat().st_size if log.exists() else 0
        self.child = Child(command, log, self._over)

    def _over(self, code: int) -> None:
        self.code = code
        self._ended.set()

    def ended(self, seconds: float) -> bool:
        """Has it, within `seconds` from now?"""
        return self._ended.wait(seconds)

    def wait(self, address: Path, seconds: float) -> dict:
        """What server.json says, once the server takes requests."""
        deadline = time.monotonic() + seconds
        while not self.ended(0.1):
            found = _read(address)
            if found and _healthy(found["url"]):
                return found
            if time.monotonic() > deadline:
                message = f"the server of inputs.model was not ready within serve.start_seconds = {seconds}"
                raise StageFailed(f"{message}; the end of {self.log}:\n{self._tail()}")
        raise self.failed()

    def failed(self) -> StageFailed:
        return StageFailed(
            f"the server of inputs.model ended with code {self.code}; the end of {self.log}:\n{self._tail()}"
        )

    def _tail(self) -> str:
        """The last lines of this start's part of the log."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_TAIL:])

    def stop(self, address: Path, seconds: float) -> None:
        """Ask rank 0 to end itself and the others; kill what is left after `seconds`."""
        found = _read(address)
        if self.code is None and found:
            _end(found["pid"])
            self.ended(seconds)
        self.child.signal(signal.SIGKILL)
        self._ended.wait()


def _read(address: Path) -> dict | None:
    """What server.json says; None where the server has not written it yet, or has removed it."""
    try:
        return json.loads(address.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _healthy(url: str) -> bool:
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=10) as response:  # no proxy for loopback
            return response.status == 200
    except (URLError, OSError):
        return False


def _main(arguments: list[str]) -> int:
    if not arguments or "=" in arguments[0]:
        print("usage: python -m recipes.stages.served DIR inputs.policy=CHECKPOINT [key=value ...]", file=sys.stderr)
        return EXIT_INPUT
    directory = Path(arguments[0])
    try:
        cfg = write_config(directory, overrides.parse(arguments[1:]))
    except UserInputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    command = stage_command("serve", str(directory / "config.yaml"), cfg["resources"]["devices"])
    print(" ".join(command))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
