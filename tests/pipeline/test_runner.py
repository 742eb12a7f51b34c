"""The local runner with real processes. The engine's stages are played by fake_server.py, which speaks its protocol."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import recipes.report
from recipes.pipeline import artifacts, locks, runner, stage_log, workdir
from recipes.pipeline.config import Pipeline, StageConfig
from recipes.pipeline.status import follow_logs, status

SERVER = [sys.executable, str(Path(__file__).with_name("fake_server.py"))]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def report(monkeypatch) -> list[Path]:
    """The report is tested elsewhere: here only that, and when, it is built."""
    built: list[Path] = []
    monkeypatch.setattr(recipes.report, "build", built.append)
    return built


_STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_runner_is_left():
    """A test that fails half-way ends its runner, and with it all that the runner started."""
    yield
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def start(command: list[str], **options) -> subprocess.Popen:
    _STARTED.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options))
    return _STARTED[-1]


def make(**stages) -> Pipeline:
    """A pipeline of sft stages from name={"inputs": {...}, "fake": {...}}; an input "a" is the output of stage a."""
    made = {}
    for name, given in stages.items():
        inputs = {k: f"../{v}/outputs/out.txt" if v in stages else v for k, v in given.get("inputs", {}).items()}
        resources = {"nodes": 1, "devices": 1, "threads": 1}
        cfg = {
            "stage": name,
            "kind": "sft",
            "seed": 1,
            "inputs": inputs,
            "resources": resources,
            "fake": given.get("fake", {}),
        }
        made[name] = StageConfig(name, "sft", cfg, [v for v in given.get("inputs", {}).values() if v in stages])
    return Pipeline("test", 1, made)


class Lines(list):
    """Collects what the runner says."""

    def __call__(self, text: str) -> None:
        self.extend(text.splitlines())

    def about(self, word: str) -> list[str]:
        return [line for line in self if word in line]


def go(pipeline, run_dir, **kwargs) -> tuple[int, Lines]:
    said = Lines()
    return runner.run(pipeline, run_dir, echo=said, server_command=SERVER, **kwargs), said


def states(run_dir) -> dict[str, str]:
    return {row["stage"]: row["state"] for row in status(run_dir)}


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


def alive(text: str) -> list[int]:
    """Pids of processes whose command line has `text`. A fork of the fake server shows the server's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and text in (entry / "cmdline").read_text()
                and (entry / "stat").read_text().split()[2] != "Z"
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


CHAIN = {
    "a": {"fake": {"text": "a"}},
    "b": {"inputs": {"init": "a"}, "fake": {"text": "b"}},
    "c": {"inputs": {"init": "b"}},
}

# Runs `pipeline` in a process of its own, which can be killed. The tag in its arguments makes its children findable.
DRIVER = """
import sys; sys.path[:0] = [{tests!r}, {root!r}]
from test_runner import *
sys.exit(runner.run(make(**json.loads(sys.argv[1])), sys.argv[2], jobs=2, server_command=[*SERVER, sys.argv[2]]))
"""


def start_driver(stages: dict, run_dir: Path, **env) -> subprocess.Popen:
    code = DRIVER.format(tests=str(Path(__file__).parent), root=str(ROOT))
    return start([sys.executable, "-c", code, json.dumps(stages), str(run_dir)], env={**os.environ, **env})


# -- order and skipping ------------------------------------------------------------------------------


def test_a_chain_runs_in_order_and_a_second_run_skips_it(tmp_path):
    code, said = go(make(**CHAIN), tmp_path)
    assert code == 0
    assert (tmp_path / "c/outputs/out.txt").read_text() == "ba"
    assert artifacts.verify_run(tmp_path) == []
    manifests = {name: (tmp_path / name / "manifest.json").stat().st_mtime_ns for name in CHAIN}
    assert artifacts.read_manifest(tmp_path / "c")["parents"] == {
        "b": artifacts.sha256_file(tmp_path / "b/manifest.json")
    }

    configs = {name: (tmp_path / name / "config.yaml").stat().st_mtime_ns for name in CHAIN}
    code, said = go(make(**CHAIN), tmp_path)
    assert code == 0 and len(said.about("unchanged, skipped")) == 3 and not said.about("started")
    assert manifests == {name: (tmp_path / name / "manifest.json").stat().st_mtime_ns for name in CHAIN}
    assert configs == {name: (tmp_path / name / "config.yaml").stat().st_mtime_ns for name in CHAIN}
    assert not (tmp_path / "engine.log").read_text(), "the server is quiet"


