"""Order, cycles and selection of stages."""

import pytest

from recipes.errors import UserInputError
from recipes.pipeline.graph import children, order, select

#  base -> sft -> dpo -> eval
#     \-> rm ---------/
PARENTS = {"eval": ["dpo", "rm"], "base": [], "sft": ["base"], "rm": ["base"], "dpo": ["sft"]}


def test_parents_come_first_and_ties_keep_the_order_of_the_file():
    assert order(PARENTS) == ["base", "sft", "rm", "dpo", "eval"]
    assert children(PARENTS)["base"] == ["sft", "rm"]


def test_a_circle_is_named_in_the_direction_of_the_data():
    parents = {"start": [], "a": ["start", "c"], "b": ["a"], "c": ["b"], "end": ["c"]}
    with pytest.raises(UserInputError) as caught:
        order(parents)
    names = caught.value.problems[0].message.rpartition(": ")[2].split(" -> ")
    assert names[0] == names[-1] and set(names) == {"a", "b", "c"}
    assert all(first in parents[second] for first, second in zip(names, names[1:]))


@pytest.mark.parametrize(
    "options, chosen",
    [
        ({}, ["base", "sft", "rm", "dpo", "eval"]),
        ({"start": ["sft"]}, ["sft", "dpo", "eval"]),
        ({"until": ["dpo"]}, ["base", "sft", "dpo"]),
        ({"start": ["sft"], "until": ["dpo"]}, ["sft", "dpo"]),
        ({"start": ["rm", "dpo"]}, ["rm", "dpo", "eval"]),
        ({"only": ["dpo", "base"]}, ["base", "dpo"]),
    ],
)
def test_selection(options, chosen):
    assert select(PARENTS, **options) == chosen


@pytest.mark.parametrize("option", ["start", "until", "only"])
def test_unknown_stages_are_refused_with_a_suggestion(option):
    with pytest.raises(UserInputError, match="did you mean `sft`"):
        select(PARENTS, **{option: ["stf"]})


@pytest.mark.parametrize("options", [{"only": ["sft"], "start": ["sft"]}, {"start": ["dpo"], "until": ["rm"]}])
def test_selections_that_make_no_sense_are_refused(options):
    with pytest.raises(UserInputError):
        select(PARENTS, **options)
