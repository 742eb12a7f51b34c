"""Polite filler at the ends of a user's turn: "Thank you! That's great, but how ...?" -> "How ...?"

The report (3.2.2) removes it from the user turns of synthetic dialogues; which phrases, is not published. A sentence,
or a clause up to a comma, goes only if all of it is filler: "Great Britain", "Thank you notes" and "That's interesting
because ..." stay.
"""

from __future__ import annotations

import re
import unicodedata

_MUCH = r"(?: (?:so|very) much| a lot| again| a million| indeed| once more)?"
_GOOD = (
    r"(?:great|good|awesome|perfect|excellent|wonderful|amazing|fantastic|brilliant|nice|cool|lovely|superb|terrific|"
    r"helpful|useful|interesting|fascinating|insightful|informative|impressive|incredible|delightful|clear|"
    r"thoughtful|enlightening|inspiring)"
)
_VERY = r"(?:(?:a|an|really|very|so|quite|pretty|truly|absolutely|such|incredibly|extremely|just|super|most|the) )*"
_THING = (
    r"(?:answer|explanation|point|points|job|work|stuff|idea|ideas|advice|suggestion|suggestions|tip|tips|overview|"
    r"information|info|insight|insights|summary|example|examples|response|list|thing|start|news|one|breakdown|detail|"
    r"details|thought|thoughts|plan|story|poem|text|recommendation|recommendations)"
)
_AND_GOOD = rf"(?:(?: and|,) {_VERY}{_GOOD})*"
_FILLERS = (
    rf"(?:thank you|thanks|many thanks|thank you kindly|thx|cheers){_MUCH}(?: for [^.!?,;]*| in advance)?",
    rf"(?:wow |oh |ah )?{_VERY}{_GOOD}{_AND_GOOD}(?: {_THING})?(?: to (?:know|hear))?",
    rf"(?:that|this|it|those|these|(?:your|the) {_THING})(?:'s|’s| is| are| was| were| has been| would be| sounds|"
    rf" sound| seems| looks) {_VERY}{_GOOD}{_AND_GOOD}(?: {_THING})?(?: (?:to (?:know|hear)|for me|indeed|of you))?",
    r"(?:i|we) (?:really |truly |very much |greatly |so )?(?:appreciate|love|like|enjoyed|appreciated|loved|liked)"
    rf" (?:this|that|it|your (?:{_THING}|help|time|effort)|how you [^.!?,;]*){_MUCH}",
    r"(?:that|this|it)(?: all)? (?:really |certainly |definitely )?(?:makes|helps|helped)(?: (?:a lot|sense|so much|me|"
    r"perfect sense|a lot of sense|me a lot))?",
    r"(?:i'm|i’m|i am) (?:so |really |very )?(?:glad|happy|grateful|thankful|impressed|delighted)(?: (?:to|for|that|by|"
    r"with) [^.!?,;]*)?",
    r"(?:ok|okay|alright|all right|wow|oh|ah|hi|hello|hey|hi there|hello there|hello again|got it|i see|understood|"
    r"good morning|good day|sure|yes please|you're right|you’re right|good to know|that's right|fair enough|"
    r"have a (?:great|good|nice|lovely) (?:day|time|evening|weekend|one)|take care|goodbye|bye|keep up the good work|"
    r"you've been (?:very |so |really )?helpful|you’ve been (?:very |so |really )?helpful|much appreciated|"
    r"that's all(?: for now)?)",
)
_ONE_WORD = re.compile(_GOOD, re.IGNORECASE)
_FILLER = re.compile("|".join(f"(?:{filler})" for filler in _FILLERS), re.IGNORECASE)
_LEAD = re.compile(r"(?P<clause>[^.!?,;:\n—–]+?)[ \t]*(?P<end>[.!…]+|[,;:]|\n|—|–| - |$)(?=\s|$|\w)", re.MULTILINE)
_LAST = re.compile(r"(?:^|(?<=[.!?…\n)\]\"”]))(?P<space>\s*)(?P<clause>[^.!?\n]+)[.!…]*\s*$")
# What may follow an adjective that stands alone before a comma; other words make it "Good, cheap hotels".
_AFTER_ONE_WORD = re.compile(
    r"(?:i|i'm|i'd|i'll|we|you|it|it's|that|that's|this|what|what's|how|how's|why|when|where|which|who|can|could|would|"
    r"will|is|are|do|does|did|should|but|and|so|now|then|thanks|thank|let|let's|please|also|if|tell)\b",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:but|and|so|though|however|now)\b,?[ \t]+", re.IGNORECASE)


def without_filler(text: str) -> str:
    """The turn without polite filler at its beginning and end; "" if there is nothing else in it."""
    kept, cut_at_comma = _without_lead(_trimmed(text))
    kept = _without_end(kept)
    if kept == text.strip():
        return kept
    if cut_at_comma:
        kept = _LINK.sub("", kept, count=1) if _LINK.match(kept) else kept
    return _capital(kept)


def _without_lead(text: str) -> tuple[str, bool]:
    """(the text from its first clause on that is no filler, was the last cut at a comma or dash)."""
    at_comma = False
    while text:
        lead = _LEAD.match(text)
        if lead is None or not _is_filler(lead["clause"]):
            break
        rest, comma = _trimmed(text[lead.end() :]), lead["end"] == ","
        if comma and _ONE_WORD.fullmatch(lead["clause"].strip()) and not _AFTER_ONE_WORD.match(rest.replace("’", "'")):
            break
        text, at_comma = rest, lead["end"].strip() in tuple(",;:—–-")
    return text, at_comma


def _without_end(text: str) -> str:
    while text:
        last = _LAST.search(_trimmed(text, ends=True))
        if last is None or not all(_is_filler(part) for part in re.split(r"[,;]", last["clause"]) if part.strip()):
            break
        text = text[: last.start()].rstrip()
    return text


def _is_filler(clause: str) -> bool:
    return _FILLER.fullmatch(" ".join(clause.split())) is not None


def _trimmed(text: str, ends: bool = False) -> str:
    """Without blank space and pictures (emoji) at its beginning, or at its end."""
    text = text.strip()
    while text and unicodedata.category(text[-1 if ends else 0]) in ("So", "Sk", "Cf", "Mn"):
        text = (text[:-1] if ends else text[1:]).strip()
    return text


def _capital(text: str) -> str:
    """A sentence that has lost its beginning starts with a capital; names and code are left as they are."""
    first = re.match(r"[a-z]+(?=[ ,.?!'’])", text)
    return text[0].upper() + text[1:] if first else text
