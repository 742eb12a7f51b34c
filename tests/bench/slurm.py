"""Figures of docs/benchmarks.md about Slurm, on a throw-away cluster of this machine:

python -m tests.bench.slurm chain     `align submit tiny` on two nodes to its report; `align run` with the same layout
python -m tests.bench.slurm submit    `align submit` of 12 stages against its bare sbatch calls; `align status`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.slurm import mini_slurm

ENGINE = ("base", "sft", "reward", "preference", "generate", "score", "evaluate")
MICRO_BATCH = "all.model.micro_batch_size=16"  # half of the pipeline's: the other half is on the second rank
REPEATS = 5


def align(home: Path, *words: str) -> str:
    told = subprocess.run([sys.executable, "-m", "recipes.cli", *words], cwd=home, text=True, capture_output=True)
    if told.returncode:
        sys.exit(f"align {' '.join(words)}:\n{told.stdout}{told.stderr}")
    return told.stdout


def overlay(home: Path, name: str, resources: dict, **slurm) -> str:
    """A cluster profile that gives every kind that runs the engine these resources."""
    text = yaml.safe_dump({"slurm": slurm, **{kind: {"resources": resources} for kind in ENGINE}})
    (home / name).write_text("# A profile of a benchmark.\n" + text)
    return name


def hashes(run: Path) -> dict[str, str]:
    found = {path.parent.name: json.loads(path.read_text())["facts"] for path in sorted(run.glob("*/manifest.json"))}
    return {stage: facts["model_sha256"] for stage, facts in found.items() if "model_sha256" in facts}


def chain(home: Path) -> None:
    profile = overlay(home, "two.yaml", {"nodes": 2}, time="01:00:00", exclusive=True)
    started = time.time()
    align(home, "submit", "tiny", "--cluster", profile, "--run", "slurm", MICRO_BATCH)
    report = home / "runs/slurm/report/index.html"
    while subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout.strip():
        time.sleep(1)
    seconds = time.time() - started
    rows = json.loads(align(home, "status", "slurm", "--json"))
    done = sum(row["state"] == "done" for row in rows)
    print(f"submitted once: {done} of {len(rows)} stages done, report {report.exists()}, {seconds:.0f} s")
    profile = overlay(home, "one.yaml", {"devices": 2})
    started = time.time()
    align(home, "run", "tiny", "--run", "here", "--jobs", "1", f"cluster={profile}", MICRO_BATCH)
    print(f"align run, same layout on one machine: {time.time() - started:.0f} s")
    there, here = hashes(home / "runs/slurm"), hashes(home / "runs/here")
    same = [stage for stage in here if there.get(stage) == here[stage]]
    print(f"models with equal weights: {len(same)} of {len(here)}: {', '.join(same)}")


def submit(home: Path) -> None:
    words = ("tiny", "--cluster", overlay(home, "two.yaml", {"nodes": 2}), MICRO_BATCH, "--until", "dpo,eval_base")
    scripts = None
    for number in range(REPEATS):
        started = time.perf_counter()
        align(home, "submit", *words, "--run", f"run{number}", "slurm.sbatch.hold=true")
        whole = time.perf_counter() - started
        scripts = sorted(path for path in (home / f"runs/run{number}/slurm").glob("*.sbatch"))
        started = time.perf_counter()
        for script in scripts:
            subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, check=True)
        bare = time.perf_counter() - started
        started = time.perf_counter()
        align(home, "status", f"run{number}", "--json")
        status = time.perf_counter() - started
        stages = f"{len(scripts) - 1} stages and the report"
        print(f"{stages}: align submit {whole:.2f} s, its sbatch calls alone {bare:.2f} s, align status {status:.2f} s")


def main() -> None:
    bench = {"chain": chain, "submit": submit}[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="align-slurm-") as folder:
        os.environ["SLURM_CONF"] = str(mini_slurm.start(Path(folder) / "cluster", nodes=2))
        try:
            bench(Path(folder))
        finally:
            mini_slurm.stop(Path(folder) / "cluster")


if __name__ == "__main__":
    main()
