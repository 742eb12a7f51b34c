"""prepare: what each kind writes, that every row is counted once, and that output depends on the input alone."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from data_prep.prepare import prepare
from data_prep.records import LABEL_SLOTS

PAIR = {"prompt": [{"role": "user", "content": "reverse a b"}], "chosen": "b a", "rejected": "a b",
        "chosen_reward": 2.5, "rejected_reward": -1}  # fmt: skip
RATED = {"prompt": "hi", "response": "yo", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 0,
         "verbosity": 1}  # fmt: skip
HEADER = "<extra_id_0>System\n\n<extra_id_1>User\n"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_preference_rows_are_nemos_string_form(tmp_path, template, read):
    done = prepare("preference", write(tmp_path / "p.jsonl", [PAIR]), tmp_path / "data", "train", template, None, 0)
    assert read(done.path) == [
        {"prompt": HEADER + "reverse a b\n<extra_id_1>Assistant\n", "chosen_response": "b a\n<extra_id_1>",
         "rejected_response": "a b\n<extra_id_1>", "chosen_reward": 2.5, "rejected_reward": -1.0}
    ]  # fmt: skip


def test_reward_rows_have_nine_slots_the_first_four_unknown(tmp_path, template, read):
    done = prepare("reward", write(tmp_path / "h.jsonl", [RATED]), tmp_path / "data", "train", template, None, 0)
    row = read(done.path)[0]
    assert row["text"] == HEADER + "hi\n<extra_id_1>Assistant\nyo\n<extra_id_2>"
    assert row["label"] == [-100.0, -100.0, -100.0, -100.0, 4.0, 3.0, 4.0, 0.0, 1.0]
    assert LABEL_SLOTS[4] == "helpfulness"
    assert done.human_rows == 1


def test_sft_and_text_rows(tmp_path, template, read):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    sft = prepare("sft", write(tmp_path / "s.jsonl", [{"messages": talk}]), tmp_path / "d", "train", template, None, 0)
    assert read(sft.path) == [template.chat_row(talk)]
    text = prepare("text", write(tmp_path / "t.jsonl", [{"text": "a b"}]), tmp_path / "d", "train", None, None, 0)
    assert read(text.path) == [{"input": "", "output": "a b"}]


def test_side_rows_join_back_in_the_same_order(tmp_path, template, read):
    rows = [RATED | {"id": "x"}, RATED | {"response": "no"}, RATED | {"prompt": "other"}]
    done = prepare("reward", write(tmp_path / "h.jsonl", rows), tmp_path / "data", "train", template, None, 0)
    meta = read(done.meta_path)
    assert [row["line"] for row in meta] == [1, 2, 3] and meta[0]["id"] == "x"
    assert meta[0]["group"] == meta[1]["group"] != meta[2]["group"]
    assert meta[0]["attributes"] == {name: RATED[name] for name in LABEL_SLOTS[4:]}


def test_multi_turn_helpsteer_prompts_become_turns(tmp_path, template, read):
    row = RATED | {"prompt": "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nbye"}
    done = prepare("reward", write(tmp_path / "h.jsonl", [row]), tmp_path / "data", "train", template, None, 0)
    turns = HEADER + "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nbye\n<extra_id_1>Assistant\nyo\n<extra_id_2>"
    assert read(done.path)[0]["text"] == turns


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "json.gz"])
def test_every_packing_of_a_file_gives_the_same_rows(tmp_path, template, suffix):
    rows = [PAIR, PAIR | {"chosen": "é"}]
    text = json.dumps(rows, indent=1) if "json" == suffix.split(".")[0] else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    done = prepare("preference", path, tmp_path / "data", "train", template, None, 0)
    plain = prepare("preference", write(tmp_path / "q.jsonl", rows), tmp_path / "data", "train", template, None, 0)
    assert done.path == plain.path


def test_the_name_is_the_content_and_reruns_agree(tmp_path, template, tokenizer):
    source = write(tmp_path / "p.jsonl", [PAIR] * 3)
    first = prepare("preference", source, tmp_path / "a", "train", template, tokenizer, 64)
    second = prepare("preference", source, tmp_path / "b", "train", template, tokenizer, 64)
    assert first.path.name == second.path.name == f"train.{first.sha256[:12]}.jsonl"
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.ledger_path.read_bytes() == second.ledger_path.read_bytes()
    write(source, [PAIR] * 2 + [PAIR | {"rejected": "a  b"}])
    assert prepare("preference", source, tmp_path / "a", "train", template, tokenizer, 64).path != first.path


def test_dropped_rows_are_counted_by_rule_and_the_ledger_adds_up(tmp_path, template, tokenizer):
    long = PAIR | {"chosen": "b a " * 40}
    rows = [PAIR, long, PAIR | {"rejected": "b a"}, PAIR | {"chosen_reward": -3}, PAIR, PAIR]
    done = prepare("preference", write(tmp_path / "p.jsonl", rows), tmp_path / "data", "train", template, tokenizer, 64,
                   over_length="drop", bad_rows="drop", rewards="optional", limit=2)  # fmt: skip
    assert done.counts == {"kept": 2, "over_length": 1, "no_preference": 1, "beyond_limit": 2}
    ledger = json.loads(done.ledger_path.read_text())
    assert sum(ledger["counts"].values()) == ledger["rows_read"] == len(rows)
    assert ledger["schema"] == "pairs" and ledger["lengths_checked"] is True


def test_a_refused_file_leaves_nothing_behind(tmp_path, template):
    from recipes.errors import UserInputError

    source = write(tmp_path / "p.jsonl", [PAIR, PAIR | {"rejected": "b a"}])
    with pytest.raises(UserInputError):
        prepare("preference", source, tmp_path / "data", "train", template, None, 0)
    assert list((tmp_path / "data").iterdir()) == []


def test_the_limit_is_on_tokens_of_the_whole_row(tmp_path, template, tokenizer):
    """One token more than allowed is dropped, the exact length is kept."""
    source = write(tmp_path / "p.jsonl", [PAIR])
    length = prepare("preference", source, tmp_path / "data", "t", template, tokenizer, 0).max_tokens
    assert length > 14
    for limit, bucket in ((length, "kept"), (length - 1, "over_length")):
        rows = write(tmp_path / "q.jsonl", [PAIR, PAIR | {"prompt": "a", "chosen": "b", "rejected": "c"}])
        done = prepare("preference", rows, tmp_path / "data", "t", template, tokenizer, limit, over_length="drop")
        assert done.counts.get(bucket) == (2 if bucket == "kept" else 1)


@pytest.mark.engine
def test_nemo_aligner_reads_what_we_write(tmp_path, template, tokenizer, world):
    """NeMo-Aligner's own DPO and reward data sets on our files: no assertion, nothing ignored, our token counts."""
    pytest.importorskip("nemo_aligner")
    import numpy as np
    from omegaconf import OmegaConf

    from recipes.engine import compat

    compat.install()
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
    from nemo_aligner.data.nlp.datasets import DPOModelDataset, RegressionRewardModelDataset

    spm = SentencePieceTokenizer(str(tokenizer))
    cfg = OmegaConf.create({"data": {"data_impl": "jsonl", "chat_prompt_tokens": template.nemo_tokens()}, "seed": 1})

    def dataset(kind, source, cls):
        done = prepare(kind, source, tmp_path / "data", "train", template, tokenizer, 64)
        rows = [json.loads(line) for line in done.path.read_text().splitlines()]
        meta = [json.loads(line) for line in done.meta_path.read_text().splitlines()]
        return rows, meta, cls(cfg, spm, "train", None, np.arange(len(rows)), rows, 64, 1)

    rows, meta, pairs = dataset("preference", write(tmp_path / "p.jsonl", [PAIR]), DPOModelDataset)
    for i in range(len(rows)):
        item = pairs[i]
        assert not item["ignore_example"]
        assert max(item["chosen_length"], item["rejected_length"]) == meta[i]["tokens"] - 1  # inputs leave out the last
        answer = [token for token in item["chosen_labels"].tolist() if token != -100]
        assert spm.ids_to_text(answer) == rows[i]["chosen_response"]
    rows, meta, rated = dataset("reward", world / "human.jsonl", RegressionRewardModelDataset)
    for i in range(0, len(rows), 25):
        assert int(rated[i]["lengths"]) == meta[i]["tokens"]
        assert rated[i]["labels"].tolist() == rows[i]["label"]
