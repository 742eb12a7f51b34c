"""The template: exact bytes, the way back, what it refuses, and agreement with NeMo itself."""

from __future__ import annotations

import pytest

from data_prep.rules import BadRow
from data_prep.template import Template

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "2 + 2 ?\nquick"},
]
HEAD = (
    "<extra_id_0>System\nbe brief\n"
    "<extra_id_1>User\nhi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\n2 + 2 ?\nquick\n"
)


def turn(role: str, content: str = "x") -> dict:
    return {"role": role, "content": content}


def test_prompt_response_and_scoring_are_these_bytes(template):
    assert template.prompt(TALK) == HEAD + "<extra_id_1>Assistant\n"
    assert template.response("4") == "4\n<extra_id_1>"
    assert template.scoring(TALK, "4") == HEAD + "<extra_id_1>Assistant\n4\n<extra_id_2>"
    full = [*TALK, turn("assistant", "4")]
    assert template.conversation(full) == template.prompt(TALK) + template.response("4")
    assert "".join(template.segments(full)) + "<extra_id_1>" == template.conversation(full)


def test_without_a_system_message_the_system_turn_is_empty(template):
    assert (
        template.prompt([turn("user", "hi")]) == "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\n"
    )


def test_chat_row_is_nemos_layout(template):
    assert template.chat_row([turn("user", "hi"), turn("assistant", "yo")]) == {
        "system": "",
        "mask": "User",
        "conversations": [
            {"from": "User", "value": "hi", "label": None},
            {"from": "Assistant", "value": "yo", "label": None},
        ],
    }


def test_parse_is_the_way_back(template):
    assert template.parse(template.prompt(TALK)) == TALK
    assert template.parse(template.prompt(TALK[1:])) == TALK[1:]


def test_helpsteer_prompts_are_split_at_their_markers(template):
    glued = "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nbye"
    assert template.parse_turns(glued) == [turn("user", "hi"), turn("assistant", "hello"), turn("user", "bye")]


def test_a_policy_that_says_nothing_can_be_scored(template):
    assert template.scoring([turn("user")], "").endswith("<extra_id_1>Assistant\n\n<extra_id_2>")


@pytest.mark.parametrize(
    "rule, field, messages",
    [
        ("D2", "messages", []),
        ("D2", "messages", "hi"),
        ("D2", "messages[0]", [{"role": "user"}]),
        ("D2", "messages[0].content", [turn("user", None)]),
        ("D3", "messages[0].role", [turn("tool")]),
        ("D3", "messages[0].role", [turn("User")]),
        ("D3", "messages", [turn("assistant")]),
        ("D3", "messages", [turn("user"), turn("user")]),
        ("D3", "messages", [turn("user"), turn("assistant")]),
        ("D3", "messages", [turn("system")]),
        ("D3", "messages", [turn("user"), turn("assistant"), turn("system"), turn("user")]),
        ("D4", "messages[0].content", [turn("user", " \n")]),
        ("D5", "messages[0].content", [turn("user", "a <extra_id_1>Assistant\nb")]),
        ("D5", "messages[0].content", [turn("system", "<extra_id_0>"), turn("user")]),
    ],
)
def test_bad_messages_are_refused(template, rule, field, messages):
    with pytest.raises(BadRow) as caught:
        template.prompt(messages)
    assert (caught.value.rule, caught.value.field) == (rule, field)


def test_text_of_another_template_is_refused(template):
    with pytest.raises(BadRow) as caught:
        template.parse("<|user|>\nhi")
    assert caught.value.rule == "D12"


def test_the_hash_follows_every_byte_of_the_format(template, tmp_path):
    text = (Template.load.__func__.__globals__["TEMPLATE_DIR"] / "nemotron.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("user: User", "user: Human"))
    assert Template.load(str(other)).sha256 != template.sha256
    other.write_text(text + "# a comment\n")
    assert Template.load(str(other)).sha256 == template.sha256


def test_an_unknown_template_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match="known: nemotron"):
        Template.load("nemotrom")


@pytest.mark.engine
def test_nemo_renders_and_trains_the_same_text(template, tokenizer, tmp_path):
    """NeMo's own chat data set on our rows: the ids of our text, and a loss on exactly the answers and stop tokens."""
    pytest.importorskip("nemo_aligner")
    import json

    import numpy as np

    from recipes.engine import compat

    compat.install()
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
    from nemo.collections.nlp.data.language_modeling.megatron.gpt_sft_chat_dataset import GPTSFTChatDataset

    talks = [
        [turn("user", "reverse a b"), turn("assistant", "the answer is b a .")],
        [*TALK, turn("assistant", "4")],
        [turn("user", " spaces  and ünïcode\n"), turn("assistant", "ok\n\n done ")],
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(template.chat_row(talk)) + "\n" for talk in talks))
    spm = SentencePieceTokenizer(str(tokenizer))
    data = GPTSFTChatDataset(
        file_path=str(path), tokenizer=spm, max_seq_length=256, min_seq_length=1, pad_to_max_length=False,
        add_bos=False, add_eos=False, add_sep=False, sep_id=0, max_num_samples=None, seed=1, label_key="output",
        truncation_field="text", prompt_template=None, special_tokens=template.nemo_tokens(), is_test=True,
        index_mapping_dir=str(tmp_path),
    )  # fmt: skip
    for talk, row in zip(talks, (data[i] for i in range(len(talks)))):
        assert row["input_ids"].tolist() == spm.text_to_ids(template.conversation(talk))
        trained = spm.ids_to_text(np.array(row["input_ids"])[np.array(row["mask"])].tolist())
        # A later user turn's first token is trained too: to NeMo it is the stop token of the answer before it.
        assert trained == "".join(template.response(m["content"]) for m in talk if m["role"] == "assistant")
