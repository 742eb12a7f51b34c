"""Constraints on how a response starts, ends or is put together."""

from __future__ import annotations

from data_prep.synthetic.constraints.kind import Kind, text
from data_prep.synthetic.constraints.lengths import parts

_LAST_WORDS = (
    "That is all there is to say about it.",
    "What would you do?",
    "Let me know if anything is unclear.",
    "And so it goes on.",
    "Do you have any other questions?",
    "This is only the beginning.",
    "The rest is up to you.",
    "Is there something else you need?",
)


def _repeats(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _two(response: str) -> bool:
    found = parts(response, "******")
    return len(found) == 2 and found[0] != found[1]


def _ends(response: str, end_phrase: str) -> bool:
    """Upper or lower case; quotation marks around all of it do not count."""
    response, end_phrase = response.strip().lower(), end_phrase.strip().lower()
    return response.endswith(end_phrase) or response.strip('"').endswith(end_phrase)


def _quoted(response: str) -> bool:
    response = response.strip()
    return len(response) > 1 and response[0] == response[-1] == '"'


KINDS = (
    Kind(
        "combination:repeat_prompt",
        {"prompt_to_repeat": text},
        _repeats,
        (
            lambda prompt_to_repeat: (
                "Before you answer, repeat the following request word for word, without anything in front of it:\n\n"
                f"{prompt_to_repeat}"
            ),
            lambda prompt_to_repeat: (
                f"Begin with an exact copy of this request, then give your answer: {prompt_to_repeat}"
            ),
        ),
        lambda rng, prompt: {"prompt_to_repeat": prompt},
        of_one_prompt=True,
    ),
    Kind(
        "combination:two_responses",
        {},
        _two,
        (
            lambda: "Give two different answers, separated by six asterisks: ******",
            lambda: "Answer twice, in two different ways, and put ****** between the two answers and nowhere else.",
        ),
    ),
    Kind(
        "startend:end_checker",
        {"end_phrase": text},
        _ends,
        (
            lambda end_phrase: f'Finish with exactly this phrase and nothing after it: "{end_phrase}"',
            lambda end_phrase: f"The very last words have to be: {end_phrase}",
            lambda end_phrase: f'Let "{end_phrase}" be the end, with no other words behind it.',
        ),
        lambda rng, prompt: {"end_phrase": rng.choice(_LAST_WORDS)},
    ),
    Kind(
        "startend:quotation",
        {},
        _quoted,
        (
            lambda: "Put double quotation marks around everything you write.",
            lambda: 'Start with a double quotation mark (") and end with one.',
        ),
    ),
)
