"""What a model wrote when it was asked for one thing: a text, a message, yes or no. None: it wrote another thing."""

from __future__ import annotations

import re

from data_prep.synthetic.prompts.lists import unquoted

_ASKED_FOR = r"(?:request|question|task|prompt|instructions?|problem|message|version|revision|rewrite|rewritten|one)"
_PREAMBLE = re.compile(
    rf"(?:(?:sure|certainly|of course|absolutely|okay|ok)\b(?:[^\n]{{0,200}}:|[!.,]?)"
    rf"|(?:here(?:'s|’s| is)|(?:this|the following) is)\b[^\n]{{0,100}}\b{_ASKED_FOR}\b[^\n]{{0,100}}:)[ \t]*\n+",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"[*_#\s]*(?:the\s+)?(?:(?:new|next|revised|refined|rewritten|final|first)\s+)?"
    r"(?:question|request|task|prompt|instructions?|problem|message|user|human)(?:'s message)?[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_FENCED = re.compile(r"```(?:text|markdown|plaintext)?[ \t]*\n(?P<inner>(?:(?!```).)*)\n```", re.DOTALL)
_TAGGED = re.compile(r"<(?P<tag>request|task|message|instructions)>(?P<inner>.*)</(?P=tag)>", re.DOTALL)
_REFUSAL = re.compile(
    r"(?:i(?:'m| am|’m) (?:sorry|afraid)|sorry, |i (?:can(?:no|'|’)t|am (?:unable|not able)|won(?:'|’)t) |as an ai\b|"
    r"as a language model)",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"^[*_#\s]*(?:user|human|assistant|ai)[*_]*\s*:", re.IGNORECASE | re.MULTILINE)
_YES_NO = re.compile(r"[\W_]*(?:answer[\W_]+)?(yes|no)\b", re.IGNORECASE)
_VERDICT = re.compile(r"verdict[\W_]*(yes|no)\b", re.IGNORECASE)


def only_text(answer: str) -> str | None:
    """The text that was asked for, without "Here is ...:", a label, quotes or a fence around it."""
    text = answer.strip()
    preamble = _PREAMBLE.match(text)
    text = text[preamble.end() :] if preamble else text
    for whole in (_FENCED, _TAGGED):
        found = whole.fullmatch(text)
        text = found["inner"].strip() if found else text
    label = _LABEL.match(text)
    text = unquoted(text[label.end() :] if label else text)
    return text if re.search(r"\w", text) and not _REFUSAL.match(text) else None


def one_turn(answer: str) -> str | None:
    """The message of one speaker; None if the model went on to write the other's."""
    text = only_text(answer)
    return None if text is None or _SPEAKER.search(text) else text


def yes_no(answer: str) -> bool | None:
    """What the answer begins with."""
    found = _YES_NO.match(answer)
    return None if found is None else found[1].lower() == "yes"


def verdict(answer: str) -> bool | None:
    """The last "Verdict: yes" or "Verdict: no" of the answer, which ends with it."""
    found = _VERDICT.findall(answer)
    return None if not found else found[-1].lower() == "yes"
