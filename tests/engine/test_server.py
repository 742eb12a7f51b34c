"""The engine server's process handling: codes, kills, end of stdin. What stages do in it is tested in tests/e2e."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("installed")]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


@pytest.fixture(scope="module")
def server(installed, tmp_path_factory):
    """One for the module; the last test ends it."""
    with (tmp_path_factory.mktemp("server") / "stderr.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "recipes.engine.server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
        )  # fmt: skip
        assert json.loads(process.stdout.readline() or "{}").get("event") == "ready", Path(log.name).read_text()[-2000:]
        yield process
        process.kill()
        process.wait()


def ask(server, **request):
    server.stdin.write(json.dumps(request) + "\n")


def reply(server) -> dict:
    return json.loads(server.stdout.readline())


def stage(directory: Path) -> Path:
    """An SFT stage whose inputs do not exist: it ends at its first check."""
    directory.mkdir()
    config = {
        "stage": "sft",
        "kind": "sft",
        "seed": 1,
        "inputs": {"init": "absent", "train": "absent.jsonl", "validation": "absent.jsonl"},
        "resources": {"nodes": 1, "devices": 1, "threads": 1},
        "template": "nemotron",
        "data": {"over_length": "refuse"},
        "model": {"encoder_seq_length": 64, "global_batch_size": 4},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory / "config.yaml"


def text_of(config: Path) -> str:
    log = config.parent / "logs" / "stage.log"
    return log.read_text() if log.exists() else ""


def wait_until(condition, what: str):
    deadline = time.time() + SECONDS
    while not (value := condition()):
        assert time.time() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)
    return value


@contextmanager
def waiting_for_lock(directory: Path):
    """A stage that waits, without using the CPU, because this process holds its directory's lock."""
    config = stage(directory)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield config


def children(server) -> list[int]:
    path = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stage_with_wrong_input_reports_2_and_says_why_in_its_log(server, tmp_path):
    config = stage(tmp_path / "sft")
    ask(server, id="wrong", config=str(config), ranks=1)
    assert reply(server) == {"event": "exit", "id": "wrong", "code": 2}
    assert "INPUT ERROR" in text_of(config) and "absent: does not exist" in text_of(config)
    assert not (config.parent / "manifest.json").exists()


def test_a_stage_without_a_config_reports_1_and_the_server_goes_on(server, tmp_path):
    ask(server, id="gone", config=str(tmp_path / "config.yaml"), ranks=1)
    assert reply(server) == {"event": "exit", "id": "gone", "code": 1}
    assert "FileNotFoundError" in text_of(tmp_path / "config.yaml")


@pytest.mark.parametrize("signal", ["request", "SIGKILL"])
def test_a_killed_stage_is_reported_and_the_other_one_is_left_alone(server, tmp_path, signal):
    with waiting_for_lock(tmp_path / "killed") as killed, waiting_for_lock(tmp_path / "other") as other:
        ask(server, id="killed", config=str(killed), ranks=1)
        first = wait_until(lambda: children(server), "first stage")[0]
        ask(server, id="other", config=str(other), ranks=1)
        wait_until(lambda: len(children(server)) == 2, "second stage")
        wait_until(lambda: os.getpgid(first) == first, "a process group of its own")
        if signal == "request":
            ask(server, op="kill", id="killed")
        else:
            os.kill(first, 9)
        assert reply(server) == {"event": "exit", "id": "killed", "code": -9}
    assert reply(server) == {"event": "exit", "id": "other", "code": 2}


def test_a_failing_rank_takes_its_peers_with_it(server, tmp_path):
    """Rank 0 waits for the lock, which it holds for all; rank 1 comes to the missing input at once."""
    with waiting_for_lock(tmp_path / "sft") as config:
        ask(server, id="ranks", config=str(config), ranks=2)
        ranks = wait_until(lambda: len(children(server)) == 2 and children(server), "two ranks")
        assert reply(server) == {"event": "exit", "id": "ranks", "code": 2}
        assert not any(map(runs, ranks))


def test_end_of_stdin_ends_the_server_and_its_stages(server, tmp_path):
    with waiting_for_lock(tmp_path / "sft") as config:
        ask(server, id="last", config=str(config), ranks=1)
        running = wait_until(lambda: children(server), "stage")
        server.stdin.close()
        assert server.wait(timeout=SECONDS) == 0
        wait_until(lambda: not any(map(runs, running)), "end of the stage")
