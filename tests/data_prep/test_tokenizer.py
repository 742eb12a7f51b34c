"""The trained tokenizer: reproducible, lossless, and made for the template."""

from __future__ import annotations

import pytest
import sentencepiece

from data_prep.tokenizer import train_tokenizer
from recipes.errors import UserInputError


@pytest.fixture(scope="module")
def model(tokenizer):
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))


def test_same_corpus_same_bytes(tmp_path, world, tokenizer):
    again = train_tokenizer(world / "corpus.jsonl", tmp_path / "t.model", 512, 1)
    assert again.read_bytes() == tokenizer.read_bytes()


def test_any_text_comes_back(model):
    for text in ("a  b ", "\n\nx\t", "ünïcode 漢字 🙂", "<extra_id_1>User\nhi\n<extra_id_1>", "x [::-1] [:2]"):
        assert model.decode(model.encode(text)) == text


def test_special_ids_and_single_control_tokens(model, template):
    assert [model.unk_id(), model.bos_id(), model.eos_id(), model.pad_id()] == [0, 1, 2, 3]
    for token in template.control_tokens:
        ids = model.encode(f"x{token}y")
        assert model.id_to_piece(ids[1]) == token and len(ids) == 3


def test_template_words_and_the_worlds_words_are_single_pieces(model, template):
    """Else a rendered row would not fit its 64 tokens, and the same word would look different in two places."""
    assert len(model.encode(template.prompt([{"role": "user", "content": "please"}]))) == 12
    text = "please reverse a b 1 and reply in reverse order"
    assert model.encode(text, out_type=str) == ["▁" * bool(i) + word for i, word in enumerate(text.split())]


def test_an_impossible_size_is_the_users_error(tmp_path, world):
    with pytest.raises(UserInputError, match="tokenizer.vocab_size"):
        train_tokenizer(world / "corpus.jsonl", tmp_path / "t.model", 100, 1)
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_text_is_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"words": "a"}\n')
    with pytest.raises(UserInputError, match="c.jsonl:1"):
        train_tokenizer(tmp_path / "c.jsonl", tmp_path / "t.model", 512, 1)