def test_timing_has_the_first_step_and_survives_a_skip(tmp_path):
    go(make(**CHAIN), tmp_path)
    first = json.loads((tmp_path / "timing.json").read_text())
    for entry in first["stages"].values():
        assert (
            first["started"]
            <= entry["queued"]
            <= entry["started"]
            <= entry["first_step"]
            <= entry["ended"]
            <= first["ended"]
        )
    assert first["stages"]["b"]["queued"] >= first["stages"]["a"]["ended"]
    go(make(**CHAIN), tmp_path)
    again = json.loads((tmp_path / "timing.json").read_text())
    for name, entry in again["stages"].items():
        assert entry == {**first["stages"][name], "state": "unchanged"}


def test_independent_stages_run_side_by_side_up_to_jobs(tmp_path):
    three = {name: {"fake": {"seconds": 0.6}} for name in "abc"}
    go(make(**three), tmp_path, jobs=2)
    times = json.loads((tmp_path / "timing.json").read_text())["stages"]
    assert times["b"]["started"] < times["a"]["ended"]
    assert times["c"]["started"] >= min(times["a"]["ended"], times["b"]["ended"])


def test_only_selected_stages_run(tmp_path):
    assert go(make(**CHAIN), tmp_path, selection=["a", "b"])[0] == 0
    assert states(tmp_path) == {"a": "done", "b": "done", "c": "pending"}
    code, said = go(make(**CHAIN), tmp_path, selection=["c"])
    assert code == 0 and said.about("c: done") and not said.about("a:") and not said.about("note")
    changed = {**CHAIN, "b": {"inputs": {"init": "a"}, "fake": {"text": "B"}}}
    code, said = go(make(**changed), tmp_path, selection=["c"])
    assert code == 0 and said.about("note: b is used as it is on disk") and said.about("c: unchanged")


def test_a_failing_report_does_not_hide_the_result(tmp_path, report, monkeypatch):
    assert go(make(**CHAIN), tmp_path)[0] == 0 and report == [tmp_path]

    def broken(run_dir):
        raise ValueError("no such column")

    monkeypatch.setattr(recipes.report, "build", broken)
    code, said = go(make(**CHAIN), tmp_path)
    assert code == 1 and said.about("total ") and said[-1] == "the report failed: ValueError: no such column"


# -- changes -----------------------------------------------------------------------------------------


def test_a_changed_key_redoes_the_stage_and_what_depends_on_its_content(tmp_path):
    go(make(**CHAIN), tmp_path)
    changed = {**CHAIN, "b": {"inputs": {"init": "a"}, "fake": {"text": "B"}}}
    code, said = go(make(**changed), tmp_path)
    assert code == 0
    assert (
        said.about("a: unchanged")
        and said.about("fake.text (b -> B) changed")
        and said.about("c: started (sft), anew: input init changed")
    )
    assert (tmp_path / "c/outputs/out.txt").read_text() == "Ba"
    assert (tmp_path / ".replaced/c/outputs/out.txt").read_text() == "ba"
    assert artifacts.read_manifest(tmp_path / "b")["facts"]["resumed_at"] == 0


def test_equal_content_of_an_input_does_not_redo_its_readers(tmp_path):
    go(make(**CHAIN), tmp_path)
    changed = {**CHAIN, "a": {"fake": {"text": "a", "steps": 5}}}
    code, said = go(make(**changed), tmp_path)
    assert said.about("fake.steps (not set -> 5) changed")
    assert code == 0 and said.about("b: unchanged") and said.about("c: unchanged")


def test_threads_are_no_change_but_are_written(tmp_path):
    go(make(**CHAIN), tmp_path)
    pipeline = make(**CHAIN)
    pipeline.stages["a"].cfg["resources"]["threads"] = 4
    code, said = go(pipeline, tmp_path)
    assert len(said.about("unchanged, skipped")) == 3
    assert artifacts.read_config(tmp_path / "a/config.yaml")["resources"]["threads"] == 4
    assert artifacts.verify_run(tmp_path) == []


def test_a_missing_output_and_fresh_redo_the_stage(tmp_path):
    go(make(**CHAIN), tmp_path)
    (tmp_path / "b/outputs/out.txt").unlink()
    _, said = go(make(**CHAIN), tmp_path)
    assert said.about("b: started (sft), anew: an output is missing") and said.about("c: unchanged")
    _, said = go(make(**CHAIN), tmp_path, fresh=["a"])
    assert said.about("a: started (sft), anew: as asked for") and said.about("b: unchanged")


