"""A real Slurm for the tests of this folder: several nodes on this machine, started in a second, thrown away after."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.slurm import mini_slurm
from tests.slurm.cluster import Cluster

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")


def pytest_collection_modifyitems(items):
    for item in items:
        if "make_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory) -> Path:
    """What jobs run as Python: stand_in.py under this interpreter."""
    path = tmp_path_factory.mktemp("python") / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "stand_in.py"}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def make_cluster(tmp_path_factory, interpreter):
    """Starts clusters: make_cluster(nodes=3, **settings of mini_slurm.start). All are stopped at the end."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        pytest.skip(f"Slurm is not installed ({missing[0]} is missing): sh tests/install_slurm.sh")
    running = []

    def make(**settings) -> Cluster:
        folder = tmp_path_factory.mktemp("slurm")
        mini_slurm.start(folder, **{"nodes": 3, "auth": os.environ.get("MINI_SLURM_AUTH", "none"), **settings})
        running.append(folder)
        return Cluster(folder, interpreter)

    yield make
    for folder in running:
        mini_slurm.stop(folder)


@pytest.fixture(scope="session")
def shared_cluster(make_cluster) -> Cluster:
    return make_cluster()


@pytest.fixture
def cluster(shared_cluster, tmp_path) -> Cluster:
    """The shared cluster, with runs in this test's own folder; whatever the test leaves in the queue is cancelled."""
    shared_cluster.begin(tmp_path)
    yield shared_cluster
    shared_cluster.clear()
