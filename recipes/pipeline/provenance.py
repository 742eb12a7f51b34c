"""What a stage was made with: versions of packages, the commit of this code, and the machine."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

# Versions recorded in every manifest, where installed.
PACKAGES = (
    "nemo-aligner", "nemo-toolkit", "megatron-core", "torch", "pytorch-lightning", "transformer-engine",
    "apex", "flash-attn", "numpy", "sentencepiece", "transformers", "hydra-core", "omegaconf", "PyYAML",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of this code, of Python and of those of PACKAGES that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    import recipes

    versions = {"recipes": recipes.__version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit this code was checked out at, read from .git without starting git; None if it is not a checkout."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head[len("ref: ") :]
        if (git / ref).is_file():
            return (git / ref).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)
    except OSError:
        return None


def machine() -> dict:
    """What of this machine can change the last bits of a result: processor, GPUs and their driver, threads set outside.

    Read from /proc, without torch; what is not known is left out. It is recorded, and no part of any fingerprint.
    """
    gpus = [_field(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    facts = {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "omp_threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": [gpu for gpu in gpus if gpu],
        "driver": _first_line(Path("/proc/driver/nvidia/version")),
    }
    return {key: value for key, value in facts.items() if value}


def _field(path: Path, name: str) -> str | None:
    """The first `name: value` of a file in /proc."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None
