"""Pairs: the right two responses, one bucket a prompt, and a held-out part that does not move."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from data_prep import pairs
from data_prep.pairs import Selection
from recipes.errors import UserInputError

TASK = {"type": "skill", "family": "lists", "skill": "reverse", "items": ["a", "b"], "constraint": None}


def response(text: str, reward: float | None = 0.0, finished: bool = True) -> dict:
    return {"text": text, "tokens": 3, "finished": finished, "reward": reward, "attributes": {}}


def scored(path, *prompts, **extra):
    rows = [{"id": f"p{i}", "messages": [{"role": "user", "content": f"prompt {i}"}], "task": TASK, "source": "t",
             "human": False, "responses": responses, "reward_model": "sha", **extra}
            for i, responses in enumerate(prompts)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass
class Built:
    train: list[dict]
    validation: list[dict]
    facts: dict


def build(path, selection, template) -> Built:
    """The rows that were written, and the facts."""
    facts = pairs.build(path, selection, template, path.parent)
    found = [(path.parent / name).read_text().splitlines() for name in (pairs.TRAIN, pairs.VALIDATION)]
    return Built(*([json.loads(line) for line in lines] for lines in found), facts)


def only(path, template, **options) -> dict:
    built = build(path, Selection(**options), template)
    assert len(built.train) == 1 and not built.validation
    return built.train[0]


def test_best_against_worst(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", [response("b", 1), response("c", 3), response("a", -2), response("d", 2)])
    assert only(path, template) == {
        "id": "p0", "prompt": [{"role": "user", "content": "prompt 0"}], "chosen": "c", "rejected": "a",
        "chosen_reward": 3.0, "rejected_reward": -2.0, "margin": 5.0, "judge": {"kind": "reward", "sha256": "sha"},
        "reward_model": "sha", "chosen_model": "", "rejected_model": "", "source": "t", "human": False,
    }  # fmt: skip


def test_an_unfinished_response_may_lose_but_not_win(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", [response("b", 9, False), response("c", 3), response("a", -2, False)])
    pair = only(path, template)
    assert (pair["chosen"], pair["rejected"]) == ("c", "a")


def test_best_against_a_random_one_is_reproducible(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", [response(text, i) for i, text in enumerate("abcdef")])
    picked = {only(path, template, rejected="random", seed=seed)["rejected"] for seed in range(30)}
    assert len(picked) > 2 and "f" not in picked
    assert len({only(path, template, rejected="random", seed=7)["rejected"] for _ in range(3)}) == 1


def test_by_truth_a_right_answer_beats_a_wrong_one_whatever_its_reward(tmp_path, template):
    answers = [response("the answer is b a .", -5), response("the answer is a b .", 9)]
    path = scored(tmp_path / "s.jsonl", answers, judges={"truth": {"name": "verify:skill", "sha256": None}})
    pair = only(path, template, by="truth")
    assert pair["chosen"] == "the answer is b a ." and pair["chosen_reward"] > pair["rejected_reward"]
    assert pair["reward_model"] == "truth"


@pytest.mark.parametrize(
    "bucket, options, responses",
    [
        ("too_few_responses", {}, [response("a", 1)]),
        ("too_few_responses", {}, [response("a", 1), response(" ", 0)]),
        ("too_few_responses", {}, [response("a", 1), response("b <extra_id_0>", 0)]),
        ("unfinished", {}, [response("a", 1, False), response("b", 0, False)]),
        ("all_equal", {}, [response("a", 1), response("b", 1)]),
        ("all_equal", {}, [response("a", 1), response("a", 0)]),
        ("small_margin", {"min_margin": 0.5}, [response("a", 1), response("b", 0.6)]),
        ("none_right", {"by": "truth"}, [response("a", 1), response("x", 0)]),
        ("none_wrong", {"by": "truth"}, [response("b a", 1), response("the answer is b a .", 0)]),
    ],
)
def test_a_prompt_without_a_pair_is_in_the_bucket_that_says_why(tmp_path, template, bucket, options, responses):
    good = [response("the answer is b a .", 3), response("the answer is a b .", 0)]
    built = build(scored(tmp_path / "s.jsonl", responses, good), Selection(**options), template)
    assert built.facts["counts"] == {bucket: 1, "kept": 1} and built.facts["prompts"] == 2


def test_facts_describe_the_pairs(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", *[[response("a", gap), response("b", 0)] for gap in (1, 2, 6)])
    facts = build(path, Selection(), template).facts
    assert (facts["gap_mean"], facts["gap_median"], facts["gap_min"], facts["gap_max"]) == (3.0, 2.0, 1.0, 6.0)
    assert facts["suggested_gt_reward_scale"] == pytest.approx(2 / 3, abs=1e-4)


def test_held_out_prompts_stay_held_out_when_others_come_and_go(tmp_path, template):
    prompts = [[response("a", 1), response("b", 0)] for _ in range(30)]
    path, options = scored(tmp_path / "s.jsonl", *prompts), Selection(validation_rows=5, seed=3)
    built = build(path, options, template)
    assert (len(built.train), len(built.validation)) == (25, 5)
    assert not {p["id"] for p in built.train} & {p["id"] for p in built.validation}
    fewer = scored(tmp_path / "t.jsonl", *prompts[:29])
    assert len({p["id"] for p in built.validation} & {p["id"] for p in build(fewer, options, template).validation}) >= 4


RIGHT, WRONG, OTHER = "the answer is b a .", "the answer is a b .", "the answer is c ."


def test_judges_are_asked_in_their_order(tmp_path, template):
    """The verifier tells the first prompt's responses apart; both of the second are right, so the reward decides."""
    path = scored(
        tmp_path / "s.jsonl", [response(WRONG, 9), response(RIGHT, 1)], [response(RIGHT, 1), response(f"{RIGHT} so", 4)]
    )
    with pytest.raises(UserInputError, match=r"D29.*truth 1, reward 1"):
        build(path, Selection(by=("truth", "reward")), template)
    first, second = build(path, Selection(by=("truth", "reward"), scales="mean_gap"), template).train
    assert (first["chosen"], first["judge"]["kind"]) == (RIGHT, "truth")
    assert (second["chosen"], second["judge"]["kind"]) == (f"{RIGHT} so", "reward")
    for pair in (first, second):  # one pair a judge: each is its judge's mean
        assert pair["chosen_reward"] - pair["rejected_reward"] == pytest.approx(1.0)
        assert pair["reward_model"] == "mean_gap" and pair["reward_scale"] == pytest.approx(1 / pair["margin"])


