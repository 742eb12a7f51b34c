"""Each way a file can be wrong: refused with this rule at this line, before anything is written."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from data_prep.prepare import prepare
from data_prep.rules import RULES
from recipes.errors import UserInputError

USER = {"role": "user", "content": "reverse a b"}
BOT = {"role": "assistant", "content": "b a"}
TALK = {"messages": [USER, BOT]}
PAIR = {"prompt": [USER], "chosen": "b a", "rejected": "a b", "chosen_reward": 2.0, "rejected_reward": 1.0}
OTHER = PAIR | {"chosen_reward": 3.0}
RATED = {"prompt": "hi", "response": "yo", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 0,
         "verbosity": 1}  # fmt: skip
TEXT = "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\nyo\n<extra_id_2>"
LABELLED = {"text": TEXT, "label": [-100.0] * 4 + [4.0, 3.0, 4.0, 0.0, 1.0]}
DPO = {"prompt": "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\n",
       "chosen_response": "yo\n<extra_id_1>", "rejected_response": "no\n<extra_id_1>"}  # fmt: skip
CHAT = {"system": "", "mask": "User", "conversations": [{"from": "User", "value": "hi"},
        {"from": "Assistant", "value": "yo"}]}  # fmt: skip
GOOD_LINE = json.dumps(TALK).encode()


def without(row: dict, key: str) -> dict:
    return {k: v for k, v in row.items() if k != key}


def label(**changes) -> dict:
    values = list(LABELLED["label"])
    for key, value in changes.items():
        values[int(key[1:])] = value
    return LABELLED | {"label": values}


# kind, rows, options, rule, line, what the message must say
ROWS = {
    "two judges": ("preference", [PAIR | {"reward_model": "a"}, OTHER | {"reward_model": "b"}], {}, "D29", None,
                   "2 judges: a, b"),
    "unknown schema": ("sft", [{"question": "x"}], {}, "D2", 1, "nemo_chat: .*messages: "),
    "missing field": ("sft", [TALK, {"message": []}], {}, "D2", 2, "messages is missing"),
    "content null": ("sft", [TALK, {"messages": [USER, BOT | {"content": None}]}], {}, "D2", 2, "NoneType"),
    "system null": ("sft", [CHAT, CHAT | {"system": None}], {}, "D2", 2, "system is NoneType"),
    "no system": ("sft", [CHAT, without(CHAT, "system")], {}, "D2", 2, "system is missing"),
    "conditioned on attributes": ("sft", [CHAT, CHAT | {"type": "VALUE_TO_TEXT"}], {}, "D2", 2, "VALUE_TO_TEXT"),
    "unknown role": ("sft", [{"messages": [USER | {"role": "tool"}, BOT]}], {}, "D3", 1, "tool"),
    "role in capitals": ("sft", [{"messages": [USER | {"role": "User"}, BOT]}], {}, "D3", 1, "User"),
    "unknown speaker": ("sft", [CHAT | {"conversations": [{"from": "user", "value": "x"}]}], {}, "D3", 1, "'user'"),
    "mask of another template": ("sft", [CHAT | {"mask": "<|user|>"}], {}, "D12", 1, "another template"),
    "two user turns": ("sft", [{"messages": [USER, USER, BOT]}], {}, "D3", 1, "roles are"),
    "late system turn": ("sft", [{"messages": [USER, {"role": "system", "content": "x"}, BOT]}], {}, "D3", 1, "roles"),
    "ends with user": ("sft", [TALK, {"messages": [USER, BOT, USER]}], {}, "D3", 2, "not assistant"),
    "empty answer": ("sft", [{"messages": [USER, BOT | {"content": " "}]}], {}, "D4", 1, "empty"),
    "control token": ("sft", [{"messages": [USER, BOT | {"content": "a<extra_id_1>"}]}], {}, "D5", 1, "<extra_id_1>"),
    "glued turns": ("sft", [{"messages": [USER | {"content": "a\n<extra_id_1>Assistant\nb"}, BOT]}], {}, "D5", 1,
                    "embedded_turns=split"),
    "human is text": ("sft", [TALK | {"human": "yes"}], {}, "D2", 1, "human"),
    "same responses": ("preference", [PAIR, PAIR | {"rejected": "b a"}], {}, "D8", 2, "same text"),
    "empty response": ("preference", [PAIR | {"rejected": ""}], {}, "D4", 1, "rejected is empty"),
    "prompt ends with assistant": ("preference", [PAIR | {"prompt": [USER, BOT]}], {}, "D3", 1, "needs user"),
    "no rewards": ("preference", [PAIR, without(without(PAIR, "chosen_reward"), "rejected_reward")],
                   {"rewards": "require"}, "D9", 2, "chosen_reward is missing"),
    "one reward": ("preference", [without(PAIR, "rejected_reward")], {}, "D9", 1, "rejected_reward is missing"),
    "reward null": ("preference", [PAIR | {"chosen_reward": None}], {}, "D9", 1, "chosen_reward is missing"),
    "reward is text": ("preference", [PAIR | {"chosen_reward": "2"}], {}, "D9", 1, "'2', not a number"),
    "reward is true": ("preference", [PAIR | {"chosen_reward": True}], {}, "D9", 1, "True, not a number"),
    "reward is not finite": ("preference", [OTHER, PAIR | {"chosen_reward": float("nan")}], {}, "D9", 2, "is nan"),
    "rewards in some rows": ("preference", [PAIR, without(without(PAIR, "chosen_reward"), "rejected_reward")],
                             {}, "D9", None, "1 of 2 rows"),
    "wrong order": ("preference", [OTHER, PAIR | {"chosen_reward": 0.5}], {"rewards": "require"}, "D10", 2, "swap"),
    "all rewards equal": ("preference", [PAIR, PAIR | {"chosen": "c"}], {"rewards": "require"}, "D13", None, "2 and 1"),
    "dpo of another template": ("preference", [DPO, DPO | {"prompt": "<|user|>hi"}], {}, "D12", 2, "does not start"),
    "dpo without header": ("preference", [DPO | {"prompt": DPO["prompt"][:-10]}], {}, "D12", 1, "header"),
    "dpo without stop token": ("preference", [DPO | {"chosen_response": "yo"}], {}, "D12", 1, "learn to stop"),
    "rm text without label token": ("reward", [LABELLED | {"text": TEXT[:-13]}], {}, "D12", 1, "score is read"),
    "eight labels": ("reward", [LABELLED | {"label": LABELLED["label"][1:]}], {}, "D11", 1, "has 8 values"),
    "label nan": ("reward", [LABELLED, label(_5=float("nan"))], {}, "D11", 2, "label\\[5\\] is nan"),
    "label bool": ("reward", [label(_5=True)], {}, "D11", 1, "not a number"),
    "label text": ("reward", [label(_5="3")], {}, "D11", 1, "not a number"),
    "all masked": ("reward", [LABELLED, LABELLED | {"label": [-100] * 9}], {}, "D11", 2, "no known attribute"),
    "attribute out of range": ("reward", [RATED, RATED | {"coherence": 5}], {}, "D11", 2, "coherence is 5"),
    "attribute list": ("reward", [RATED, RATED | {"coherence": [3, 4]}], {}, "D11", 2, "not a number"),
    "empty rated response": ("reward", [RATED | {"response": ""}], {}, "D4", 1, "response is empty"),
    "glued prompt ends with assistant": ("reward", [RATED | {"prompt": "a\n<extra_id_1>Assistant\nb"}], {}, "D3", 1,
                                         "last turn"),
    "empty text": ("text", [{"text": "a"}, {"text": " "}], {}, "D4", 2, "text is empty"),
    "all rows dropped": ("text", [{"text": " "}], {"bad_rows": "drop"}, "D14", None, "'empty_text': 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind, rows, options, rule, line, message", ROWS.values(), ids=ROWS)
def test_bad_row(tmp_path, template, kind, rows, options, rule, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expect(path, kind, template, None, options, rule, line, message)


# bytes of a .jsonl file, rule, line, message
BYTES = {
    "blank line": (GOOD_LINE + b"\n\n" + GOOD_LINE + b"\n", 2, "is blank"),
    "byte-order mark": (b"\xef\xbb\xbf" + GOOD_LINE + b"\n", 1, "byte-order mark"),
    "trailing comma": (GOOD_LINE + b"\n" + GOOD_LINE + b",\n", 2, "trailing comma"),
    "comma before brace": (GOOD_LINE[:-1] + b",}\n", 1, "trailing comma"),
    "not UTF-8": (GOOD_LINE + b"\n" + GOOD_LINE.replace(b"reverse", b"r\xe9verse") + b"\n", 2, "not UTF-8"),
    "cut off": (GOOD_LINE + b"\n" + GOOD_LINE[:20], 2, "not JSON"),
    "a list": (b"[1, 2]\n", 1, "JSON list"),
    "key twice": (b'{"text": "a", "text": "b"}\n', 1, "occurs twice"),
}


@pytest.mark.parametrize("data, line, message", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("packing", ["plain", "gz"])
def test_bad_bytes(tmp_path, template, packing, data, line, message):
    path = tmp_path / ("bad.jsonl" + (".gz" if packing == "gz" else ""))
    path.write_bytes(gzip.compress(data) if packing == "gz" else data)
    # Unreadable lines refuse the file even where bad rows are to be dropped: nothing is known about them.
    expect(path, "sft", template, None, {"bad_rows": "drop"}, "D1", line, message)


def test_lines_in_a_json_file(tmp_path, template):
    path = tmp_path / "bad.json"
    path.write_bytes(GOOD_LINE + b"\n" + GOOD_LINE)
    expect(path, "sft", template, None, {}, "D1", 2, "not JSON")


def test_empty_and_absent_files(tmp_path, template):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    expect(tmp_path / "empty.jsonl", "sft", template, None, {}, "D14", None, "empty")
    expect(tmp_path / "absent.jsonl", "sft", template, None, {}, "D1", None, "no such file")


def test_over_length_names_the_row_its_tokens_and_the_limit(tmp_path, template, tokenizer):
    path = tmp_path / "bad.jsonl"
    rows = [TALK, {"messages": [USER, BOT | {"content": "b a " * 40}]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = expect(path, "sft", template, tokenizer, {}, "D6", 2, r"takes \d+ tokens, the limit is 64", 64)
    tokens = int(re.search(r"takes (\d+)", problem.message).group(1))
    assert 80 < tokens < 120 and "over_length=drop" in problem.fix


def test_a_tokenizer_that_splits_control_tokens(tmp_path, template):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["reverse a b", "answer b a"] * 50), model_writer=model, vocab_size=300,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "t.model").write_bytes(model.getvalue())
    path = tmp_path / "good.jsonl"
    path.write_bytes(GOOD_LINE + b"\n")
    with pytest.raises(UserInputError) as caught:
        prepare("sft", path, tmp_path / "data", "train", template, tmp_path / "t.model", 64)
    assert caught.value.problems[0].rule == "D7" and "<extra_id_0>" in caught.value.problems[0].message


def test_a_tokenizer_that_merges_across_the_border(tmp_path, template, world):
    """A piece that spans the header's newline and the answer's first word would stop NeMo's DPO data set."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["reverse a b", "b a"] * 50), model_writer=model, vocab_size=320, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity",
        add_dummy_prefix=False, user_defined_symbols=[*template.control_tokens, "\nb"],
    )  # fmt: skip
    (tmp_path / "t.model").write_bytes(model.getvalue())
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(PAIR) + "\n")
    expect(path, "preference", template, tmp_path / "t.model", {}, "D7", 1, "chosen a token spans the border")


