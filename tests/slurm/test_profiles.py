"""The profiles in configs/cluster: what they leave to their user, and that they work once it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recipes import cli
from recipes.errors import UserInputError
from recipes.pipeline.config import CONFIGS, compose

HERE = Path(__file__).parent
PROFILES = sorted((CONFIGS / "cluster").glob("*.yaml"))


def left_open(profile: Path) -> list[tuple[int, str]]:
    """(line, key) of everything that a profile wants to be set."""
    lines = enumerate(profile.read_text(encoding="utf-8").splitlines(), 1)
    return [(n, line.split(":")[0].strip()) for n, line in lines if re.search(r": \?\?\?", line)]


def command(profile: Path) -> list[str]:
    """The words of the command in a profile's header, without `align`."""
    return shlex.split(re.search(r"# Command: align (.*)", profile.read_text(encoding="utf-8"))[1])


def filled(profile: Path) -> list[str]:
    """Overrides for what a profile leaves open, from that command."""
    return [word for word in command(profile) if word.startswith("slurm.")]


@pytest.mark.parametrize("path", [path for path in PROFILES if left_open(path)], ids=lambda path: path.stem)
def test_what_is_left_open_is_named_with_its_line(path):
    with pytest.raises(UserInputError) as caught:
        compose("tiny", [f"cluster={path.stem}"])
    told = [re.fullmatch(r".*\.yaml:(\d+) \(cluster profile\)", problem.where) for problem in caught.value.problems]
    assert [int(match[1]) for match in told] == [line for line, _ in left_open(path)]
    assert all("must be set" in p.message and "slurm." in p.fix for p in caught.value.problems)


@pytest.mark.parametrize("verb", ["show", "check", "submit"])
def test_every_command_asks_for_it(verb, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main([verb, "tiny", "--cluster", "nemo_pyxis", "slurm.account=null", "slurm.partition=p"]) == 2
    said = capsys.readouterr().err
    assert "nemo_pyxis.yaml:" in said and "`slurm.container.image` must be set" in said and "account" not in said


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_command_in_its_header_works(path, tmp_path, monkeypatch, capsys):
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(f"# {word}:" in header for word in ("Hardware", "Command", "Expect"))
    (tmp_path / "image.sqsh").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    words = [re.sub(r"/shared/nemo\.\w+", str(tmp_path / "image.sqsh"), word) for word in command(path)]
    words = [str(HERE / "chain.yaml") if word == "PIPELINE" else word for word in words]
    code = cli.main([*words, "--dry-run"])
    assert code == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("runs/*/slurm/*.sbatch"))) > 7
