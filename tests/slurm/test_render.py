"""Job scripts as they are: for every shipped profile and a few more, compared with the files in golden/.

After a change that is meant, write them anew and read the difference:

    UPDATE_GOLDEN=1 python -m pytest tests/slurm/test_render.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from recipes.errors import UserInputError
from recipes.pipeline.config import compose
from recipes.slurm.run_files import REPORT, RunFiles
from recipes.slurm.script import Place, report_script, stage_script
from tests.slurm.test_profiles import HERE, PROFILES, filled

GOLDEN = HERE / "golden"
RUN = Path("/shared/runs/chain")
STAGES = ("world", "sft", "generate", REPORT)
NASTY = {
    "environment": {"GREETING": 'it\'s "so" $HOME `id` \\ !', "TEXT": "one\ntwo", "WORKERS": 4},
    "secrets": ["/shared/it's mine/wandb.env"],
    "prologue": "module load 'cuda/12'\nulimit -c 0   # no core files",
    "srun": ["--mpi=pmix", "--label"],
    "sbatch": {"exclude": "node[7-8]", "comment": 'a "b" \\ c # d', "nice": 5, "contiguous": True},
    "memory": "200G",
    "cpus_per_task": 8,
    "gpus_per_node": 8,
    "gpu_option": "gres",
}
VARIANTS = {"no_health": {"health": {"enabled": False}}, "nasty": NASTY}
CASES = [*(path.stem for path in PROFILES), *VARIANTS]


@lru_cache(None)
def scripts(case: str, folder: Path) -> dict[str, str]:
    """stage -> script of the chain on a cluster that is the same wherever this runs."""
    if case in VARIANTS:
        path = folder / f"{case}.yaml"
        path.write_text(yaml.safe_dump({"slurm": VARIANTS[case]}))
        chosen = [f"cluster='{path}'"]
    else:
        chosen = [f"cluster={case}", *filled(next(path for path in PROFILES if path.stem == case))]
    large = case == "nemo_pyxis_96"
    sizes = ["stages.sft.resources.nodes=2", "stages.sft.resources.devices=2"]
    sizes = ["layout=[gpu,nemotron4_340b_768]"] if large else sizes
    pipeline = compose(HERE / "chain.yaml", [*chosen, *sizes, "stages.sft.resources.time='08:00:00'"])
    python = None if pipeline.cluster.settings["python"] else "/shared/venv/bin/python"
    place = Place(code=Path("/shared/nemotron-align"), python=python, slurm_bin="/usr/bin")
    files = RunFiles(RUN)
    texts = {name: stage_script(files, pipeline.stages[name].cfg, pipeline.cluster, place) for name in STAGES[:-1]}
    return {**texts, REPORT: report_script(files, pipeline.cluster, place)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.mark.parametrize("case", CASES)
def test_scripts_are_as_in_golden(case, folder):
    for stage, text in scripts(case, folder).items():
        path = GOLDEN / case / f"{stage}.sbatch"
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, "meant? UPDATE_GOLDEN=1 pytest tests/slurm/test_render.py"


def test_no_golden_file_is_left_over():
    assert {path.relative_to(GOLDEN) for path in GOLDEN.rglob("*") if path.is_file()} == {
        Path(case) / f"{stage}.sbatch" for case in CASES for stage in STAGES
    }


@pytest.mark.parametrize("case", CASES)
def test_bash_can_read_them(case, folder):
    for text in scripts(case, folder).values():
        assert subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("case", CASES)
def test_shellcheck_has_nothing_to_say(case, folder, tmp_path):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: sh tests/install_slurm.sh")
    paths = [tmp_path / f"{stage}.sbatch" for stage in STAGES]
    for path, text in zip(paths, scripts(case, folder).values()):
        path.write_text(text)
    literal = ["--exclude=SC2016"] if case == "nasty" else []  # $HOME in single quotes is what this user wants
    told = subprocess.run(["shellcheck", "--shell=bash", *literal, *paths], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("case", CASES)
def test_scripts_name_no_path_of_this_machine(case, folder):
    allowed = ("/shared/", "/usr/bin", "/usr/local/bin", "/bin", "/dev/null", "/tmp")
    for stage, text in scripts(case, folder).items():
        paths = re.findall(r"(?<![\w$}.~*'/\"])/[A-Za-z][\w./-]*", text) + re.findall(r"['\"](/[A-Za-z][\w./-]*)", text)
        assert [path for path in paths if not path.startswith(allowed)] == [], stage


def test_340b_is_asked_for_as_96_nodes_of_8_gpus(folder):
    lines = scripts("nemo_pyxis_96", folder)["sft"].splitlines()
    for option in ("nodes=96", "gpus-per-node=8", "ntasks-per-node=8"):
        assert f"#SBATCH --{option}" in lines
    assert "NODES=96 RANKS_PER_NODE=8" in lines


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_a_run_whose_path_a_runtime_would_split_is_refused(runtime, tmp_path):
    container = ["slurm.container.image=/i.sif", "slurm.python=python", f"slurm.container.runtime={runtime}"]
    pipeline = compose(HERE / "chain.yaml", ["cluster=slurm", *container])
    with pytest.raises(UserInputError, match=r"\[L3\].*splits mounts at ','"):
        stage_script(RunFiles(Path("/shared/a,b")), pipeline.stages["world"].cfg, pipeline.cluster)


def test_secrets_arrive_as_they_are_written(folder, tmp_path):
    (function,) = re.findall(r"^secrets\(\) \{.*?^\}", scripts("nasty", folder)["sft"], re.DOTALL | re.MULTILINE)
    written = {"PADDED": "YWJj=", "BLANK": " a  b", "LITERAL": "'$HOME` \\t", "LAST": "no newline after it"}
    (tmp_path / "mine.env").write_text("# X=y\n\n" + "\n".join(f"{name}={value}" for name, value in written.items()))
    told = subprocess.run(
        ["bash", "-c", f"set -uo pipefail\nsay() {{ :; }}\n{function}\nsecrets {tmp_path}/mine.env\nexec env -0"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(line.split("=", 1) for line in told.stdout.split("\0") if "=" in line)
    assert {name: found.get(name) for name in written} == written and "X" not in found
