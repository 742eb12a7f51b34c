"""Jobs in containers: what srun and apptainer are asked for, on a Slurm with (a stand-in for) pyxis and without."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster

SOURCE = Path(__file__).with_name("fake_pyxis.c")
NOTE = 'it\'s "so" $HOME `id` \\\nand a second line'
# An interpreter that notes what its task was given in <records>/<stage>.<attempt>.<module>.<rank>.
RECORDER = """\
#!/bin/sh
record={records}/$(basename "${{ALIGN_OUTCOME:-report}}" .json).$2.$SLURM_PROCID
env | grep '^FAKE_PYXIS_' > "$record"
printf '%s' "$NOTE" > "$record.note"
exec {interpreter} "$@"
"""
APPTAINER = """\
#!/bin/bash
echo "$*" >> {record}
until [[ $1 == *.sif ]]; do shift; done
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def pyxis_cluster(make_cluster, tmp_path_factory) -> Cluster:
    """A cluster whose srun takes pyxis' options."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed: no stand-in for pyxis can be built")
    plugin = tmp_path_factory.mktemp("spank") / "fake_pyxis.so"
    told = subprocess.run(["gcc", "-shared", "-fPIC", "-o", plugin, SOURCE], capture_output=True, text=True)
    if "slurm/spank.h: No such file" in told.stderr:
        pytest.skip("slurm/spank.h is not installed (libslurm-dev): no stand-in for pyxis can be built")
    assert told.returncode == 0, told.stderr
    return make_cluster(spank=plugin)


@pytest.fixture
def pyxis(pyxis_cluster, tmp_path):
    pyxis_cluster.begin(tmp_path)
    yield pyxis_cluster
    pyxis_cluster.clear()


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def recorder(cluster: Cluster) -> tuple[str, Path]:
    """(an interpreter that notes what it was given, where)."""
    records = cluster.home / "records"
    records.mkdir()
    text = RECORDER.format(records=records, interpreter=cluster.interpreter)
    return str(script(cluster.home / "python", text)), records


def outside(cluster: Cluster) -> Path:
    """An input that no stage makes, in a folder of its own."""
    path = cluster.home / "texts" / "corpus.jsonl"
    path.parent.mkdir()
    path.write_text('{"text": "some words"}\n' * 20)
    return path


def image(cluster: Cluster, name: str) -> str:
    (cluster.home / name).touch()
    return str(cluster.home / name)


def test_with_pyxis_every_process_of_a_stage_is_in_the_image(pyxis):
    python, records = recorder(pyxis)
    corpus, picture, models = outside(pyxis), image(pyxis, "nemo.sqsh"), pyxis.home / "models"
    models.mkdir()
    container = {"runtime": "pyxis", "image": picture, "mounts": [f"{models}:/models:ro"]}
    profile = pyxis.profile(python=python, container=container, environment={"NOTE": NOTE})
    pyxis.submit(f"stages.base.inputs.train='{corpus}'", profile=profile, until="generate")
    pyxis.wait("generate", "done", timeout=120)
    pyxis.wait_for(lambda: (pyxis.run_dir / "report" / "index.html").exists(), "the report")
    assert pyxis.steps("dpo") == [0, 1, 2]

    mine, tasks = [f"{path}:{path}" for path in (ROOT, pyxis.run_dir)], set()
    for path in records.glob("*.[0-9]"):
        stage, module = re.fullmatch(r"(\w+?)(?:\.\d+\.\d+)?\.(recipes\..*)\.0", path.name).groups()
        tasks.add((stage, module))
        asked = dict(line.split("=", 1) for line in path.read_text().splitlines())
        inputs = [f"{corpus}:{corpus}"] if stage == "base" else []
        assert asked == {
            "FAKE_PYXIS_CONTAINER_IMAGE": picture,
            "FAKE_PYXIS_CONTAINER_MOUNTS": ",".join([*mine, *inputs, f"{models}:/models:ro"]),
            "FAKE_PYXIS_CONTAINER_WORKDIR": str(ROOT),
            "FAKE_PYXIS_CONTAINER_ENV": "NOTE",
            "FAKE_PYXIS_NO_CONTAINER_MOUNT_HOME": "1",
        }
        assert Path(f"{path}.note").read_text() == NOTE
    kinds = {"world": "world", "base": "base", "sft": "sft", "dpo": "preference", "generate": "generate"}
    stages = {(stage, module) for stage in kinds for module in ("recipes.slurm.job", f"recipes.stages.{kinds[stage]}")}
    assert tasks == {*stages, ("report", "recipes.cli")}


def test_without_the_plugin_nothing_is_submitted(cluster):
    container = {"runtime": "pyxis", "image": image(cluster, "nemo.sqsh")}
    said = cluster.submit(profile=cluster.profile(container=container), code=2)
    assert "[L3] slurm.container.runtime" in said and "the plugin is not installed" in said and not cluster.queue()


def test_with_apptainer_every_process_of_a_stage_is_in_the_image(cluster):
    python, records = recorder(cluster)
    corpus, picture, models = outside(cluster), image(cluster, "nemo.sif"), cluster.home / "models"
    for folder in (models, cluster.home / "bin"):
        folder.mkdir()
    record = cluster.home / "asked"
    script(cluster.home / "bin" / "apptainer", APPTAINER.format(record=record))
    container = {"runtime": "apptainer", "image": picture, "mounts": [str(models)], "options": ["--containall"]}
    prologue = f'export PATH="{cluster.home / "bin"}:$PATH"'  # as `module load apptainer` does it
    profile = cluster.profile(python=python, container=container, prologue=prologue, environment={"NOTE": NOTE})
    cluster.submit(f"stages.base.inputs.train='{corpus}'", profile=profile, until="base")
    cluster.wait("base", "done", timeout=120)
    assert cluster.steps("base") == [0, 1, 2]

    binds = [f"--bind {path}:{path}" for path in (ROOT, cluster.run_dir, corpus, models)]
    words = ["exec --no-home --pwd", str(ROOT), *binds, "--containall", picture, python, "-m recipes.stages.base"]
    asked = record.read_text().splitlines()
    assert f"{' '.join(words)} {cluster.run_dir / 'base' / 'config.yaml'}" in asked
    assert sum("-m recipes.slurm.job" in line for line in asked) >= 4  # before and after each of two stages
    assert {path.read_text() for path in records.glob("*.note")} == {NOTE}
