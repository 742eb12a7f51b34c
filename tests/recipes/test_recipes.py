"""The shipped recipes: none is refused where it belongs, each renders for every cluster, each says what it is."""

from __future__ import annotations

import re
import subprocess

import pytest

from recipes import cli
from recipes.pipeline.config import CONFIGS, compose
from recipes.pipeline.layers import read
from tests.recipes import site

FILES = [p for folder in ("pipeline", "model", "layout", "cluster") for p in sorted((CONFIGS / folder).glob("*.yaml"))]


@pytest.mark.parametrize("recipe", site.RECIPES)
def test_a_recipe_is_not_refused_on_the_cluster_it_is_meant_for(recipe, at, capsys):
    at(recipe)
    cluster = "nemo_pyxis_96" if "340b" in recipe else "nemo_pyxis"
    words = ["check", recipe, "--cluster", cluster, *site.CLUSTER, *site.inputs(recipe)]
    code = cli.main(words if recipe != "real_small" else ["check", recipe, *site.inputs(recipe)])
    said = capsys.readouterr()
    assert code == 0, said.err + said.out


@pytest.mark.parametrize("cluster", site.configs("cluster"))
@pytest.mark.parametrize("recipe", site.RECIPES)
def test_a_recipe_renders_for_every_cluster(recipe, cluster, at, tmp_path, capsys):
    at(recipe)
    given = [word for word in site.CLUSTER if "image" not in word or cluster.startswith("nemo")]
    given += [f"slurm.python={tmp_path}/python"] if cluster in ("bare_metal", "site_without_requeue") else []
    given += ["slurm.gpus_per_node=8"] if not cluster.startswith("nemo") else []
    words = ["submit", recipe, "--cluster", cluster, "--dry-run", "--runs-dir", str(tmp_path)]
    code = cli.main([*words, *given, *site.inputs(recipe)])
    assert code == 0, capsys.readouterr().err
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob(f"{recipe}/slurm/*.sbatch")}
    stages = compose(recipe, site.inputs(recipe)).stages
    assert set(stages) <= set(scripts)
    for name, text in scripts.items():
        assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).returncode == 0, name
    nodes = {name: re.search(r"#SBATCH --nodes=(\d+)", text)[1] for name, text in scripts.items() if name in stages}
    assert nodes == {name: str(stage.cfg["resources"]["nodes"]) for name, stage in stages.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_config_says_what_it_is_for_with_which_command_and_what_to_expect(path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert re.search(r"Hardware:", header) and re.search(r"Command: ", header) and re.search(r"Expect[:,]", header)
    for name in re.findall(r"Command: align \w+ (\w+)", header):
        assert name in site.configs("pipeline") or name == "PIPELINE", name


@pytest.mark.parametrize("recipe", site.RECIPES)
def test_an_overlay_holds_only_what_differs(recipe):
    """Setting a key to what it has anyway is a copy that goes stale: every leaf of an overlay changes something."""
    file = read(CONFIGS / "pipeline" / f"{recipe}.yaml")
    parent = file.data.get("from")
    if parent is None:
        return
    assert len((CONFIGS / "pipeline" / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()) <= 60
    theirs, mine = (compose(name, site.inputs(name)).stages for name in (parent, recipe))
    copies = [
        f"{name}.{'.'.join(key)}"
        for name, stage in mine.items()
        for key, history in stage.history.items()
        if f"pipeline/{recipe}.yaml:" in history[-1][1] and name in theirs
        and theirs[name].history.get(key, [(None, "")])[-1][0] == history[-1][0]
    ]  # fmt: skip
    assert copies == []
