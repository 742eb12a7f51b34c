"""Constraints on words and letters that have to occur, or not."""

from __future__ import annotations

import re
from random import Random

from data_prep.synthetic.constraints import words
from data_prep.synthetic.constraints.kind import (
    AT_LEAST,
    LESS_THAN,
    Kind,
    amount,
    character,
    compare,
    quoted,
    relation,
    text,
    texts,
    whole,
)


def _anywhere(keyword: str) -> str:
    return re.escape(keyword.strip())


def _exist(response: str, keywords: list[str]) -> bool:
    """Upper or lower case, and inside longer words too: "moment" has "mom"."""
    return all(re.search(_anywhere(keyword), response, re.I) for keyword in keywords)


def _frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return compare(len(re.findall(_anywhere(keyword), response, re.I)), relation, frequency)


def _forbidden(response: str, forbidden_words: list[str]) -> bool:
    """Whole words only: "moments" is allowed where "moment" is not."""
    return not any(re.search(rf"(?<!\w){_anywhere(word)}(?!\w)", response, re.I) for word in forbidden_words)


def _letter(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compare(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _draw_frequency(rng: Random, prompt: str) -> dict:
    how = rng.choice((AT_LEAST, LESS_THAN))
    [keyword] = words.keywords(rng, prompt, 1, 1, plain=0.2)
    return {"keyword": keyword, "frequency": rng.randint(2, 5), "relation": how}


def _draw_letter(rng: Random, prompt: str) -> dict:
    how = rng.choice((AT_LEAST, LESS_THAN))
    letter = rng.choice("bcdfghjklmpquvwxyz")  # the others occur too often for a small number to mean something
    return {"letter": letter, "let_frequency": rng.randint(2, 12), "let_relation": how}


KINDS = (
    Kind(
        "keywords:existence",
        {"keywords": texts},
        _exist,
        (
            lambda keywords: f"Use {quoted(keywords)} somewhere in the text.",
            lambda keywords: f"Make sure that the text contains {quoted(keywords)}.",
            lambda keywords: f"Work in {quoted(keywords)}.",
        ),
        lambda rng, prompt: {"keywords": words.keywords(rng, prompt, 1, 3, plain=0.5)},
    ),
    Kind(
        "keywords:frequency",
        {"keyword": text, "frequency": whole(1), "relation": relation},
        _frequency,
        (
            lambda keyword, frequency, relation: f'Use "{keyword}" {amount(relation, frequency, "time")}.',
            lambda keyword, frequency, relation: (
                f'The word "{keyword}" has to occur {amount(relation, frequency, "time")}.'
            ),
            lambda keyword, frequency, relation: (
                f'Mention "{keyword}" {amount(relation, frequency, "time")} in what you write.'
            ),
        ),
        _draw_frequency,
    ),
    Kind(
        "keywords:forbidden_words",
        {"forbidden_words": texts},
        _forbidden,
        (
            lambda forbidden_words: f"Do not use any of these words: {', '.join(forbidden_words)}.",
            lambda forbidden_words: f"Avoid {quoted(forbidden_words)} altogether.",
            lambda forbidden_words: f"The text must get by without {quoted(forbidden_words)}.",
        ),
        lambda rng, prompt: {"forbidden_words": words.keywords(rng, prompt, 1, 4, plain=0.5)},
    ),
    Kind(
        "keywords:letter_frequency",
        {"letter": character, "let_frequency": whole(1), "let_relation": relation},
        _letter,
        (
            lambda letter, let_frequency, let_relation: (
                f'Use the letter "{letter}" {amount(let_relation, let_frequency, "time")}, capitals included.'
            ),
            lambda letter, let_frequency, let_relation: (
                f'The letter "{letter}", small or capital, has to occur {amount(let_relation, let_frequency, "time")}.'
            ),
        ),
        _draw_letter,
    ),
)
