"""Real files: NVIDIA's SFT and reward rows, HelpSteer2 rows, UltraFeedback pairs. Skipped, visibly, without them."""

from __future__ import annotations

import pytest

from data_prep.prepare import prepare
from recipes.errors import UserInputError


def test_nvidias_dummy_sft_rows(shared_data, tmp_path, template):
    source = shared_data / "sft/nemo_aligner_dummy_sft.jsonl.gz"
    assert prepare("sft", source, tmp_path, "train", template, None, 0).counts == {"kept": 30}


def test_nvidias_sft_rows_with_glued_turns(shared_data, tmp_path, template, read):
    """329 of the 512 rows hold rendered turns in their first message: refused as they are, split on request."""
    source = shared_data / "sft/nemo_aligner_sft512_extra_id.jsonl.gz"
    with pytest.raises(UserInputError) as caught:
        prepare("sft", source, tmp_path, "train", template, None, 0)
    assert {p.rule for p in caught.value.problems[:-1]} == {"D5"}
    done = prepare("sft", source, tmp_path, "train", template, None, 0, bad_rows="drop")
    assert done.counts == {"control_token": 329, "kept": 183}
    done = prepare("sft", source, tmp_path, "train", template, None, 0, embedded_turns="split")
    assert done.counts == {"kept": 512}
    assert sum(len(row["conversations"]) > 2 for row in read(done.path)) >= 300


def test_the_llama_variant_is_another_template(shared_data, tmp_path, template):
    with pytest.raises(UserInputError) as caught:
        prepare("sft", shared_data / "sft/nemo_aligner_sft512_llama3.jsonl.gz", tmp_path, "t", template, None, 0)
    assert caught.value.problems[0].rule == "D12"


def test_nemos_reward_rows_come_out_as_they_went_in(shared_data, tmp_path, template, read):
    """NeMo-Aligner's own regression file is parsed into messages and rendered again: the same text, the same labels."""
    source = shared_data / "fixtures/nemo_aligner_test_rm.jsonl.gz"
    done = prepare("reward", source, tmp_path, "train", template, None, 0)
    assert read(done.path) == [{"text": row["text"], "label": row["label"]} for row in read(source)]


def test_helpsteer2_rows_give_nemos_labels(shared_data, tmp_path, template, read):
    """The same eight responses as HelpSteer2 rows and as NVIDIA converted them; only the system turn differs."""
    mine = prepare("reward", shared_data / "fixtures/helpsteer2_rows_from_aligner_test_rm.jsonl.gz", tmp_path, "h",
                   template, None, 0)  # fmt: skip
    theirs = read(shared_data / "fixtures/nemo_aligner_test_rm.jsonl.gz")
    for ours, nvidia in zip(read(mine.path), theirs, strict=True):
        assert ours["label"] == nvidia["label"]
        assert ours["text"].split("\n", 2)[2] == nvidia["text"].split("\n", 2)[2]
    meta = read(mine.meta_path)
    assert [meta[i]["group"] == meta[i + 1]["group"] for i in range(0, 8, 2)] == [True] * 4 and mine.human_rows == 8


def test_ultrafeedback_scores_become_rewards(shared_data, tmp_path, template, read):
    source = shared_data / "pref_synth/ultrafeedback_binarized_train1000.jsonl.gz"
    with pytest.raises(UserInputError) as caught:
        prepare("preference", source, tmp_path, "train", template, None, 0, rewards="require")
    assert [(p.rule, p.where.rsplit(":", 1)[1]) for p in caught.value.problems[:3]] == [
        ("D8", "307"), ("D4", "479"), ("D8", "656")]  # fmt: skip
    done = prepare("preference", source, tmp_path, "train", template, None, 0, rewards="require", bad_rows="drop")
    assert done.counts == {"empty_text": 2, "kept": 994, "no_preference": 4}
    first, scores = read(done.path)[0], read(source)[0]["metadata"]
    assert (first["chosen_reward"], first["rejected_reward"]) == (scores["score_chosen"], scores["score_rejected"])


def test_nemos_dummy_dpo_rows_have_no_rewards(shared_data, tmp_path, template, read):
    source = shared_data / "fixtures/nemo_aligner_dummy_dpo.jsonl.gz"
    assert read(prepare("preference", source, tmp_path, "train", template, None, 0).path) == read(source)
    with pytest.raises(UserInputError) as caught:
        prepare("preference", source, tmp_path, "train", template, None, 0, rewards="require")
    assert caught.value.problems[0].rule == "D9"


def test_real_rows_against_a_real_tokenizer_limit(shared_data, tmp_path, template, tokenizer):
    """Byte fallback makes long real rows very long: all are counted, none is cut."""
    source = shared_data / "sft/nemo_aligner_dummy_sft.jsonl.gz"
    done = prepare("sft", source, tmp_path, "train", template, tokenizer, 3000, over_length="drop")
    assert sum(done.counts.values()) == 30 and done.counts["over_length"] > 0 and done.max_tokens <= 3000
