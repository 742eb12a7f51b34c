"""What the report says about a run, and that it never says more than the run's files do."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import recipes.report
from recipes.errors import UserInputError
from recipes.pipeline import artifacts
from recipes.report import curves, datasets, evaluations, lineage, published, render, samples, timing
from recipes.report.load import load_run, read_json, read_jsonl
from tests.report.run_fixture import HOSTILE, POLICIES, START, graph, write_lines, write_run


def page(run_dir: Path) -> str:
    return recipes.report.build(run_dir).read_text(encoding="utf-8")


def metrics(run_dir: Path, policy: str) -> dict:
    return read_json(run_dir / f"eval_{policy}" / "outputs" / "metrics.json", [])


@pytest.fixture
def run_copy(tmp_path, whole_run) -> Path:
    """A copy of the whole run that a test may damage."""
    import shutil

    shutil.copytree(whole_run, tmp_path / "run")
    return tmp_path / "run"


# -- building ----------------------------------------------------------------------------------------


def test_build_writes_one_file_and_touches_nothing_else(run_copy):
    before = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*") if p.is_file() and "report" not in p.parts}
    path = recipes.report.build(str(run_copy))
    assert path == run_copy / "report" / "index.html"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"], "a temporary file was left"
    after = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*") if p.is_file() and "report" not in p.parts}
    assert after == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserInputError, match="no pipeline.yaml and no stage"):
        recipes.report.build(tmp_path)
    assert not (tmp_path / "report").exists()


def test_building_needs_no_plotting_library_and_no_engine(whole_run):
    script = (
        "import sys, pathlib, recipes.report; recipes.report.build(pathlib.Path(sys.argv[1]));"
        "print([m for m in ('torch', 'nemo', 'matplotlib', 'numpy', 'omegaconf') if m in sys.modules])"
    )
    root = Path(recipes.report.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, str(whole_run)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_texts_from_the_data_stay_texts(whole_run):
    html = page(whole_run)
    assert "<script" not in html and "<img" not in html and "onerror=alert(1)&gt;" in html
    assert "tiny &lt;&amp; co&gt;" in html
    assert html.count("<style>") == 1 and "http://" not in html and "https://" not in html


# -- headline and stage table ------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_policy_with_the_change_from_its_parent(whole_run):
    run = load_run(whole_run)
    found = evaluations.load_evaluations(run)
    (group,) = evaluations.groups(found)
    table = evaluations.table(run, group)
    assert [row["policy"] for row in table["rows"]] == list(POLICIES)
    assert [row["parent"] for row in table["rows"]] == [None, *POLICIES[:-1]]
    names = [c.name for c in table["columns"]]
    cell = table["rows"][4]["cells"][names.index("accuracy")]
    points = 100 * (metrics(whole_run, "rpo1")["accuracy"] - metrics(whole_run, "dpo")["accuracy"])
    assert float(cell["delta"].replace("−", "-")) == pytest.approx(points, abs=0.05)
    best = min(POLICIES, key=lambda p: metrics(whole_run, p)["loss"])
    bold = [row["policy"] for row in table["rows"] if row["cells"][names.index("loss")]["best"]]
    assert best in bold
    assert not any(row["cells"][names.index("tokens")]["best"] for row in table["rows"])


def test_an_evaluation_on_other_prompts_is_not_compared(run_copy):
    path = run_copy / "eval_rpo3" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"]["prompts"]["sha256"] = "f" * 64
    path.write_text(json.dumps(manifest))
    run = load_run(run_copy)
    groups = evaluations.groups(evaluations.load_evaluations(run))
    assert [len(group) for group in groups] == [len(POLICIES) - 1, 1]
    assert evaluations.table(run, groups[1])["rows"][0]["parent"] is None
    assert "rpo3, has not been evaluated" in evaluations.verdict(run, evaluations.load_evaluations(run))["text"]


def test_the_verdict_goes_from_the_last_sft_to_the_last_policy_and_says_when_it_got_worse(run_copy):
    run = load_run(run_copy)
    verdict = evaluations.verdict(run, evaluations.load_evaluations(run))
    assert verdict["text"].startswith("From general_sft to rpo3, reward improved")
    path = run_copy / "eval_rpo3" / "outputs" / "metrics.json"
    path.write_text(json.dumps(metrics(run_copy, "rpo3") | {"reward": -1.0, "accuracy": 0.0}))
    text = evaluations.verdict(run, evaluations.load_evaluations(run))["text"]
    assert "reward got worse" in text and "worse: accuracy" in text


def test_the_published_table_is_the_sources_and_says_what_it_is(whole_run):
    rows = {name: dict(zip(published.COLUMNS, cells)) for name, cells in published.table()["rows"]}
    assert rows["+ RPO 3"]["MMLU 0-shot"] == ("78.7", "A")
    assert rows["Base"] == dict.fromkeys(published.COLUMNS, ("–", "")) | {"HumanEval 0-shot": ("57.3", "B")}
    assert rows["+ DPO"]["IFEval instruction-strict"] == ("72.7", "C")
    assert "another model" in page(whole_run)


# -- unfinished and damaged runs ---------------------------------------------------------------------


def test_a_failed_run_names_what_is_not_done_and_invents_nothing(failed_run):
    run = load_run(failed_run)
    open_stages = render.headline(run, [])["open"]
    assert open_stages["failed"] == [{"name": "dpo", "progress": "step 37 of 120"}]
    done = list(graph()).index("dpo")
    assert [s["name"] for s in open_stages["blocked"]] == list(graph())[done + 1 :]
    html = page(failed_run)
    assert "No policy has been evaluated" in html
    assert html.count("not evaluated: eval_") == len(POLICIES)
    assert "No samples" in html


def test_a_run_that_was_only_planned_has_a_report(tmp_path, whole_run):
    (tmp_path / "pipeline.yaml").write_text((whole_run / "pipeline.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    html = page(tmp_path)
    assert f"0<small> of {len(graph())}" in html and "No stage recorded when it ran" in html


def test_damaged_files_are_named_and_the_rest_is_reported(run_copy):
    with (run_copy / "dpo" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    (run_copy / "rpo3" / "manifest.json").write_text("{")
    (run_copy / "eval_base" / "outputs" / "metrics.json").write_text('{"accuracy": "nan", "reward": 1}')
    html = page(run_copy)
    assert "dpo: metrics.jsonl: 1 line not readable and left out" in html
    assert "rpo3: manifest.json cannot be read: the stage counts as not done" in html
    assert "eval_base: metrics.json: no finite number for accuracy" in html
    assert "eval_rpo3 was made from another rpo3" in html


@pytest.mark.parametrize(
    ("key", "value"), [("inputs", []), ("outputs", {"model": "x"}), ("facts", None), ("parents", {"world": 1})]
)
def test_a_manifest_of_the_wrong_shape_is_no_manifest(run_copy, key, value):
    path = run_copy / "rpo3" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert "rpo3: manifest.json cannot be read" in page(run_copy)


def test_a_parent_that_was_redone_is_reported(run_copy):
    path = run_copy / "reward" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"facts": {"pair_accuracy": 0.5}}))
    broken = lineage.changed_parents(load_run(run_copy))
    assert ("reward", "score0") in broken and all(parent == "reward" for parent, _ in broken)
    assert "score0 was made from another reward" in page(run_copy)


def test_an_edited_config_is_reported(run_copy):
    path = run_copy / "code_sft" / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed: 1234", "seed: 1"), encoding="utf-8")
    assert "code_sft: config.yaml is not the one the stage ran with" in page(run_copy)


# -- curves, samples, lineage, data, time ------------------------------------------------------------


def test_a_loss_that_is_not_a_number_is_not_drawn_but_said(run_copy):
    lines = read_jsonl(run_copy / "base" / "metrics.jsonl", [])
    lines[5]["loss"], lines[9]["loss"] = float("nan"), "inf"
    write_lines(run_copy / "base" / "metrics.jsonl", lines)
    stage = load_run(run_copy).stages["base"]
    figure = curves.curve(stage, "Loss", lambda line: line.get("loss"))
    assert figure.warning == "2 values not finite" and "nan" not in figure.svg


def test_the_reward_gap_is_chosen_minus_rejected(whole_run):
    line = {"rewards_chosen_mean": 2.0, "rewards_rejected_mean": -3.0}
    assert curves._gap(line) == 5.0 and curves._gap({"rewards_chosen_mean": 2.0}) is None
    assert math.isnan(curves._gap(line | {"rewards_rejected_mean": "nan"}))
    figures = next(s for s in curves.stage_figures(load_run(whole_run)) if s["name"] == "dpo")["figures"]
    assert [f.title for f in figures][1:3] == ["Reward gap, chosen − rejected", "Preference accuracy"]
    assert "Spearman 0." in figures[3].note


def test_a_spearman_that_disagrees_with_the_manifest_is_said(run_copy):
    path = run_copy / "dpo" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"]["spearman"] = -0.9
    path.write_text(json.dumps(manifest))
    assert curves.implicit_gaps(load_run(run_copy).stages["dpo"]).warning == "the manifest says Spearman -0.900"


def test_verdicts_that_changed_are_counted_from_the_samples(whole_run):
    run = load_run(whole_run)
    (group,) = evaluations.groups(evaluations.load_evaluations(run))
    for step in samples.transitions(run, group):
        before, after = (
            {
                row["id"]: row["responses"][0]
                for row in read_jsonl(whole_run / f"eval_{p}" / "outputs" / "samples.jsonl", [])
            }
            for p in (step["before"], step["after"])
        )
        right = {i: (before[i]["verified"]["correct"], after[i]["verified"]["correct"]) for i in before}
        assert step["fixed"] == sum(pair == (False, True) for pair in right.values())
        assert step["broken"] == sum(pair == (True, False) for pair in right.values())
        assert step["reward"] == pytest.approx(
            sum(after[i]["reward"] - before[i]["reward"] for i in before) / len(before)
        )


def test_which_prompts_are_shown_does_not_depend_on_the_answers(whole_run):
    run = load_run(whole_run)
    (group,) = evaluations.groups(evaluations.load_evaluations(run))
    shown = samples.side_by_side(run, group)
    assert shown["total"] == 60 and shown["shown"] == samples.SHOWN
    places = [int(p["id"].split("-")[1]) for p in shown["prompts"]]
    assert places == [int(i * 60 / samples.SHOWN) for i in range(samples.SHOWN)]
    assert all(len(p["cells"]) == len(POLICIES) for p in shown["prompts"])


def test_changed_words_are_marked_and_escaped():
    assert samples.changed_words("the answer is a b", "the answer is <b> b") == "the answer is <mark>&lt;b&gt;</mark> b"
    assert samples.changed_words("all of this", "nothing stays here now") == "nothing stays here now"
    assert "<script" not in samples.changed_words("x " + HOSTILE, "y " + HOSTILE)


def test_the_graph_has_every_stage_with_a_link_and_files_from_outside(tmp_path):
    own = tmp_path / "own data.jsonl"
    own.write_text("{}\n")
    run = load_run(write_run(tmp_path / "run", upto="general_sft", outside=str(own)))
    drawing = lineage.graph(run)
    assert all(f'href="#{lineage.anchor(name)}"' in drawing for name in run.stages)
    assert "own data.jsonl" in drawing
    edges = lineage.edges(run)
    assert edges[(lineage.OUTSIDE + str(own), "code_sft")] == ["train: own data.jsonl"]
    assert edges[("dpo", "eval_dpo")] == ["policy: model"], "planned stages have their edges too"


def test_a_models_hash_is_the_one_its_consumers_recorded(whole_run):
    stages = {s["name"]: s for s in lineage.details(load_run(whole_run))}
    model = next(o for o in stages["base"]["outputs"] if o["name"] == "model")
    assert model["sha256"] == (whole_run / "base" / "outputs" / "model" / "CONTENT_SHA256").read_text()
    assert model["files"] == 2


def test_every_ledger_adds_up(whole_run):
    lines = [line for line in datasets.datasets(load_run(whole_run)) if line["read"] is not None]
    assert {line["stage"] for line in lines} == {"code_sft", "general_sft", "reward", "dpo", "rpo1", "rpo2", "rpo3"}
    assert all(line["read"] == line["kept"] + sum(line["dropped"].values()) for line in lines)
    assert {line["name"] for line in lines} == {"train", "validation"}
    assert next(line for line in lines if line["stage"] == "reward")["human"] == "100.0 %"


def test_the_share_of_time_in_steps_counts_the_last_attempt_only(run_copy):
    stage = run_copy / "base"
    lines = read_jsonl(stage / "metrics.jsonl", [])
    wall = artifacts.read_manifest(stage)["wall_seconds"]
    again = [{"event": "start", "total": 120, "resumed_at": 60, "time": lines[0]["time"] + 1}]
    write_lines(
        stage / "metrics.jsonl",
        [*lines[:60], *again, {"event": "train", "step": 61, "step_time": wall / 4, "time": lines[0]["time"] + 2}],
    )
    first = timing.wall(load_run(run_copy))["first_step"]
    assert first == pytest.approx(lines[1]["time"] - (START - 1)), "the run's first step is that of the first attempt"
    row = timing.stage_rows(load_run(run_copy))[1]
    assert row["name"] == "base" and row["steps"] == 1 and row["share"] == pytest.approx(0.25)


def test_mixed_versions_are_shown_with_who_had_which(run_copy):
    path = run_copy / "rpo3" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["python"] = "3.99.0"
    path.write_text(json.dumps(manifest))
    python = next(v for v in timing.versions(load_run(run_copy)) if v["package"] == "python")
    assert python["mixed"] and {"version": "3.99.0", "where": ["rpo3"]} in python["versions"]
