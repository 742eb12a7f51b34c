"""One look at a node before training, one task a node: `python -m recipes.slurm.node_check FOLDER ...`.

Writes FOLDER/<node>.node.json with the faults that it found. Always ends with 0: the job script counts the reports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recipes.pipeline.files import atomic_write_json

CANARY_SECONDS = 20  # how long a shared file system may take to show a new file on another node


def faults(folder: Path, gpus: int, min_free_gb: float) -> list[str]:
    """What is wrong with this node, in words; nothing if it is sound."""
    found = [_shared(folder), _disk(min_free_gb), *(_gpus(gpus) if gpus else ())]
    return [fault for fault in found if fault]


def _shared(folder: Path) -> str:
    deadline = time.monotonic() + CANARY_SECONDS
    while not (folder / "canary").is_file():
        if time.monotonic() > deadline:
            return f"does not see {folder / 'canary'}"
        time.sleep(0.2)
    return ""


def _disk(min_free_gb: float) -> str:
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(os.urandom(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
    free = shutil.disk_usage(folder).free / 1e9
    return f"{folder} has {free:.1f} GB left, fewer than {min_free_gb}" if free < min_free_gb else ""


def _gpus(expected: int) -> list[str]:
    """nvidia-smi's count, and memory errors that it could not correct."""
    query = "--query-gpu=index,ecc.errors.uncorrected.volatile.total"
    try:
        told = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [f"nvidia-smi does not answer: {error}"]
    rows = [[cell.strip() for cell in line.split(",")] for line in told.stdout.splitlines() if line.strip()]
    found = [f"{len(rows)} GPUs instead of {expected}"] if len(rows) < expected else []
    return found + [f"GPU {row[0]} has {row[1]} uncorrected memory errors" for row in rows
                    if row[1].isdigit() and int(row[1])]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--min-free-gb", type=float, default=1)
    args = parser.parse_args(argv)
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    report = {"node": node, "faults": faults(args.folder, args.gpus, args.min_free_gb)}
    atomic_write_json(args.folder / f"{node}.node.json", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
