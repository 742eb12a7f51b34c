"""The report in a real browser: it loads nothing, logs nothing, shows everything and fits the screen."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import recipes.report
from recipes.report.lineage import anchor
from recipes.report.load import POLICY_KINDS, load_run
from tests import browser

pytestmark = pytest.mark.skipif(
    not browser.available() and "CI" not in os.environ, reason="no Chromium: see tests/install_chromium.sh"
)
REAL_RUN = os.environ.get("ALIGN_RUN_DIR")

# [selector, contrast ratio by WCAG 2] of the first element that each selector finds.
CONTRAST = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = (colour) => {
  const [r, g, b] = parse(colour).slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return parse(colour)[3] === 0 && element.parentElement ? behind(element.parentElement) : colour;
};
return arguments[0].map((selector) => {
  const element = document.querySelector(selector), css = getComputedStyle(element);
  const ink = element instanceof SVGElement ? css.fill : css.color;
  const [high, low] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
  return [selector, (high + 0.05) / (low + 0.05)];
});
"""
READ = (
    "body",
    "p.note",
    "table small.good",
    "table small.bad",
    "td.best",
    "svg .tick",
    "svg .value.best",
    ".status",
    ".kind",
    "mark",
    "nav a",
)
# Labels of the drawings that are shown and have no size.
EMPTY_SVG = """
return [...document.querySelectorAll('svg')].filter((svg) => {
  const box = svg.getBoundingClientRect();
  return !svg.closest('details:not([open])') && (box.width < 50 || box.height < 20);
}).map((svg) => svg.getAttribute('aria-label'));
"""
NODE_WIDTHS = "return [...document.querySelectorAll('svg.lineage a')].map((a) => a.getBoundingClientRect().width)"


@pytest.fixture(scope="module")
def window():
    with browser.Browser(1280, 900) as page:
        yield page


def check_page(window, run_dir: Path) -> None:
    """What holds for the report of every run."""
    path = recipes.report.build(run_dir)
    run = load_run(run_dir)
    window.requests(), window.console()
    window.resize(1280, 900)
    window.open(path)
    assert window.console() == []
    assert [url for url in window.requests() if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert window.run("return document.title") == f"{run.name}: alignment run", "a script of the data ran"
    ids = set(window.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)"))
    assert {anchor(name) for name in run.stages} <= ids
    rows = window.run("return [...document.querySelectorAll('[data-policy]')].map((e) => e.dataset.policy)")
    assert {stage.name for stage in run.of_kind(*POLICY_KINDS)} <= set(rows)
    assert window.run(EMPTY_SVG) == []
    nodes = window.run(NODE_WIDTHS)
    assert len(nodes) == len(run.stages) and min(nodes) > 100
    for width in (1280, 400):
        window.resize(width, 900)
        wide = window.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"the page scrolls sideways at {width} px"


def test_a_whole_run(window, whole_run):
    check_page(window, whole_run)


def test_a_failed_run(window, failed_run):
    check_page(window, failed_run)
    shown = window.run("return document.querySelector('.callout').innerText")
    assert "dpo" in shown and "step 37 of 120" in shown and "blocked" in shown


@pytest.mark.e2e
@pytest.mark.skipif(not REAL_RUN, reason="ALIGN_RUN_DIR is not set")
def test_a_real_run(window, tmp_path):
    shutil.copytree(REAL_RUN, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "model_weights", "report"))
    check_page(window, tmp_path / "run")


def test_the_text_can_be_read_on_light_and_on_dark(window, whole_run):
    window.resize(1280, 900)
    window.open(recipes.report.build(whole_run))
    pages = {}
    for scheme in ("light", "dark"):
        window.colour_scheme(scheme)
        low = [(what, round(ratio, 2)) for what, ratio in window.run(CONTRAST, READ) if ratio < 4.5]
        assert low == [], f"too little contrast on {scheme}"
        pages[scheme] = window.run("return getComputedStyle(document.body).backgroundColor")
    window.colour_scheme("light")
    assert pages["light"] != pages["dark"]


def test_a_box_of_the_graph_leads_to_its_opened_config(window, whole_run):
    window.open(recipes.report.build(whole_run))
    stage = anchor("rpo2")
    inside = f"document.getElementById('{stage}')"
    assert window.run(f"return {inside}.closest('details').open") is False
    window.run(f"document.querySelector('svg.lineage a[href=\"#{stage}\"]').dispatchEvent(new MouseEvent('click'))")
    assert window.run(f"return {inside}.closest('details').open") is True
    assert "kind: preference" in window.run(f"return {inside}.innerText")


def test_it_also_opens_without_a_driver(whole_run, tmp_path):
    """As a reader does: Chromium alone, network off for the page, the DOM as it ended up."""
    path = recipes.report.build(whole_run)
    command = [browser.CHROMIUM, *browser.FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert dom.count("<section") == 6 and "</html>" in dom
