"""Texts are cut where the file of a tokenizer proves that the tokens stay the same: what is counted that way is what
the library gives for the whole text, and where there is no proof nothing is cut."""

from __future__ import annotations

import io
import json

import pytest
import sentencepiece

from data_prep import tokens
from data_prep.rules import BadRow
from data_prep.tokens import Tokenizer

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

CORPUS = [
    "please reverse a b and say why\u2581not",
    "the answer is 42 ünï",
    "漢字 are   two letters",
    "  def f( x ):",
] * 30
CONTROL = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]


def sentencepiece_model(path, **options):
    out = io.BytesIO()
    usual = {"vocab_size": 340, "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
    usual |= {"hard_vocab_limit": False, "remove_extra_whitespaces": False, "add_dummy_prefix": False}
    usual |= {"user_defined_symbols": CONTROL, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, **usual | options)
    path.write_bytes(out.getvalue())
    return path


def byte_level(path, normalizer=None, special=(), **token):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=alphabet,
        special_tokens=[tokenizers.AddedToken(text, **token) for text in [*CONTROL, *special]],
        show_progress=False,
    )
    model.train_from_iterator(CORPUS, trainer)
    if normalizer:
        model.normalizer = getattr(tokenizers.normalizers, normalizer)()
    model.save(str(path))
    return path


# name -> (how it is made, are words borders, which control tokens are)
MODELS = {
    "bpe": (lambda p: sentencepiece_model(p / "t.model"), True, CONTROL),
    "no_bytes": (lambda p: sentencepiece_model(p / "t.model", byte_fallback=False), True, CONTROL),
    "over_blanks": (lambda p: sentencepiece_model(p / "t.model", split_by_whitespace=False), False, CONTROL),
    "newline_blank": (
        lambda p: sentencepiece_model(p / "t.model", user_defined_symbols=[*CONTROL, "\n\u2581\u2581"]),
        False,
        CONTROL,
    ),
    "longer_mark": (
        lambda p: sentencepiece_model(p / "t.model", user_defined_symbols=[*CONTROL, "<extra_id_1>A"]),
        True,
        ["<extra_id_0>", "<extra_id_2>"],
    ),
    "overlapping_mark": (
        lambda p: sentencepiece_model(p / "t.model", user_defined_symbols=[*CONTROL, "b<extra"]),
        True,
        [],
    ),
    "unigram": (lambda p: sentencepiece_model(p / "t.model", model_type="unigram"), False, []),
    "prefix": (lambda p: sentencepiece_model(p / "t.model", add_dummy_prefix=True), False, []),
    "stripped": (lambda p: sentencepiece_model(p / "t.model", remove_extra_whitespaces=True), False, []),
    "table": (lambda p: sentencepiece_model(p / "t.model", normalization_rule_name="nmt_nfkc"), False, []),
    "byte_level": (lambda p: byte_level(p / "tokenizer.json"), False, CONTROL),
    "byte_level_nfc": (lambda p: byte_level(p / "tokenizer.json", "NFC"), False, CONTROL),
    "byte_level_longer_mark": (
        lambda p: byte_level(p / "tokenizer.json", special=["<extra_id_1>A"]),
        False,
        ["<extra_id_0>", "<extra_id_2>"],
    ),
    "byte_level_lstrip": (lambda p: byte_level(p / "tokenizer.json", lstrip=True), False, []),
    "byte_level_words": (lambda p: byte_level(p / "tokenizer.json", single_word=True), False, []),
    "byte_level_nfkc": (lambda p: byte_level(p / "tokenizer.json", "NFKC"), False, []),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory, template):
    """(one that cuts texts, one that does not, words, marks)."""
    make, words, marks = MODELS[request.param]
    path = make(tmp_path_factory.mktemp(request.param))
    quick, plain = Tokenizer(path), Tokenizer(path)
    for tokenizer in (quick, plain):
        tokenizer._control = tuple(template.control_tokens)
    quick._learn_borders()
    return quick, plain, words, marks


def test_borders_are_known_where_they_are_proven(case):
    quick, _, words, marks = case
    assert (quick._borders.words, sorted(quick._marks)) == (words, sorted(marks))


PARTS = ["\u0958", "\ufb01", "e\u0301", "\u2581", " ", "  ", "\n", "\x00", *CONTROL, "<extra_id_1>A", "<extra", "<",
         "b<extra", "please", " reverse", "b", "42", "漢", "字", "\u0338"]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=25).map("".join))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_a_text_has_the_tokens_of_the_whole(case, texts):
    quick, plain, *_ = case
    for text in [*texts, *texts]:  # also with what is remembered of the first time
        assert list(quick._encode(text)) == list(plain._model.encode(text))


def tried(function, *args):
    try:
        return function(*args)
    except BadRow as bad:
        return bad.rule, bad.field, bad.message


@settings(max_examples=300, deadline=None)
@given(start=TEXTS, mark=st.sampled_from(CONTROL), tail=st.sampled_from(["", "\n", "Assistant\n"]), response=TEXTS)
def test_a_prompt_is_cut_like_the_plain_way(case, start, mark, tail, response):
    """The same ids and border, or the same complaint."""
    quick, plain, *_ = case
    prompt = start + mark + tail
    assert tried(quick.split_prefix, prompt, response, "f") == tried(plain.split_prefix, prompt, response, "f")


@settings(max_examples=300, deadline=None)
@given(turns=st.lists(TEXTS, min_size=1, max_size=4), marks=st.lists(st.sampled_from(CONTROL), min_size=5, max_size=5))
def test_a_conversation_is_cut_like_the_plain_way(case, turns, marks):
    quick, plain, *_ = case
    segments = [mark + text for mark, text in zip(marks, turns)]
    whole = "".join(segments) + marks[-1]
    assert tried(quick.split_segments, whole, segments, "f") == tried(plain.split_segments, whole, segments, "f")


def test_few_texts_are_encoded_as_ever_and_many_are_not(tmp_path, monkeypatch):
    """Looking for borders takes longer than a small file."""
    monkeypatch.setattr(tokens, "_MANY", 10)
    tokenizer = Tokenizer(sentencepiece_model(tmp_path / "t.model"))
    plain = [tokenizer._model.encode(f"please {i} b") for i in range(20)]
    learnt = []
    for i in range(20):
        assert list(tokenizer.encode(f"please {i} b")) == plain[i]
        learnt.append(tokenizer._borders.words)
    assert learnt == [False] * 9 + [True] * 11


def test_words_that_are_remembered_do_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.borders._MOST_WORDS", 10)
    tokenizer = Tokenizer(sentencepiece_model(tmp_path / "t.model"))
    tokenizer._learn_borders()
    text = " ".join(map(str, range(100))) + " " + "x" * 1000
    assert list(tokenizer.encode(text)) == Tokenizer(tokenizer.path)._model.encode(text)
    known = tokenizer._model.encode.__self__
    assert 0 < len(known) <= 10 and max(map(len, known)) < 100


def test_the_projects_tokenizers_have_both_borders(tokenizer, template):
    ours = Tokenizer(tokenizer)
    ours.check_template(template)
    ours._learn_borders()
    assert ours._borders.words and set(ours._marks) == set(template.control_tokens)
    assert json.dumps(ours.encode("a b")) == json.dumps(Tokenizer(tokenizer)._model.encode("a b"))
