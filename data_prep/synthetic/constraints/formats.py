"""Constraints on the form of a response: lists, sections, highlights, titles, JSON."""

from __future__ import annotations

import json
import re
from random import Random

from data_prep.synthetic.constraints.kind import Kind, count, text, whole

CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")  # IFEval's, which its prompts name
_PLACEHOLDER = re.compile(r"\[[^\]\n]*\]")
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_STRONG = re.compile(r"\*\*([^\n*]*)\*\*")
_TITLE = re.compile(r"<<([^\n]+)>>")
_FENCE = re.compile(r"```(?:json|Json|JSON)?")


def _placeholders(response: str, num_placeholders: int) -> bool:
    return len(_PLACEHOLDER.findall(response)) >= num_placeholders


def _postscript(response: str, postscript_marker: str) -> bool:
    """Upper or lower case, with or without a blank after each dot."""
    letters = [re.escape(part) for part in re.findall(r"[^.]+\.?|\.", postscript_marker.strip())]
    return re.search(r"\s?".join(letters), response, re.I) is not None


def _bullets(response: str, num_bullets: int) -> bool:
    """Lines that start with - or with one asterisk; a line of dashes is one of them, as in IFEval."""
    lines = (line.lstrip() for line in response.split("\n"))
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] not in ("*", "")) for line in lines) == num_bullets


def _choice(response: str) -> bool:
    return any(choice in response for choice in CHOICES)


def _highlights(response: str, num_highlights: int) -> bool:
    """*text* or **text** on one line."""
    weak = sum(bool(found.strip("*").strip()) for found in _HIGHLIGHT.findall(response))
    return weak + sum(bool(found.strip()) for found in _STRONG.findall(response)) >= num_highlights


def _sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """The name as it is written, followed by a number."""
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", response)) >= num_sections


def _title(response: str) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in _TITLE.findall(response))


def _json(response: str) -> bool:
    """JSON and nothing else, in a code fence or not."""
    body = response.strip()
    fence = _FENCE.match(body)
    try:
        json.loads(body[fence.end() if fence else 0 :].removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _draw_sections(rng: Random, prompt: str) -> dict:
    name = rng.choice(("Section", "SECTION", "Part", "PART", "Chapter"))
    return {"section_spliter": name, "num_sections": rng.randint(2, 5)}


KINDS = (
    Kind(
        "detectable_content:number_placeholders",
        {"num_placeholders": whole(1)},
        _placeholders,
        (
            lambda num_placeholders: (
                f"Leave at least {count(num_placeholders, 'placeholder')} in square brackets to be filled in, "
                "like [name]."
            ),
            lambda num_placeholders: (
                f"Use at least {count(num_placeholders, 'placeholder')}, each in square brackets, for example [date]."
            ),
        ),
        lambda rng, prompt: {"num_placeholders": rng.randint(1, 6)},
    ),
    Kind(
        "detectable_content:postscript",
        {"postscript_marker": text},
        _postscript,
        (
            lambda postscript_marker: f"Close with a postscript that starts with {postscript_marker}",
            lambda postscript_marker: f'After the end add a postscript; begin it with "{postscript_marker}".',
        ),
        lambda rng, prompt: {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
    ),
    Kind(
        "detectable_format:number_bullet_lists",
        {"num_bullets": whole(0)},
        _bullets,
        (
            lambda num_bullets: (
                f"Use exactly {count(num_bullets, 'bullet point')} in markdown, each on a line that starts with *."
            ),
            lambda num_bullets: (
                f"There should be {count(num_bullets, 'bullet point')}, no more and no fewer, written like this:\n"
                "* a point"
            ),
        ),
        lambda rng, prompt: {"num_bullets": rng.randint(2, 8)},
    ),
    Kind(
        "detectable_format:constrained_response",
        {},
        _choice,
        (
            lambda: f"Answer with one of these sentences: {' '.join(CHOICES)}",
            lambda: "Choose one of the following as your answer, word for word:\n" + "\n".join(CHOICES),
        ),
        of_one_prompt=True,
    ),
    Kind(
        "detectable_format:number_highlighted_sections",
        {"num_highlights": whole(1)},
        _highlights,
        (
            lambda num_highlights: (
                f"Highlight at least {count(num_highlights, 'passage')} with asterisks in markdown, *like this*."
            ),
            lambda num_highlights: (
                f"Set at least {count(num_highlights, 'passage')} in markdown emphasis, for example *a passage*."
            ),
        ),
        lambda rng, prompt: {"num_highlights": rng.randint(1, 5)},
    ),
    Kind(
        "detectable_format:multiple_sections",
        {"section_spliter": text, "num_sections": whole(1)},
        _sections,
        (
            lambda section_spliter, num_sections: (
                f"Divide the text into {count(num_sections, 'section')} and head each with {section_spliter} and its "
                f"number, as in {section_spliter} 1."
            ),
            lambda section_spliter, num_sections: (
                f"Write {count(num_sections, 'section')}; mark the start of each one like this: {section_spliter} 1"
            ),
        ),
        _draw_sections,
    ),
    Kind(
        "detectable_format:json_format",
        {},
        _json,
        (
            lambda: "Give the whole output as JSON.",
            lambda: "Everything you write has to be one valid JSON value; a code fence around it is fine.",
            lambda: "Put all of it into JSON, with no text before or after.",
        ),
    ),
    Kind(
        "detectable_format:title",
        {},
        _title,
        (
            lambda: "Give the text a title in double angle brackets, such as <<a title>>.",
            lambda: "Add a title that is wrapped in double angle brackets, like <<title>>.",
        ),
    ),
)
