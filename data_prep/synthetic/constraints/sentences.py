"""Sentences and words of English text, counted the way that IFEval counts them.

IFEval counts sentences with NLTK's Punkt model and words in capitals with its Treebank tokenizer. Punkt (Kiss and
Strunk 2006, Computational Linguistics 32:4) knows abbreviations and which words are written in lower case from
training text; here short lists stand in for both. Line breaks end no sentence, for Punkt and here.
"""

from __future__ import annotations

import re

from data_prep.synthetic.constraints.words import COMMON

TITLES = frozenset("mr mrs ms dr prof".split())
ABBREVIATIONS = frozenset(
    """rev hon gen col maj capt lt sgt gov sen rep pres st jr sr inc ltd co corp bros llc dept
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun vs etc cf e.g i.e a.m p.m a.d b.c
    u.s u.k u.n d.c n.y l.a ph.d m.d b.a m.a no vol ed fig approx est ft mt ave blvd""".split()
)
_ENDS = ".?!"
_AFTER_END = frozenset(")\";}]*:@'({[!?")  # what may follow the end of a sentence without a blank
_BEFORE_WORD = re.compile(r"[)\";}\]*:@'({\[!?]")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.")
_LETTERS = re.compile(r"[^\W\d_]+")
_CLOSING = re.compile(r"[\"')\]}]*")


def count_sentences(text: str) -> int:
    """Sentences of a text. What follows the last end of a sentence counts, unless it is closing quotes or brackets."""
    words = text.split()
    last = len(words) - 1
    count, rest = 0, bool(words)
    for i, word in enumerate(words):
        end = _end(word, i == last)
        if end and _breaks(word[:end], word[end:] or words[i + 1]):
            count += 1
            rest = i < last or not _CLOSING.fullmatch(word[end:])
    return count + rest


def _end(word: str, is_last: bool) -> int:
    """Length of the part of a word, as cut at blanks, that may end a sentence; 0 if none does."""
    for at in range(len(word) - 1, -1, -1):
        if word[at] in _ENDS and (word[at + 1] in _AFTER_END if at + 1 < len(word) else not is_last):
            return at + 1
    return 0


def _breaks(word: str, following: str) -> bool:
    """Whether a word that ends in . ? or ! ends a sentence, given what follows."""
    if word[-1] != ".":
        return True
    word = _BEFORE_WORD.split(word)[-1]
    if word.endswith(".."):
        return _starts(following)
    if _NUMBER.fullmatch(word):
        return not following[0].islower()
    name = word[:-1].lower()
    if name in TITLES:
        return False
    if (len(name) == 1 and name.isalpha()) or name in ABBREVIATIONS or name.rpartition("-")[2] in ABBREVIATIONS:
        return _starts(following)
    return True


def _starts(following: str) -> bool:
    """A capital where there would be none inside a sentence."""
    letters = _LETTERS.match(following)
    return bool(letters) and following[0].isupper() and letters.group().lower() in COMMON


_QUOTES_AND_DASHES = "\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_SEPARATE = re.compile(rf"[;@#$%&?!()\[\]{{}}<>*\"{_QUOTES_AND_DASHES}]|[:,](?!\d)|\.\.+|--+")
_CONTRACTED = re.compile(r"(?<=[^\s'])(n't|'(?:s|m|d|ll|re|ve))(?=\s|$)", re.I)
_GLUED = re.compile(r"\b(can|gon|got|wan|gim|lem)(not|na|ta|me)\b", re.I)


def count_capital_words(text: str) -> int:
    """Words without a small letter and with a capital one; "I" is one, "DON'T" two, "CO-OP" one."""
    text = _CONTRACTED.sub(r" \1", _SEPARATE.sub(" ", text))
    return sum(map(str.isupper, _GLUED.sub(r"\1 \2", text).split()))