def test_a_file_of_bad_rows_lists_the_first_and_counts_the_rest(tmp_path, template):
    path = tmp_path / "bad.jsonl"
    path.write_text((json.dumps(PAIR | {"rejected": "b a"}) + "\n") * 25)
    with pytest.raises(UserInputError) as caught:
        prepare("preference", path, tmp_path / "data", "train", template, None, 0)
    assert [p.where for p in caught.value.problems[:-1]] == [f"{path}:{i}" for i in range(1, 11)]
    assert "15 more rows" in caught.value.problems[-1].message


def test_every_rule_that_rows_can_break_is_tried_here():
    tried = {case[3] for case in ROWS.values()} | {"D1", "D6", "D7", "D14"}
    of_one_adapter, of_a_build = {"D15", "D16", "D17", "D18"}, {"D19", *(f"D{i}" for i in range(20, 29))}
    assert tried | of_one_adapter | of_a_build == set(RULES)


def expect(path, kind, template, tokenizer, options, rule, line, message, max_length=0):
    with pytest.raises(UserInputError) as caught:
        prepare(kind, path, path.parent / "data", "train", template, tokenizer, max_length, **options)
    problem = caught.value.problems[0]
    assert problem.rule == rule
    assert problem.where == (f"{path}:{line}" if line else str(path))
    assert re.search(message, str(problem), re.DOTALL), str(problem)
    assert problem.fix and not list((path.parent / "data").glob("*"))
    return problem
