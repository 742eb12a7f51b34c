"""What the report says about judges: the numbers of audit.json and of the judge stages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import recipes.report
from data_prep.jsonl import write_rows
from recipes.pipeline.files import atomic_write_text, config_text, read_config
from recipes.report import judges
from recipes.report.load import load_run
from recipes.report.numbers import percent
from recipes.stages import audit, judge
from recipes.stages.entry import run_stage
from tests import browser
from tests.synthetic.judge_replies import MARK
from tests.synthetic.stub_server import stub

REPO = Path(__file__).resolve().parents[2]
HOSTILE = "<b>set & 'sound'"


def write_stage(run: Path, name: str, main, url: str, changes: dict) -> None:
    """Run a stage of the kind that `main` is, as the runner does: config, outputs, manifest."""
    kind = main.__module__.rpartition(".")[2]
    cfg = read_config(REPO / "configs" / "stage" / f"{kind}.yaml") | {"stage": name, **changes}
    cfg["endpoint"] |= {"url": url, "model": "stub"}
    atomic_write_text(run / name / "config.yaml", config_text(cfg))
    assert run_stage(main, run / name) == 0


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run with an audit and a judge stage, by a judge that prefers the longer answer, and an audit of a
    reward model that prefers the shorter one; made by the stages."""
    run = tmp_path_factory.mktemp("runs") / "judged"
    rows = [
        {"instruction": f"say {i}", "output_1": f"{i} {'x' * 40}", "output_2": f"{i}", "preference": 1 + i % 3 // 2,
         "generator_1": "gpt-4o", "generator_2": "other"}
        for i in range(60)
    ]  # fmt: skip
    write_rows(run / f"{HOSTILE}.jsonl", rows)
    texts = ["yes", "yes and no", "yes"]
    row = {"id": "p", "messages": [{"role": "user", "content": "?"}], "responses": [{"text": t} for t in texts]}
    write_rows(run / "candidates.jsonl", [row])
    with stub(reply="tests.synthetic.judge_replies:longest") as url:
        inputs = {"sets": [str(run / f"{HOSTILE}.jsonl")], "model": None}
        own = {"names": ["gpt-4*"], "mark": MARK}
        write_stage(run, "audit_llm", audit.main, url, {"inputs": inputs, "own_family": own})
        inputs = {"responses": [str(run / "candidates.jsonl")], "model": None}
        write_stage(run, "judge_llm", judge.main, url, {"inputs": inputs, "judge": "pairwise"})
    with stub(reply="tests.synthetic.judge_replies:scalar") as url:
        write_stage(run, "audit_rm", audit.main, url, {"judge": "reward", "probes": 40})
    return run


def test_the_section_has_the_numbers_of_the_stages(run_dir):
    html = recipes.report.build(run_dir).read_text(encoding="utf-8")
    section = html[html.index('<section id="judges">') : html.index('<section id="machine">')]
    result = json.loads((run_dir / "audit_llm" / "outputs" / "audit.json").read_text())
    for entry in (*result["sets"], result["overall"]):
        assert f"{percent(entry['accuracy_of_all']['share'])} <span" in section
    assert "&lt;b&gt;set &amp; &#39;sound&#39;" in section and "<b>set" not in section
    assert section.count("detected, toward longer") == section.count("detected, toward shorter") == 1
    detected = [test["controlled"] for test in result["tests"] if test["verdict"] == "detected"]
    assert sorted(detected) == [False, False, True]  # length, and on the set length and the family
    assert (section.count("bigdot found"), section.count("bigdot val")) == (2, 2)  # and the other judge's length
    assert "not detected; observed on 1 of the sets" in section  # the family on the set: longer there, so no proof
    assert "consistent 2" in section and "stub" in section and 'href="#judges"' in html


def test_intervals_are_drawn_to_scale(run_dir):
    found, _ = judges.audits(load_run(run_dir))
    result = json.loads((run_dir / "audit_llm" / "outputs" / "audit.json").read_text())
    grid = [float(x) for x in re.findall(r'class="grid" d="M([\d.]+)', found["accuracy"])]
    lines = re.findall(r'class="line metric" d="M([\d.]+) [\d.]+H([\d.]+)', found["accuracy"])
    for ends, entry in zip(lines, [*result["sets"], result["overall"]], strict=True):
        accuracy = entry["accuracy_of_all"]
        for x, value in zip(map(float, ends), (accuracy["low"], accuracy["high"])):
            assert (x - grid[0]) / (grid[-1] - grid[0]) == pytest.approx(value, abs=1e-3)


def test_a_run_without_judges_has_no_such_section(whole_run):
    html = recipes.report.build(whole_run).read_text(encoding="utf-8")
    assert "judges" not in html


def test_a_damaged_audit_is_named_and_the_report_comes_out(run_dir, tmp_path):
    import shutil

    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "audit_llm" / "outputs" / "audit.json").write_text('{"sets": []}')
    html = recipes.report.build(tmp_path / "run").read_text(encoding="utf-8")
    assert "audit.json is damaged and not shown" in html and "What judge stages counted" in html


@pytest.mark.skipif(not browser.available(), reason="no Chromium: see tests/install_chromium.sh")
def test_the_section_fits_the_screen(run_dir):
    with browser.Browser(1280, 900) as page:
        for width in (1280, 400):
            page.resize(width, 900)
            page.open(recipes.report.build(run_dir))
            wide = page.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide[0] <= wide[1] and page.console() == []