def test_of_equally_good_responses_one_is_drawn_not_the_first_models(tmp_path, template):
    """Verifiers give few different values: by place, the first file's model would win and the last one's lose."""
    texts = [(RIGHT, "a"), (f"{RIGHT} ", "b"), (WRONG, "a"), (f"{WRONG} ", "b")]
    answers = [[response(text) | {"model": model} for text, model in texts] for _ in range(200)]
    built = build(scored(tmp_path / "s.jsonl", *answers), Selection(by="truth"), template)
    models = built.facts["models"]
    assert all(70 < models[name][side] < 130 for name in "ab" for side in ("chosen", "rejected"))
    assert build(tmp_path / "s.jsonl", Selection(by="truth"), template).train == built.train


def test_by_comparisons_the_winner_beats_one_that_it_was_preferred_to(tmp_path, template):
    def compared(a, b, winner):
        return {"a": a, "b": b, "winner": winner, "outcome": "consistent" if winner is not None else "inconsistent"}

    three = [response("x"), response("y"), response("z")]
    comparisons = [compared(0, 1, 1), compared(1, 2, None), compared(0, 2, 0)]  # y > x > z; y and z were not decided
    path = scored(tmp_path / "s.jsonl", three, comparisons=comparisons)
    pair = only(path, template, by="pairwise")
    assert (pair["chosen"], pair["rejected"], pair["chosen_reward"], pair["rejected_reward"]) == ("y", "x", 1.0, 0.5)
    undecided = scored(tmp_path / "t.jsonl", three, comparisons=[compared(0, 1, None)])
    with pytest.raises(UserInputError, match="'not_judged': 1"):
        build(undecided, Selection(by="pairwise"), template)


@pytest.mark.parametrize(
    "options, bucket",
    [({"chosen_quantile": 0.5}, "chosen_too_low"), ({"chosen_right": True}, "chosen_wrong"), ({}, "kept")],
)
def test_the_filter_of_chosen_responses(tmp_path, template, options, bucket):
    """Four prompts have good responses; the fifth's best one is worse than most and wrong."""
    good = [[response(RIGHT, 5 + i), response(WRONG, 4)] for i in range(4)]
    path = scored(tmp_path / "s.jsonl", *good, [response(WRONG, 1), response(OTHER, 0)])
    counts = build(path, Selection(**options), template).facts["counts"]
    assert counts == ({"kept": 5} if bucket == "kept" else {bucket: 1, "kept": 4})


