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
# The sizes of Nemotron-4-340B: nemo_pyxis_96 splits no smaller model.
SHAPE = """\
all: {model: {encoder_seq_length: 4096, micro_batch_size: 1, global_batch_size: 128}}
base:
  model: {num_layers: 96, hidden_size: 18432, ffn_hidden_size: 73728, num_attention_heads: 96, num_query_groups: 8}
"""


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


def shape(folder: Path) -> str:
    """The override that makes a model of Nemotron-4-340B's sizes."""
    path = folder / "shape.yaml"
    path.write_text(SHAPE)
    return f"model='{path}'"


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
    if "PIPELINE" in words:
        words = [str(HERE / "chain.yaml") if word == "PIPELINE" else word for word in words] + [shape(tmp_path)]
    code = cli.main([*words, "--dry-run"])
    assert code == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("runs/*/slurm/*.sbatch"))) > 7


def test_340b_trains_on_96_nodes_of_8(tmp_path):
    (path,) = (path for path in PROFILES if path.stem == "nemo_pyxis_96")
    pipeline = compose(HERE / "chain.yaml", [f"cluster={path.stem}", shape(tmp_path), *filled(path)])
    for stage in (pipeline.stages[name] for name in ("base", "sft", "dpo", "rpo1")):
        model, asked = stage.cfg["model"], stage.cfg["resources"]
        layout = [model[f"{kind}_model_parallel_size"] for kind in ("tensor", "pipeline")]
        assert (asked["nodes"], asked["devices"], layout) == (96, 8, [8, 12])
