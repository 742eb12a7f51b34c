"""Constraints on how long a response is, in words, sentences and paragraphs."""

from __future__ import annotations

import re
from random import Random

from data_prep.synthetic.constraints import words
from data_prep.synthetic.constraints.kind import (
    AT_LEAST,
    LESS_THAN,
    Kind,
    amount,
    compare,
    count,
    relation,
    whole,
    word,
)
from data_prep.synthetic.constraints.sentences import count_sentences

_WORD = re.compile(r"\w+")
_FIRST_WORD = re.compile(r"'*\"*([^\s.,?!'\"]*)")


def _words(response: str, num_words: int, relation: str) -> bool:
    return compare(len(_WORD.findall(response)), relation, num_words)


def _sentences(response: str, num_sentences: int, relation: str) -> bool:
    return compare(count_sentences(response), relation, num_sentences)


def parts(response: str, divider: str) -> list[str]:
    """What stands between dividers; nothing at all if two dividers have nothing between them."""
    found = [part.strip() for part in response.split(divider)]
    return [] if not all(found[1:-1]) else [part for part in found if part]


def _paragraphs(response: str, num_paragraphs: int) -> bool:
    return len(parts(response, "***")) == num_paragraphs


def _first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = [paragraph for paragraph in map(str.strip, response.split("\n\n")) if paragraph]
    if len(paragraphs) != num_paragraphs:
        return False
    return _FIRST_WORD.match(paragraphs[nth_paragraph - 1]).group(1).lower() == first_word.strip().lower()


def _beyond(num_paragraphs: int, nth_paragraph: int, first_word: str) -> tuple[str, str] | None:
    message = f"is {nth_paragraph}, of {count(num_paragraphs, 'paragraph')}"
    return ("nth_paragraph", message) if nth_paragraph > num_paragraphs else None


def _draw_words(rng: Random, prompt: str) -> dict:
    how = rng.choice((AT_LEAST, LESS_THAN))
    return {"num_words": rng.randrange(50, 401, 50) if how == AT_LEAST else rng.randrange(30, 301, 10), "relation": how}


def _draw_first_word(rng: Random, prompt: str) -> dict:
    paragraphs = rng.randint(2, 6)
    [first] = words.keywords(rng, prompt, 1, 1, plain=0.5)
    return {"num_paragraphs": paragraphs, "nth_paragraph": rng.randint(1, paragraphs), "first_word": first}


KINDS = (
    Kind(
        "length_constraints:number_words",
        {"num_words": whole(1), "relation": relation},
        _words,
        (
            lambda num_words, relation: f"Use {amount(relation, num_words, 'word')}.",
            lambda num_words, relation: f"The text should have {amount(relation, num_words, 'word')}.",
            lambda num_words, relation: f"Keep to a length of {amount(relation, num_words, 'word')}.",
        ),
        _draw_words,
    ),
    Kind(
        "length_constraints:number_sentences",
        {"num_sentences": whole(1), "relation": relation},
        _sentences,
        (
            lambda num_sentences, relation: f"Write {amount(relation, num_sentences, 'sentence')}.",
            lambda num_sentences, relation: f"The text should have {amount(relation, num_sentences, 'sentence')}.",
            lambda num_sentences, relation: f"Use {amount(relation, num_sentences, 'sentence')} in all.",
        ),
        lambda rng, prompt: {"num_sentences": rng.randint(3, 15), "relation": rng.choice((AT_LEAST, LESS_THAN))},
    ),
    Kind(
        "length_constraints:number_paragraphs",
        {"num_paragraphs": whole(1)},
        _paragraphs,
        (
            lambda num_paragraphs: (
                f"Write exactly {count(num_paragraphs, 'paragraph')} and put the divider *** between paragraphs."
            ),
            lambda num_paragraphs: (
                f"There should be {count(num_paragraphs, 'paragraph')}, separated by a line with three asterisks: ***."
            ),
        ),
        lambda rng, prompt: {"num_paragraphs": rng.randint(2, 6)},
    ),
    Kind(
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": whole(1), "nth_paragraph": whole(1), "first_word": word},
        _first_word,
        (
            lambda num_paragraphs, nth_paragraph, first_word: (
                f"Write exactly {count(num_paragraphs, 'paragraph')} with a blank line between them; paragraph "
                f'{nth_paragraph} has to start with the word "{first_word}".'
            ),
            lambda num_paragraphs, nth_paragraph, first_word: (
                f"Use {count(num_paragraphs, 'paragraph')}, set apart by blank lines and nothing else, and let "
                f'"{first_word}" be the first word of paragraph number {nth_paragraph}.'
            ),
        ),
        _draw_first_word,
        contradiction=_beyond,
    ),
)
