"""The look at one node before training: GPUs as nvidia-smi counts them, disk, shared file system."""

from __future__ import annotations

import json

import pytest

from recipes.slurm import node_check

GPUS = "0, 0\n1, 0\n"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name in front of the PATH, which prints what it is given."""

    def make(printed: str, code: int = 0) -> None:
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\nexit {code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return make


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "canary").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("printed", "code", "fault"),
    [
        (GPUS, 0, None),
        ("0, [N/A]\n1, [N/A]\n", 0, None),  # GPUs without error correction
        ("0, 0\n", 0, "1 GPUs instead of 2"),
        ("0, 0\n1, 3\n", 0, "GPU 1 has 3 uncorrected memory errors"),
        ("Unable to determine the device handle: GPU is lost\n", 9, "nvidia-smi does not answer"),
    ],
)
def test_gpus(printed, code, fault, folder, nvidia_smi):
    nvidia_smi(printed, code)
    found = node_check.faults(folder, gpus=2, min_free_gb=0)
    assert [fault in text for text in found] == ([True] if fault else [])


def test_a_node_without_gpus_is_not_asked_for_any(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert node_check.faults(folder, gpus=0, min_free_gb=0) == []


def test_a_full_disk_and_a_file_system_that_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(node_check, "CANARY_SECONDS", 0.3)
    shared, disk = node_check.faults(tmp_path, gpus=0, min_free_gb=1e9)
    assert shared == f"does not see {tmp_path / 'canary'}" and "GB left, fewer than" in disk


def test_the_report_is_named_by_the_node(folder, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    assert node_check.main([str(folder), "--min-free-gb", "0"]) == 0
    assert json.loads((folder / "node7.node.json").read_text()) == {"node": "node7", "faults": []}
