"""The report's picture of memory: what the planner expects beside what a run recorded."""

import json
import xml.etree.ElementTree as ET

import pytest

from recipes.pipeline.artifacts import config_text
from recipes.pipeline.config import compose
from recipes.pipeline.manifests import FORMAT
from recipes.report import memory
from recipes.report.load import load_run


def run_of(folder, overrides=(), facts=None):
    """A run directory with its pipeline.yaml, and of some stages a manifest with these facts."""
    pipeline = compose("tiny", list(overrides))
    (folder / "pipeline.yaml").write_text(config_text(pipeline.to_dict()))
    for name, held in (facts or {}).items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(config_text(pipeline.stages[name].cfg))
        manifest = {"format": FORMAT, **{key: {} for key in ("inputs", "outputs", "parents", "versions")}}
        (folder / name / "manifest.json").write_text(json.dumps({**manifest, "facts": {"memory": held}}))
    return load_run(folder)


def bars(figure) -> dict[str, float]:
    """title -> width of every bar of a figure."""
    root = ET.fromstring(str(figure.svg).replace("<svg ", '<svg xmlns:x="x" ', 1))
    return {rect.find("title").text: float(rect.get("width")) for rect in root.iter("rect")}


def test_a_run_that_says_nothing_about_memory_has_no_picture(tmp_path):
    assert memory.figure(run_of(tmp_path)) is None


def test_predicted_and_measured_stand_below_each_other(tmp_path):
    """4, 4 and 8 bytes for each of 505,536 parameters, as finished runs record them; one stage is off by a quarter."""
    count = 505_536
    true = {"parameters": 4 * count, "gradients": 4 * count, "optimizer": 8 * count, "peak": None}
    figure = memory.figure(run_of(tmp_path, facts={"base": true, "dpo": {**true, "optimizer": 12 * count}}))
    drawn = bars(figure)
    for part in ("weights 2.0 MB", "gradients 2.0 MB", "optimizer 4.0 MB"):
        assert drawn[f"base, predicted: {part}"] == drawn[f"base, measured: {part}"]
    assert drawn["dpo, measured: optimizer 6.1 MB"] == pytest.approx(
        1.5 * drawn["dpo, predicted: optimizer 4.0 MB"], rel=1e-3
    )
    assert "of 2 stages were measured: off by at most +25.00%" in figure.note


def test_a_stage_that_names_a_gpu_is_drawn_against_its_memory(tmp_path):
    figure = memory.figure(run_of(tmp_path, ["stages.dpo.resources.gpu=H100"]))
    assert any(title.startswith("dpo, predicted: activations") for title in bars(figure))
    assert "Dashed: the GPU's memory." in figure.note and "measured" not in figure.note


@pytest.mark.parametrize("held", [None, "much", {"parameters": "nan"}, {"parameters": 1}])
def test_facts_that_are_damaged_are_left_out(tmp_path, held):
    assert memory.figure(run_of(tmp_path, facts={"base": held})) is None


def test_a_run_without_a_readable_pipeline_has_no_picture(tmp_path):
    run_of(tmp_path)
    (tmp_path / "pipeline.yaml").write_text("stages: [1, 2]")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.yaml").write_text("kind: base")
    assert memory.figure(load_run(tmp_path)) is None
