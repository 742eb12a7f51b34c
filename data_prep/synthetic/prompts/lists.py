"""Lists in the answers of language models: JSON, numbered or bulleted lines, with talk around them.

An answer without one of these is no list: nothing is cut at commas or lines on a guess.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_MARK = re.compile(
    r"(?P<indent>[ \t]*)(?:#{1,6}[ \t]+)?"
    r"(?:\*{0,2}\(?(?:[A-Za-z]{1,9}[ \t]?)?(?P<number>\d{1,3})\*{0,2}[.):]\)?\*{0,2}:?|(?P<bullet>[-*+•–])(?=[ \t]+\S))"
    r"(?:[ \t]+(?P<text>.*))?"
)
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_FENCED = re.compile(r"(?:^|\n)[ \t]*```[\w-]*[ \t]*\n(?P<inner>.*?)\n[ \t]*```", re.DOTALL)
_JSON = re.compile(r"(?:^|\n)[ \t]*(?P<value>[\[{].*)", re.DOTALL)
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "‘": "’", "`": "`"}


def parse_list(answer: str) -> list[str]:
    """The items of the list in an answer, in order; [] if there is none.

    Lines after an item that start no other belong to it (problems have paragraphs, sub-points and code); a paragraph
    after the last item is left out as closing talk unless other items have paragraphs too.
    """
    fenced = _FENCED.search(answer)
    found = _json_list(answer) or _marked(answer) or _marked(fenced["inner"] if fenced else "")
    items = (_BOLD.sub(r"\1", item) if _BOLD.fullmatch(item) else item for item in found)
    return [item for item in map(unquoted, items) if item]


def headline(item: str) -> str:
    """A topic or keyword without what was said about it: "**Optics**: how light behaves" -> "Optics"."""
    bold = re.match(r"\*\*([^*]+?)(?::\*\*.*|\*\*(?:\s*[:–—-].*)?)$", item, re.DOTALL)
    return unquoted(bold[1] if bold else item).rstrip(" .:;")


def unquoted(text: str) -> str:
    """Text without blank space around it and without quotes around all of it."""
    text = text.strip()
    closing = _QUOTES.get(text[:1])
    inner = text[1:-1]
    if closing and len(text) > 1 and text.endswith(closing) and closing not in inner and text[0] not in inner:
        return inner.strip()
    return text


def _json_list(answer: str) -> list[str]:
    """The texts of the JSON list in an answer: of the first line that begins with one, unless a list of lines began
    before it. {"topics": [...]} is one too."""
    found = _JSON.search(answer)
    if found is None or _marked(answer[: found.start()]):
        return []
    try:
        value, _ = json.JSONDecoder().raw_decode(found["value"])
    except (ValueError, RecursionError):
        return []
    if isinstance(value, dict):
        inside = [item for item in value.values() if isinstance(item, list)]
        value = inside[0] if len(inside) == 1 else None
    return _texts(value) if isinstance(value, list) else []


def _texts(items: list) -> list[str]:
    """Texts, or objects with one text each ([{"topic": "a"}, ...]); [] if one of them is neither."""
    found = []
    for item in items:
        if isinstance(item, dict):
            inside = [value for value in item.values() if isinstance(value, str)]
            item = inside[0] if len(inside) == 1 else None
        if not isinstance(item, str):
            return []
        found.append(item)
    return found


@dataclass
class _Item:
    lines: list[str]
    loose: int | None = None  # the line from which it goes on, not indented, after a blank line


def _marked(answer: str) -> list[str]:
    """Items of a numbered or bulleted list. The first mark decides which kind it is and how far it is indented."""
    items: list[_Item] = []
    first, last, fenced, blank = None, 0, False, False
    for line in answer.splitlines():
        mark = None if fenced else _MARK.fullmatch(line.rstrip())
        if mark and (first is None or _next(first, mark, last)):
            first = first or mark
            last = int(mark["number"] or 0)
            items.append(_Item([mark["text"] or ""]))
        elif items:
            if blank and line.strip() and not line[0].isspace() and items[-1].loose is None and not fenced:
                items[-1].loose = len(items[-1].lines)
            items[-1].lines.append(line)
        if _FENCE.match(line):
            fenced = not fenced
        blank = not line.strip()
    if items and items[-1].loose is not None and all(item.loose is None for item in items[:-1]):
        items[-1].lines = items[-1].lines[: items[-1].loose]
    return [_joined(item.lines) for item in items]


def _next(first: re.Match, mark: re.Match, last: int) -> bool:
    """Is this mark the next of the list that `first` began? Deeper ones, other kinds and other numbers are not."""
    if len(mark["indent"].expandtabs(4)) > len(first["indent"].expandtabs(4)) + 1:
        return False
    if first["number"] is None or mark["number"] is None:
        return first["bullet"] is not None and mark["bullet"] == first["bullet"]
    number = int(mark["number"])
    every_item_is_the_first = number == last == int(first["number"])  # "1." before each, as Markdown allows
    return number == last + 1 or every_item_is_the_first


def _joined(lines: list[str]) -> str:
    """The lines of one item, without the indentation that the list gave them."""
    rest = [line for line in lines[1:] if line.strip()]
    shared = min((len(line) - len(line.lstrip()) for line in rest), default=0)
    return "\n".join([lines[0], *(line[shared:].rstrip() for line in lines[1:])]).strip()
