"""Read the files of a run. Nothing here judges or computes: a missing or damaged file becomes None and a note."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import artifacts
from recipes.report.numbers import number
from recipes.slurm.run_files import RunFiles

DONE, UNFINISHED, WAITING = "done", "unfinished", "not started"
# What timing.json may say of a stage without a manifest. Others ("running", "queued") only tell what was so when
# the runner last wrote the file, and it may have been killed since.
BLOCKED = "blocked"
ENDED_BADLY = ("failed", "refused", BLOCKED, "stopped")
POLICY_KINDS = ("base", "sft", "preference")
TRAINING_KINDS = ("base", "sft", "reward", "preference")


@dataclass
class Stage:
    """One stage of the run. `manifest` is None unless the stage is done."""

    name: str
    kind: str
    path: Path
    config: dict
    config_text: str
    manifest: dict | None
    lines: list[dict]
    notes: list[str] = field(default_factory=list)
    timing: dict = field(default_factory=dict)

    @property
    def status(self) -> str:
        """done, failed, refused, blocked, stopped, unfinished (running or killed) or not started."""
        if self.manifest is not None:
            return DONE
        if self.timing.get("state") in ENDED_BADLY:
            return self.timing["state"]
        return UNFINISHED if self.lines or (self.path / "logs").is_dir() else WAITING

    @property
    def facts(self) -> dict:
        facts = (self.manifest or {}).get("facts")
        return facts if isinstance(facts, dict) else {}

    @property
    def wall(self) -> float | None:
        """Seconds from start to manifest; None if the stage is not done."""
        return number((self.manifest or {}).get("wall_seconds"))

    @property
    def span(self) -> tuple[float, float] | None:
        """Start and end in unix seconds; None if the stage is not done or did not record them."""
        start, end = (unix_time((self.manifest or {}).get(key)) for key in ("started", "finished"))
        return None if start is None or end is None else (start, end)

    def inputs(self) -> dict[str, dict]:
        """name -> {"path", "sha256", "producer"}: from the manifest, or without hashes from the config."""
        if self.manifest is not None:
            return {k: v for k, v in (self.manifest.get("inputs") or {}).items() if isinstance(v, dict)}
        try:
            paths = artifacts.input_paths(self.path, self.config)
        except (AttributeError, TypeError):
            return {}
        return {
            name: {"path": str(path), "sha256": None, "producer": artifacts.producer_of(self.path, path)}
            for name, path in paths.items()
        }

    def producer(self, name: str) -> str | None:
        return (self.inputs().get(name) or {}).get("producer")

    def events(self, kind: str) -> list[dict]:
        return [line for line in self.lines if line.get("event") == kind]

    def progress(self) -> str:
        """How far an unfinished stage came, in words; "" if it never began."""
        if self.status == DONE or not (self.lines or (self.path / "logs").is_dir()):
            return ""
        starts, last = self.events("start"), self.lines[-1] if self.lines else {}
        total = starts[-1].get("total") if starts else last.get("total")
        done = last.get("step") or last.get("done")
        if done is None:
            return "no step yet"
        of = f" of {total}" if total is not None else ""
        return f"{starts[-1].get('unit', 'step') if starts else 'step'} {done}{of}"


@dataclass
class Run:
    """A run directory: the pipeline as resolved, its stages in the order of the pipeline, timing if recorded."""

    path: Path
    name: str
    pipeline: dict
    stages: dict[str, Stage]
    timing: dict
    notes: list[str]

    def of_kind(self, *kinds: str) -> list[Stage]:
        return [stage for stage in self.stages.values() if stage.kind in kinds]

    def all_notes(self) -> list[str]:
        return self.notes + [f"{stage.name}: {note}" for stage in self.stages.values() for note in stage.notes]


def load_run(run_dir: Path) -> Run:
    """Read a run directory. UserInputError if it holds neither a pipeline.yaml nor any stage."""
    run_dir, notes = run_dir.absolute(), []
    pipeline = _mapping(run_dir / "pipeline.yaml", notes)
    names = list(_stage_section(pipeline))
    on_disk = sorted(path.parent.name for path in run_dir.glob("*/config.yaml"))
    if not names and not on_disk:
        fix = "give the directory of a run (runs/<name>), as `align run` makes it"
        raise UserInputError(Problem("", str(run_dir), "no pipeline.yaml and no stage here", fix))
    names += [name for name in on_disk if name not in names]
    stages = {name: load_stage(run_dir / name, _stage_section(pipeline).get(name)) for name in names}
    timing = read_json(run_dir / "timing.json", notes)
    timing = timing if isinstance(timing, dict) else {}
    by_stage = timing.get("stages") if isinstance(timing.get("stages"), dict) else {}
    for name, stage in stages.items():
        own = by_stage.get(name)
        stage.timing = own if isinstance(own, dict) else _from_jobs(run_dir, name)
    return Run(run_dir, str(pipeline.get("name") or run_dir.name), pipeline, stages, timing, notes)


def _from_jobs(run_dir: Path, stage: str) -> dict:
    """What the jobs of a submitted run say of a stage, in the words of timing.json."""
    ends = [event.get("result") for event in RunFiles(run_dir).events(stage) if event["event"] in ("began", "ended")]
    states = {"failed": "failed", "blocked": BLOCKED, "cancelled": "stopped", "terminated": "stopped"}
    return {"state": states[ends[-1]]} if ends and ends[-1] in states else {}


def _stage_section(pipeline: dict) -> dict:
    stages = pipeline.get("stages")
    if isinstance(stages, list):
        return {str(s["stage"]): s for s in stages if isinstance(s, dict) and "stage" in s}
    return {str(name): cfg for name, cfg in stages.items()} if isinstance(stages, dict) else {}


def load_stage(path: Path, planned: dict | None) -> Stage:
    """One stage directory; `planned` is its section of pipeline.yaml, used where it has no config.yaml yet."""
    notes: list[str] = []
    config = _mapping(path / artifacts.CONFIG, notes) or (planned if isinstance(planned, dict) else {})
    if any(not isinstance(config.get(key) or {}, dict) for key in ("inputs", "resources")):
        notes.append("config.yaml is damaged and not used")
        config = {}
    text = read_text(path / artifacts.CONFIG) or (artifacts.config_text(config) if config else "")
    manifest = artifacts.read_manifest(path)
    if (path / artifacts.MANIFEST).exists() and not _sound(manifest):
        notes.append("manifest.json cannot be read: the stage counts as not done")
        manifest = None
    if manifest is not None and manifest.get("config_sha256") not in (None, artifacts.config_sha256(config)):
        notes.append("config.yaml is not the one the stage ran with")
    kind = str(config.get("kind") or (manifest or {}).get("kind") or "unknown")
    return Stage(path.name, kind, path, config, text, manifest, read_jsonl(path / "metrics.jsonl", notes), notes)


def _sound(manifest: dict | None) -> bool:
    """True if the parts of a manifest that are followed further have the types they should have."""
    if manifest is None or any(
        not isinstance(manifest.get(k), dict) for k in ("inputs", "outputs", "parents", "facts", "versions")
    ):
        return False
    inputs, outputs, parents = manifest["inputs"].values(), manifest["outputs"].values(), manifest["parents"].values()
    return (
        all(isinstance(e, dict) and isinstance(e.get("producer"), (str, type(None))) for e in inputs)
        and all(isinstance(e, dict) and isinstance(e.get("bytes"), int) for e in outputs)
        and all(isinstance(sha, str) for sha in parents)
    )


def _mapping(path: Path, notes: list[str]) -> dict:
    if not path.exists():
        return {}
    try:
        return artifacts.read_config(path)
    except Exception as error:  # every YAML error has its own type; the report must come out all the same
        notes.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}")
        return {}


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_json(path: Path, notes: list[str]) -> object:
    text = read_text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        notes.append(f"{path.name} cannot be read")
        return None


def read_jsonl(path: Path, notes: list[str]) -> list[dict]:
    """The objects of a JSONL file. Lines that are not (a killed writer's last line) are skipped and noted."""
    rows, bad = [], 0
    for line in (read_text(path) or "").split("\n"):  # not splitlines: texts may hold U+2028
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = False
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None:
            bad += 1
    if bad:
        notes.append(f"{path.name}: {bad} line{'s' if bad > 1 else ''} not readable and left out")
    return rows


def unix_time(iso: object) -> float | None:
    """Unix seconds of an ISO 8601 time; None if it is not one."""
    try:
        return datetime.fromisoformat(str(iso).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
