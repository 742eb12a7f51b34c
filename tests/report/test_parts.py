"""Numbers, metric names and the layout of the graph: the parts that a wrong report would come from."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from recipes.report import numbers, svg
from recipes.report.columns import column, columns
from recipes.report.layout import GAP, NODE_WIDTH, TRUNK_WIDTH, is_trunk, lay_out
from tests.report.run_fixture import graph


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.69314, "0.693"), (12.345, "12.3"), (-1.5, "−1.50"), (3e-7, "3e−07"), 
     (None, "–"), ("nan", "nan"), (float("nan"), "nan"), (1e22, "1e+22")],
)  # fmt: skip
def test_numbers_are_printed_for_people(value, text):
    assert numbers.fmt(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (245, "4 min 05 s"), (11220, "3 h 07 min")]
)
def test_durations(value, text):
    assert numbers.duration(value) == text


def test_spearman_agrees_with_scipy_also_with_ties():
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(3)
    points = [(rng.randrange(12), rng.gauss(0, 1)) for _ in range(200)]
    assert numbers.spearman(points) == pytest.approx(stats.spearmanr(*zip(*points)).statistic)
    assert numbers.spearman([(1.0, y) for _, y in points]) is None


def test_thinning_keeps_the_spike_and_the_order():
    line = [(float(x), math.sin(x / 50)) for x in range(5000)]
    line[3210] = (3210.0, 99.0)
    thinned = numbers.thin(line, 300)
    assert len(thinned) <= 310 and (3210.0, 99.0) in thinned
    assert all(a[0] < b[0] for a, b in pairwise(thinned))


def test_smoothing_leaves_a_straight_line_where_it_is():
    line = [(float(x), 7 - 0.5 * x) for x in range(9)]
    assert numbers.smooth(line, 3) == [(x, pytest.approx(y)) for x, y in line]
    zigzag = [(float(x), float(x % 2)) for x in range(99)]
    assert all(abs(y - 0.5) < 0.04 for _, y in numbers.smooth(zigzag, 10)[10:-10])


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [(0, 1, "0.0 0.2 0.4 0.6 0.8 1.0"), (-0.3, 0.2, "-0.3 -0.2 -0.1 0.0 0.1 0.2"), (0, 1200, "0 500 1,000")],
)
def test_ticks_are_round_and_zero_has_no_sign(lo, hi, expected):
    values, show = svg.ticks(lo, hi)
    assert " ".join(show(v) for v in values) == expected


@pytest.mark.parametrize(
    ("name", "direction"),
    [("accuracy", 1), ("accuracy_code", 1), ("reward", 1), ("helpfulness", 1), ("finished", 1), ("val_loss", -1),
     ("unfinished_rate", -1), ("mt_bench", 1), ("tokens", 0), ("verbosity", 0), ("reward_std", 0),
     ("something_else", 0)],
)  # fmt: skip
def test_direction_of_a_metric(name, direction):
    assert column(name, [0.5]).direction == direction


def test_the_best_value_respects_the_direction_and_is_not_given_to_a_tie_of_all():
    assert column("loss", [3, 1, 2]).best([3, 1, None, 2]) == {1}
    assert column("accuracy", [0.2, 0.8]).best([0.2, 0.8, 0.8]) == {1, 2}
    assert column("accuracy", [0.5]).best([0.5, 0.5]) == set()
    assert column("tokens", [1, 2]).best([1, 2]) == set()


def test_judged_columns_come_first_and_a_metric_of_one_policy_has_a_column():
    found = columns([{"tokens": 9.0, "accuracy": 0.5}, {"reward": 1.0, "f1": 0.3}])
    assert [c.name for c in found] == ["reward", "accuracy", "f1", "tokens"]
    assert found[1].show(0.5) == "50.0" and found[0].show(1.25) == "1.25"


def recipe_edges() -> list[tuple[str, str]]:
    """The edges of the whole recipe, from the stages' inputs."""
    refs = [(stage, ref) for stage, (_, inputs) in graph().items() for ref in inputs.values() if ref]
    return [(ref.split("/")[0], stage) for stage, ref in refs]


def test_the_recipe_is_laid_out_downwards_without_overlap_and_with_a_straight_spine():
    spine = [
        ("base", "code_sft"),
        ("code_sft", "general_sft"),
        ("general_sft", "dpo"),
        ("dpo", "rpo1"),
        ("rpo1", "rpo2"),
    ]
    layout = lay_out(list(graph()), recipe_edges(), spine)
    row = {node: i for i, layer in enumerate(layout.layers) for node in layer}
    assert set(graph()) == {node for node in row if not is_trunk(node)}
    assert all(row[a] < row[b] for a, b in recipe_edges())
    assert all(row[b] == row[a] + 1 for a, b in layout.links)
    width = {node: TRUNK_WIDTH if is_trunk(node) else NODE_WIDTH for node in row}
    for layer in layout.layers:
        for a, b in pairwise(layer):
            assert layout.x[b] - layout.x[a] >= (width[a] + width[b]) / 2 + GAP - 1e-6
    assert all(abs(layout.x[a] - layout.x[b]) < NODE_WIDTH / 4 for a, b in spine)
    assert layout.width < 1160, "wider than the page's column: text would shrink or scroll"


def test_every_edge_is_drawn_once_through_its_sources_trunk():
    layout = lay_out(list(graph()), recipe_edges())
    ways = {}
    for a, b in layout.links:
        ways.setdefault(b, []).append(a)

    def source(node):
        return node[1] if is_trunk(node) else node

    drawn = {(source(a), b) for b, parents in ways.items() if not is_trunk(b) for a in parents}
    assert drawn == set(recipe_edges())
    assert all(len(parents) == 1 for node, parents in ways.items() if is_trunk(node))


def test_a_cycle_from_a_damaged_run_does_not_hang_the_layout():
    layout = lay_out(["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "a"), ("a", "unknown"), ("b", "b")])
    assert [len(layer) for layer in layout.layers] == [1, 1, 1]


def test_a_tiny_delta_is_shown():
    """7.4e-05 is printed with a typographic minus, which float() does not read."""
    from recipes.report.columns import column

    assert column("reward", [4.5, 5.5]).show_delta(7.36e-05).startswith("+7.36e")


def test_what_makers_of_prompts_planned_is_a_ledger_each():
    from types import SimpleNamespace

    from recipes.report.datasets import datasets

    counts = {"open_qa": {"asked": 10, "duplicate": 1, "made": 8, "unreadable": 1}, "topics": {"asked": 2, "made": 2}}
    stage = SimpleNamespace(name="prompts", kind="prompts", facts={"counts": counts, "rows": {"prompts.jsonl": 8}})
    written, first, second = datasets(SimpleNamespace(stages={"prompts": stage}))
    assert (written["name"], written["kept"], written["read"]) == ("prompts.jsonl", 8, None)
    assert (first["name"], first["read"], first["kept"]) == ("open_qa", 10, 8)
    assert first["dropped"] == {"duplicate": 1, "unreadable": 1} and second["dropped"] == {}