def test_who_wrote_and_who_judged_is_told(tmp_path, template):
    models = [response("a", 2) | {"model": "m1"}, response("b", 1) | {"model": "m2"}]
    judges = {"reward": {"name": "rm", "sha256": "f00", "template_sha256": "7e"}}
    built = build(scored(tmp_path / "s.jsonl", models, judges=judges), Selection(), template)
    assert built.facts["models"] == {"m1": {"responses": 1, "chosen": 1}, "m2": {"responses": 1, "rejected": 1}}
    assert built.train[0]["judge"] == {"kind": "reward", **judges["reward"]} and built.facts["reward_model"] == "f00"


BAD = {
    "no reward": ([response("a", None), response("b")], {}, "D9", "score the responses"),
    "reward not finite": ([response("a", float("inf")), response("b")], {}, "D9", "inf"),
    "no text": ([{"finished": True, "reward": 1}], {}, "D2", "responses[0]"),
}


@pytest.mark.parametrize("responses, extra, rule, message", BAD.values(), ids=BAD)
def test_bad_rows_are_refused_with_their_line(tmp_path, template, responses, extra, rule, message):
    good = [response("a", 1), response("b", 0)]
    path = scored(tmp_path / "s.jsonl", good, responses, **extra)
    with pytest.raises(UserInputError) as caught:
        build(path, Selection(), template)
    problem = caught.value.problems[0]
    assert (problem.rule, problem.where) == (rule, f"{path}:2") and message in str(problem)


def test_a_prompt_that_comes_twice_is_refused(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", [response("a", 1), response("b", 0)])
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserInputError, match=r"s.jsonl:2: has the prompt of line 1"):
        build(path, Selection(), template)


def test_too_few_pairs_for_validation_are_refused(tmp_path, template):
    path = scored(tmp_path / "s.jsonl", [response("a", 1), response("b", 0)])
    with pytest.raises(UserInputError, match="gives 1 pairs, 5 are needed"):
        build(path, Selection(validation_rows=4), template)


UNKNOWN = [
    {"by": "luck"}, {"by": ["reward", "reward"]}, {"scales": "none"}, {"chosen_quantile": 1.0}, {"rejected": "best"},
    {"min_margin": -1},
]  # fmt: skip


@pytest.mark.parametrize("options", UNKNOWN)
def test_unknown_options_are_the_users_error(options):
    with pytest.raises(UserInputError, match="pairs."):
        Selection(**options)


def test_the_stage_writes_what_the_preference_stage_reads(tmp_path, template, read):
    import yaml

    from data_prep.prepare import prepare
    from recipes.stages.pairs import main
    from tests.data_prep.conftest import REPO

    config = yaml.safe_load((REPO / "configs/stage/pairs.yaml").read_text())
    path = scored(tmp_path / "s.jsonl", *[[response("a", i + 1), response("b", 0)] for i in range(40)])
    facts = main(config | {"stage": "pairs", "inputs": {"scored": str(path)}}, tmp_path)
    assert facts["train"] == 8 and facts["validation"] == 32
    for name, rows in (("pairs", 8), ("pairs_validation", 32)):
        source = tmp_path / f"outputs/{name}.jsonl"
        options = {"rewards": "require", "judge": facts["reward_model"]}
        done = prepare("preference", source, tmp_path / "data", name, template, None, 0, **options)
        assert done.rows == rows
    card = (tmp_path / "outputs/card.html").read_text()
    assert "Reward gap" in card and facts["reward_model"] in card


def test_rewards_of_another_judge_are_refused(tmp_path, template):
    """The reward contract: one judge, the one of the manifest (rule D29)."""
    from data_prep.prepare import prepare

    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "chosen_reward": i + 1.0, "rejected_reward": 0.0}
            for i in range(4)]  # fmt: skip
    path = tmp_path / "pairs.jsonl"

    def refused(judges, expected=None):
        named = [row | ({"reward_model": judge} if judge else {}) for row, judge in zip(rows, judges)]
        path.write_text("".join(json.dumps(row) + "\n" for row in named))
        with pytest.raises(UserInputError) as caught:
            prepare("preference", path, tmp_path, "t", template, None, 0, rewards="require", judge=expected)
        return str(caught.value)

    assert "[D29]" in refused(["one"] * 3 + ["two"])
    assert "nobody named" in refused(["one"] * 3 + [None])
    assert "the manifest beside it names other" in refused(["one"] * 4, "other")