# -- failures ----------------------------------------------------------------------------------------


def test_a_failed_stage_stops_its_dependants_only(tmp_path):
    stages = {**CHAIN, "a": {"fake": {"fail_at": 2}}, "other": {"fake": {"seconds": 0.5}}}
    code, said = go(make(**stages), tmp_path)
    assert code == 1
    assert said.about("a: failed") and str(tmp_path / "a/logs/stage.log") in said.about("a: failed")[0]
    assert said.about("    FloatingPointError: loss is nan at step 2")
    assert states(tmp_path) == {"a": "failed", "b": "pending", "c": "pending", "other": "done"}
    assert not (tmp_path / "b/metrics.jsonl").exists()
    assert [line.split()[1] for line in said.about("needs")] == ["blocked", "blocked"]


def test_wrong_input_of_a_stage_is_shown_and_exits_2(tmp_path):
    code, said = go(make(a={"fake": {"refuse": True}}), tmp_path)
    assert code == 2
    assert (
        said.about("[D6] rows.jsonl:7: no reward") and said.about("fix: score it first") and not said.about("checking")
    )


TRACEBACK = "Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("epoch 1\nFAILED no checkpoint was written\n", ["no checkpoint was written"]),
        (f"[rank1]: {TRACEBACK}[rank1]:   File x\n[rank1]: OSError: disk full\nbye", ["OSError: disk full"]),
        (f"{TRACEBACK}  File x\nKeyError: 1\n\nDuring...\n\n{TRACEBACK}  File y\nValueError: bad\n  in row 3\nend",
         ["ValueError: bad", "  in row 3"]),
        ("1\n2\n\n3\n4\n5\n6\n", ["2", "3", "4", "5", "6"]),
        ("", []),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_log(tmp_path, log, shown):
    before = f"{TRACEBACK}OldError: of the attempt before\n"
    (tmp_path / "log").write_text(before + log)
    assert stage_log.failure(tmp_path / "log", offset=len(before)) == shown


