"""Where a text can be cut so that the tokens of its pieces, one after the other, are those of the whole.

Two kinds of borders are known without looking at a text, both from the file of the tokenizer:

- Around a control token that the tokenizer finds before it does anything else. SentencePiece's BPE never merges such a
  piece with its neighbours (sentencepiece 0.2, bpe_model.cc, `symbols[left].freeze`), and the package tokenizers takes
  it out before it normalizes and splits the rest (added_vocabulary.rs, `extract_and_normalize`).
- Before a blank that follows something else, in a SentencePiece BPE none of whose pieces has a blank in such a place:
  BPE only joins neighbours whose union is a piece, so nothing is ever joined across it.

Both need that a character is normalized by itself: no table of replacements, no blank put in front or taken away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

_BPE, _USER_DEFINED = 2, 4  # TrainerSpec.ModelType, SentencePiece.Type of sentencepiece_model.proto
_BLANK = "\u2581"  # what SentencePiece writes for a blank
_LATE_BLANK = re.compile(f"[^ {_BLANK}][ {_BLANK}]")
_WORD = re.compile(f"[ {_BLANK}]*[^ {_BLANK}]+|[ {_BLANK}]+")
_MOST_WORDS, _LONGEST = 1 << 16, 64  # words that are remembered (some 15 MB), and characters of one


@dataclass(frozen=True)
class Borders:
    """words: before a blank that follows something else; marks: before and after each of these strings."""

    words: bool = False
    marks: frozenset[str] = frozenset()


class Words(dict):
    """Encodes a text word by word, for a tokenizer that has borders there: word -> ids, of the words seen so far."""

    def __init__(self, encode: Callable[[str], list[int]]):
        super().__init__()
        self._encode = encode

    def encode(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self.__getitem__, _WORD.findall(text))))

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode(word)
        if len(word) <= _LONGEST:
            if len(self) >= _MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


def of_sentencepiece(proto: bytes, pieces: list[str]) -> Borders:
    """proto: the bytes of a model file; pieces: all of its pieces, as the model writes them."""
    marked, trainer, normalizer = [], b"", b""
    for number, value in proto_fields(proto):
        if number == 1 and b"\x18\x04" in value:  # perhaps a user-defined piece: there are many others
            piece = dict(proto_fields(value))
            if piece.get(3) == _USER_DEFINED:
                marked.append(piece[1].decode("utf-8"))
        elif number == 2:
            trainer += value
        elif number == 3:
            normalizer += value
    how = dict(proto_fields(normalizer))
    # 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces; the last two are true if not written
    if dict(proto_fields(trainer)).get(3) != _BPE or how.get(2) or how.get(3, 1) or how.get(4, 1):
        return Borders()
    marks = frozenset(mark for mark in _unmistakable(marked) if " " not in mark and _BLANK not in mark)
    return Borders(not any(map(_LATE_BLANK.search, pieces)), marks)


def of_hugging_face(spec: dict) -> Borders:
    """spec: the content of a tokenizer.json. Its pieces may be joined over blanks, so words are not borders."""
    added, normalizer = spec.get("added_tokens") or [], spec.get("normalizer")
    characterwise = normalizer is None or normalizer.get("type") == "NFC"
    if not characterwise or not splits_alike(spec) or spec["model"].get("dropout"):
        return Borders()
    if any(token.get("single_word") for token in added):  # asks what stands beside it
        return Borders()
    marks = _unmistakable([token["content"] for token in added])
    greedy = {t["content"] for t in added if t.get("lstrip") or t.get("rstrip") or (t.get("normalized") and normalizer)}
    return Borders(marks=frozenset(marks - greedy))


def splits_alike(spec: dict) -> bool:
    """Does the pre-tokenizer of a tokenizer.json treat a section of text alike wherever it stands, adding nothing?"""
    steps = spec.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    byte_level = [step for step in steps if step.get("type") == "ByteLevel" and not step.get("add_prefix_space")]
    return len(byte_level) == 1 and all(step.get("type") in ("ByteLevel", "Split", "Digits") for step in steps)


def _unmistakable(marks: list[str]) -> set[str]:
    """Those that are found wherever they stand, by a search from the left that takes the longest: no other mark can
    begin before one and reach into it, or begin with it and be longer."""
    inside = {character for mark in marks for character in mark[1:]}
    beginnings = {mark[:size] for mark in marks for size in range(1, len(mark))}
    return {mark for mark in marks if mark and mark[0] not in inside and mark not in beginnings}


def proto_fields(message: bytes):
    """(field number, value) of a protobuf message: an integer, or the bytes of a string or message; b"" of a float."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        wire, value = key & 7, b""
        if wire == 0:
            value = varint()
        elif wire == 2:
            size = varint()
            value = message[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[wire]
        yield key >> 3, value
