"""Compare what is on disk with what the run recorded: `align verify`. Every file is read again.

Covered, byte by byte: pipeline.yaml; of every finished stage its manifest, config.yaml, launch.sh, nemo.yaml,
metrics.jsonl, prepared data (data/) and outputs/; and the inputs from outside, by content. Not covered: what a stage
may still write or only its own work needs (manifests.PRIVATE: logs, checkpoints, wandb, caches), and of the run the
lock files, engine.log, timing.json, report/ (`align report` writes it again), slurm/ and .replaced/. A checkpoint from
outside that brings its own CONTENT_SHA256 is compared by that text, and byte by byte where a run wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import graph, references
from recipes.pipeline.files import read_config
from recipes.pipeline.hashing import Reader
from recipes.pipeline.manifests import MANIFEST, PIPELINE, input_refs, read_manifest
from recipes.pipeline.seals import text_intact
from recipes.pipeline.verify_stage import DAMAGED, NOT_RECORDED, stage_problems


def verify_run(run_dir: str | Path, reader: Reader | None = None) -> list[Problem]:
    """`problems` as a list. Empty: every file is as it was recorded."""
    return list(problems(run_dir, reader or Reader()))


def problems(run_dir: str | Path, reader: Reader) -> Iterator[Problem]:
    """What differs, producers first, so that the first problem is the cause; what an older run did not record, last."""
    run_dir, missing = Path(os.path.abspath(run_dir)), []
    dirs = finished_stages(run_dir)
    if not dirs:
        is_run = (run_dir / PIPELINE).is_file()
        message = "no stage of this run is done yet" if is_run else "no finished stage here"
        yield Problem(
            "", str(run_dir), message, "run it first" if is_run else "give the directory of a run (runs/<name>)"
        )
        return
    found, planned = _verify_pipeline(run_dir, reader)
    of_stages = (stage_problems(stage_dir, planned, reader) for stage_dir in dirs)
    for problem in chain(found, chain.from_iterable(of_stages)):
        if problem.message.startswith(NOT_RECORDED):
            missing.append(problem)
        else:
            yield problem
    yield from missing


def finished_stages(run_dir: Path) -> list[Path]:
    """Folders of the stages that have a manifest: in the order of the graph, what pipeline.yaml lacks by age."""
    dirs = {path.parent.name: path.parent for path in run_dir.glob(f"*/{MANIFEST}")}
    by_age = sorted(dirs, key=lambda name: (str((read_manifest(dirs[name]) or {}).get("finished")), name))
    try:
        stages = read_config(run_dir / PIPELINE)["stages"]
        order = graph.order({name: _parents(cfg, stages) for name, cfg in stages.items()})
    except (*DAMAGED, UserInputError):
        order = []
    return [dirs[name] for name in dict.fromkeys([*order, *by_age]) if name in dirs]


def _parents(cfg: dict, stages: dict) -> list[str]:
    pairs = [references.thaw(ref) for _, ref in input_refs(cfg)]
    return list(dict.fromkeys(pair[0] for pair in pairs if pair and pair[0] in stages))


def _verify_pipeline(run_dir: Path, reader: Reader) -> tuple[list[Problem], dict | None]:
    """What is wrong with pipeline.yaml, and its stages where it is as it was written."""
    path = run_dir / PIPELINE
    fix = "restore it, or run the pipeline again: it writes the file"
    try:
        whole, stages = text_intact(reader.read_bytes(path)), read_config(path)["stages"]
    except DAMAGED as error:
        return [Problem("", str(path), f"cannot be read: {error}", fix)], None
    if whole is None:
        return [Problem("", str(path), f"{NOT_RECORDED}: its own hash, by an older version", fix)], stages
    return ([], stages) if whole else ([Problem("", str(path), "was changed after the run wrote it", fix)], None)


def recorded_bytes(run_dir: Path) -> int:
    """About how much `problems` will read: outputs and records as the manifests have them."""
    manifests = [read_manifest(path) or {} for path in finished_stages(run_dir)]
    parts = [part for m in manifests for part in (m.get("outputs"), m.get("records")) if isinstance(part, dict)]
    sizes = [entry.get("bytes") for part in parts for entry in part.values() if isinstance(entry, dict)]
    return sum(size for size in sizes if isinstance(size, int))


def count_text(run_dir: Path) -> str:
    """How many stages of the run are done, and so were compared."""
    done = [path.name for path in finished_stages(run_dir)]
    try:
        planned = list(read_config(run_dir / PIPELINE)["stages"])
    except DAMAGED:
        planned = done
    return f"{len(done)} of {len(dict.fromkeys([*planned, *done]))} stages done"