def test_an_engine_that_does_not_load_fails_its_stages(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_IMPORT_SECONDS", "fail")
    code, said = go(make(**CHAIN), tmp_path)
    assert code == 1
    assert said.about("engine.log") and said.about("ImportError: no module named engine")


def test_a_dead_server_fails_the_running_stage_and_does_not_hang(tmp_path, monkeypatch):
    tag = str(tmp_path / "run")
    driver = start_driver({"a": {"fake": {"seconds": 30}}, "b": {"inputs": {"x": "a"}}}, tmp_path / "run")
    wait_for((tmp_path / "run/a/checkpoints").exists)
    server = [pid for pid in alive("fake_server.py") if tag in Path(f"/proc/{pid}/cmdline").read_text()]
    for pid in server:
        os.kill(pid, signal.SIGKILL)
    out, _ = driver.communicate(timeout=20)
    assert driver.returncode == 1 and "the engine server ended" in out and "blocked" in out


def test_missing_inputs_are_named_before_anything_starts(tmp_path):
    code, said = go(make(a={"inputs": {"train": "b"}}), tmp_path / "relative")  # "b" is no stage: a file
    assert code == 2 and said.about("a.inputs.train: there is no such file")
    stages = {"a": {"inputs": {"train": "/nowhere/rows.jsonl"}}, "b": {"inputs": {"init": "a"}}}
    code, said = go(make(**stages), tmp_path)
    assert code == 2 and said.about("a.inputs.train: there is no such file: /nowhere/rows.jsonl")
    code, said = go(make(**stages), tmp_path, selection=["b"])
    assert code == 2 and said.about("b.inputs.init: stage a is not done")
    assert not (tmp_path / "pipeline.yaml").exists()


# -- killing -----------------------------------------------------------------------------------------

SLOW = {"a": {"fake": {"text": "a"}}, "b": {"inputs": {"init": "a"}, "fake": {"steps": 40, "seconds": 20}}}


def run_until_step(run_dir: Path, step: int = 3, **env) -> subprocess.Popen:
    driver = start_driver(SLOW, run_dir, **env)
    counter = run_dir / "b/checkpoints/step"
    wait_for(lambda: counter.exists() and (counter.read_text() or "0") >= str(step))
    return driver


def finish_quickly(run_dir: Path) -> None:
    """Let the counting stage think that it is near its end, so that the test does not wait for it."""
    (run_dir / "b/checkpoints/step").write_text("39")


def test_kill_9_leaves_no_process_and_the_next_run_resumes(tmp_path):
    run_dir = tmp_path / "run"
    driver = run_until_step(run_dir)
    assert states(run_dir) == {"a": "done", "b": "running"}
    assert locks.holder(run_dir) == driver.pid
    driver.kill()
    driver.communicate()
    wait_for(lambda: not alive(str(run_dir)), 5)
    assert states(run_dir) == {"a": "done", "b": "unfinished"}

    finish_quickly(run_dir)
    code, said = go(make(**SLOW), run_dir)
    assert code == 0 and said.about("a: unchanged") and said.about("b: started (sft), resumes unfinished work")
    assert artifacts.read_manifest(run_dir / "b")["facts"]["resumed_at"] == 39


def test_unfinished_work_of_another_config_or_input_is_never_resumed(tmp_path):
    run_dir = tmp_path / "run"
    driver = run_until_step(run_dir)
    driver.kill()
    driver.communicate()
    wait_for(lambda: not alive(str(run_dir)), 5)
    other_input = {
        **SLOW,
        "a": {"fake": {"text": "A"}},
        "b": {"inputs": {"init": "a"}, "fake": {"steps": 40, "seconds": 20}},
    }
    assert workdir.decide(run_dir / "b", make(**SLOW).stages["b"].cfg).action == "resume"
    (run_dir / "a/outputs/out.txt").write_text("X")
    decision = workdir.decide(run_dir / "b", make(**other_input).stages["b"].cfg)
    assert (decision.action, decision.reason) == ("redo", "input init changed")

    faster = {**SLOW, "b": {"inputs": {"init": "a"}, "fake": {"steps": 4, "seconds": 0}}}
    (run_dir / "a/outputs/out.txt").write_text("a")
    code, said = go(make(**faster), run_dir)
    assert code == 0 and said.about("b: started (sft), anew: fake.steps (40 -> 4), fake.seconds (20 -> 0) changed")
    assert artifacts.read_manifest(run_dir / "b")["facts"]["resumed_at"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_everything_and_leaves_it_resumable(tmp_path, number, code):
    run_dir = tmp_path / "run"
    driver = run_until_step(run_dir)
    driver.send_signal(number)
    out, _ = driver.communicate(timeout=20)
    assert driver.returncode == code and "goes on from here" in out
    assert not alive(str(run_dir))
    assert states(run_dir)["b"] == "unfinished" and locks.holder(run_dir) is None
    assert workdir.decide(run_dir / "b", make(**SLOW).stages["b"].cfg).action == "resume"


def test_a_signal_while_the_engine_loads_stops_at_once(tmp_path):
    driver = start_driver(CHAIN, tmp_path / "run", FAKE_IMPORT_SECONDS="60")
    wait_for((tmp_path / "run/timing.json").exists)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=5)
    assert driver.returncode == 130 and not alive(str(tmp_path / "run"))


def test_a_second_run_in_the_directory_is_refused(tmp_path):
    with locks.DirLock(tmp_path):
        code, said = go(make(**CHAIN), tmp_path)
    assert code == 2 and str(os.getpid()) in said[0]
    assert go(make(**CHAIN), tmp_path)[0] == 0


def test_a_stage_that_someone_runs_by_hand_is_waited_for(tmp_path):
    (tmp_path / "run/a").mkdir(parents=True)
    with locks.DirLock(tmp_path / "run/a"):
        driver = start_driver({"a": {}}, tmp_path / "run")
        wait_for((tmp_path / "run/engine.log").exists)
        time.sleep(0.5)
        assert states(tmp_path / "run") == {"a": "running"} and not (tmp_path / "run/a/logs").exists()
    out, _ = driver.communicate(timeout=20)
    assert "waits, another process works in its folder" in out and "a: done" in out


def test_a_core_child_dies_with_the_process_that_started_it(tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom recipes.pipeline.processes import Child\n"
        f"Child([sys.executable, '-c', 'import time; time.sleep(60)', {str(tmp_path)!r}], "
        f"Path({str(tmp_path)!r}, 'log'), print)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: any(pid != parent.pid for pid in alive(str(tmp_path))))
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(str(tmp_path)), 5)


# -- files -------------------------------------------------------------------------------------------


def test_launch_script_starts_the_stage_from_anywhere(tmp_path):
    run_dir = tmp_path / "a run's dir"
    pipeline = make(a={})
    pipeline.stages["a"].cfg["resources"]["devices"] = 2
    workdir.write_files(run_dir / "a", pipeline.stages["a"].cfg)
    script = (run_dir / "a/launch.sh").read_text()
    assert "-m torch.distributed.run --standalone --nproc-per-node 2 -m recipes.stages.sft" in script
    # The same script with a stand-in for Python shows the arguments that the stage gets.
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@"\n')
    show.chmod(0o755)
    (run_dir / "a/launch.sh").write_text(script.replace(shlex.quote(sys.executable), str(show)))
    out = subprocess.run(
        [run_dir / "a/launch.sh"], cwd="/", capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=True
    ).stdout
    assert out.splitlines()[0] == str(ROOT) and out.splitlines()[-1] == str(run_dir / "a/config.yaml")


def test_logs_of_one_stage_and_of_all(tmp_path):
    go(make(a={"fake": {"fail_at": 1}}, b={}), tmp_path)
    one = list(follow_logs(tmp_path, "a", follow=True))
    assert one[-1] == "FloatingPointError: loss is nan at step 1"
    assert list(follow_logs(tmp_path))[-1] == "a | " + one[-1]


def test_logs_are_followed_until_the_run_ends(tmp_path):
    driver = start_driver({"a": {"fake": {"seconds": 1, "fail_at": 3}}}, tmp_path / "run")
    wait_for((tmp_path / "run/pipeline.yaml").exists)
    lines = list(follow_logs(tmp_path / "run", "a", follow=True, poll=0.1))
    driver.communicate(timeout=20)
    assert lines[-1].startswith("FloatingPointError")


# -- real core stages --------------------------------------------------------------------------------

WORLDS = """
name: worlds
all: {sizes: {corpus: 8000, code_sft: 100, general_sft: 100, human: 60, prompts: 20}}
stages:
  one: {kind: world}
  two: {kind: world, seed: 2}
"""


def align(*words: object, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "recipes.cli", *map(str, words)]
    return start(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_real_stages_survive_a_kill_of_the_runner(tmp_path):
    (tmp_path / "worlds.yaml").write_text(WORLDS)
    driver = align("run", "worlds.yaml", cwd=tmp_path)
    run_dir = tmp_path / "runs/worlds"
    wait_for(lambda: len(alive(str(run_dir))) == 2)
    driver.kill()
    driver.communicate()
    wait_for(lambda: not alive(str(run_dir)), 5)

    driver = align("resume", "worlds", cwd=tmp_path)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, out
    assert states(run_dir) == {"one": "done", "two": "done"} and artifacts.verify_run(run_dir) == []
    assert "total" in out and "report " in out
    again = subprocess.run([run_dir / "one/launch.sh"], cwd="/", env={"PATH": os.environ["PATH"]})
    assert again.returncode == 0 and artifacts.verify_run(run_dir) == []


def test_a_terminal_shows_a_table_that_moves(tmp_path):
    import pty

    (tmp_path / "worlds.yaml").write_text(WORLDS)
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "recipes.cli", "run", "worlds.yaml", "--only", "one"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(control, 1 << 16):
            shown += block
    except OSError:  # how a terminal says that the other end has closed
        pass
    assert child.wait(10) == 0
    text = shown.decode()
    assert "running" in text and "\x1b[2K" in text and "[cyan]" not in text, (
        "the table is drawn over itself, in colours"
    )
    assert "one: done in" in text and "total " in text


@pytest.mark.parametrize(
    ("stages", "file"),
    [
        ("{pairs: {kind: pairs, inputs: {scored: rows.jsonl}}}", "rows.jsonl:1"),
        pytest.param(
            "{base: {kind: base, inputs: {train: rows.jsonl, validation: rows.jsonl}}}",
            "rows.jsonl:1",
            marks=pytest.mark.engine,
        ),
    ],
    ids=["core", "engine"],
)
def test_a_wrong_row_is_named_by_the_stage_that_reads_it(tmp_path, stages, file):
    (tmp_path / "p.yaml").write_text(f"model: tiny_nemotron4\nstages: {stages}\n")
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n' * 20)  # enough for what is checked before the start
    driver = align("run", "p.yaml", cwd=tmp_path)
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == 2 and file in out and "fix: " in out and "wrong input after" in out, out
    assert not alive(str(tmp_path))
