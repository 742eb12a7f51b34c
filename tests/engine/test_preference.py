"""The facts about held-out pairs that a preference stage writes to its manifest."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


def facts(implicit, rewards):
    from recipes.engine.preference import _facts

    return _facts([{"implicit_gap": gap, "reward_gap": reward} for gap, reward in zip(implicit, rewards)])


def test_rank_correlation_of_implicit_and_reward_gaps():
    """Spearman's rho without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), here with rank differences 0, 1, 1, 0."""
    result = facts([-1.0, 0.5, 0.25, 9.0], [0.1, 0.2, 0.3, 4.0])
    assert result["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert result["implicit_accuracy"] == 0.75
    assert result["implicit_gap_mean"] == pytest.approx(8.75 / 4)


@pytest.mark.parametrize(
    "implicit, rewards",
    [([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]), ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]), ([0.1, 0.2], [None, None])],
    ids=["policy did not move", "one reward gap", "no rewards"],
)
def test_no_correlation_where_there_is_none_to_compute(implicit, rewards):
    """Not NaN, which the manifest refuses."""
    assert facts(implicit, rewards)["spearman"] is None
