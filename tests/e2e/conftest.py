"""One real run of the whole chain, and one engine server, shared by the tests of this folder."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from recipes.pipeline.server_client import EngineServer

ROOT = Path(__file__).resolve().parents[2]
STAGE_SECONDS = 900


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.engine)
            if find_spec("nemo_aligner") is None:
                item.add_marker(pytest.mark.skip(reason="the engine is not installed: make engine"))


def align(*arguments, **options) -> subprocess.CompletedProcess:
    """Run the command as a user does; its output is in `.stdout`."""
    command = [sys.executable, "-m", "recipes.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3600, **options
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The run directory of `align run tiny`. ALIGN_RUN_DIR names a finished one and spares the minutes."""
    if given := os.environ.get("ALIGN_RUN_DIR"):
        return Path(given).resolve()
    runs = tmp_path_factory.mktemp("runs")
    result = align("run", "tiny", "--runs-dir", runs)
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-3000:]
    return runs / "tiny"


class Engine:
    """Runs stage directories on one server, each to its end."""

    def __init__(self, log: Path):
        self.events: queue.Queue = queue.Queue()
        self.server = EngineServer(log, self.events.put)
        assert self.events.get(timeout=STAGE_SECONDS)["event"] == "ready", log.read_text()[-3000:]

    def run(self, stage_dir: Path) -> int:
        """The stage's exit code; its log is in logs/stage.log."""
        devices = yaml.safe_load((stage_dir / "config.yaml").read_text())["resources"]["devices"]
        self.server.start_stage(stage_dir.name, stage_dir / "config.yaml", devices)
        return self.events.get(timeout=STAGE_SECONDS)["code"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    running = Engine(tmp_path_factory.mktemp("engine") / "server.log")
    yield running
    running.server.close()
