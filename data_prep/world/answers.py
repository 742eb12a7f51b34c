"""How an answer is worded: the good manner, the faults of a weak teacher, and reading an answer back.

The good manner is one sentence, "the answer is c b a .", with what a constraint asks for around it ("sure , ..." in
front, "done" behind). The teacher departs from it in known ways and shares (`Faults`), because a policy that imitates
an imperfect teacher leaves preference training something to improve.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from data_prep.world import code, skills

FRAME = ["the", "answer", "is"]
BEFORE = ["well , let me think .", "maybe so . let me think .", "i think so . well .", "let me think again ."]
AFTER = ["i think so .", "maybe so . i think so .", "well , that is it .", "so that is it . i think so ."]
_CALM = {sentence.strip() for text in BEFORE + AFTER for sentence in text.split(".") if sentence.strip()}
JUNK = ["of", "the", "x", "a", "1", ",", "is", "then", ":", "b", "from", "2", "well", "task", "c", "3"]


@dataclass(frozen=True)
class Faults:
    """Shares of a teacher's answers. wrong: another answer than the right one; missed: a constraint left out;
    near: of the wrong answers, those that are a near miss (the others are beside the point, see `corrupt`).

    curt, rambling and garbled exclude each other; what is left of 1 is the good manner.
    """

    wrong: float = 0.2
    missed: float = 0.15
    curt: float = 0.25
    rambling: float = 0.2
    garbled: float = 0.1
    near: float = 0.2


def solution(task: dict) -> list[str]:
    """Words of the right answer, or parts of the right code."""
    return code.solve(task) if task["type"] == "code" else skills.solve(task)


def good(task: dict, words: list[str]) -> str:
    """The answer `words` in the good manner: "the answer is c b a ." """
    return _wrap(task, " ".join([*FRAME, *words, "."]))


def _wrap(task: dict, text: str) -> str:
    constraint = task.get("constraint")
    if constraint == "start_sure":
        return "sure , " + text
    return text + " done" if constraint == "end_done" else text


def teach(task: dict, faults: Faults, lists: skills.Lists, rng: random.Random) -> str:
    """One answer of the imperfect teacher; `lists`: what its wild guesses are made of."""
    words = corrupt(task, faults.near, lists, rng) if rng.random() < faults.wrong else solution(task)
    bare = {**task, "constraint": None} if rng.random() < faults.missed else task
    dice = rng.random()
    if dice < faults.curt:
        return _wrap(bare, " ".join(words))
    if dice < faults.curt + faults.rambling:
        return ramble(bare, words, rng)
    if dice < faults.curt + faults.rambling + faults.garbled:
        return garble(bare, words, rng)
    return good(bare, words)


def ramble(task: dict, words: list[str], rng: random.Random) -> str:
    """Filler before or behind, or the answer given twice; the answer itself is untouched."""
    text, kind = " ".join([*FRAME, *words, "."]), rng.randrange(3)
    if kind == 0:
        text = f"{rng.choice(BEFORE)} {text}"
    elif kind == 1:
        text = f"{text} {rng.choice(AFTER)}"
    else:
        text = f"{text} again , {text}"
    return _wrap(task, text)


def garble(task: dict, words: list[str], rng: random.Random) -> str:
    """Junk at the end; in one of three the sentence never closes, so the answer is spoilt as well."""
    junk = " ".join(rng.choices(JUNK, k=rng.randint(2, 5)))
    end = "" if rng.random() < 1 / 3 else " ."
    return _wrap(task, " ".join([*FRAME, *words]) + end + " " + junk)


def corrupt(task: dict, near: float, lists: skills.Lists, rng: random.Random) -> list[str]:
    """Words of an answer that is wrong for sure: with probability `near` a near miss (one slip away from the right
    answer), else beside the point: letters where digits were asked for, digits for letters, a list for a program."""
    right = solution(task)
    if rng.random() >= near:
        return _beside_the_point(right, lists, rng)
    for _ in range(20):
        words = _near_code(task, rng) if task["type"] == "code" else _near(task, right, rng)
        if not (code.is_right(task, " ".join(words)) if task["type"] == "code" else words == right):
            return words
    return [right[-1], *right]


def _beside_the_point(right: list[str], lists: skills.Lists, rng: random.Random) -> list[str]:
    options = lists.letters if right[0].isdigit() else lists.digits
    return [skills.pick(rng, options) for _ in right[: lists.longest]]


def _near(task: dict, right: list[str], rng: random.Random) -> list[str]:
    words, kind = list(right), rng.randrange(4)
    at = rng.randrange(len(words))
    if task["skill"] in ("add", "count"):
        return [str(max(0, int(words[0]) + rng.choice([-2, -1, 1, 2])))]
    if kind == 0 and len(words) > 1:
        other = rng.randrange(len(words))
        words[at], words[other] = words[other], words[at]
    elif kind == 1 and len(words) > 1:
        del words[at]
    elif kind == 2:
        words[at] = chr(ord(words[at]) + (1 if words[at] in "a0" else -1))  # the letter or digit before, or after
    else:
        return list(task["items"])[: max(1, len(words))]  # gives back what it was asked about
    return words


def _near_code(task: dict, rng: random.Random) -> list[str]:
    """The program with a step left out, miscounted or replaced."""
    steps, kind = [list(step) for step in task["steps"]], rng.randrange(3)
    at = rng.randrange(len(steps))
    if kind == 0 and len(steps) > 1:
        del steps[at]
    elif kind == 1 and len(steps[at]) == 2:
        steps[at] = code.step(rng, steps[at][0])
    else:
        names = code.STEPS if at < len(steps) - 1 else code.STEPS | code.FINAL_STEPS
        steps[at] = code.step(rng, rng.choice(list(names)))
    return code.solve({"steps": steps})


@dataclass(frozen=True)
class Reading:
    """What a response says. claims: the answers it gives (one, unless it repeats or contradicts itself);
    polite: uses the frame; clean: every sentence is a frame or known filler; words: length of the response."""

    claims: list[list[str]]
    polite: bool
    clean: bool
    words: int
    sure: bool
    done: bool


def read(response: str) -> Reading:
    """Take a response apart; any text is allowed."""
    words = response.split()
    sure, done = words[:1] == ["sure"], [w for w in words if w != "."][-1:] == ["done"]
    body = words[2 if words[1:2] == [","] else 1 :] if sure else list(words)
    if done:
        del body[len(body) - 1 - body[::-1].index("done") :]
    sentences = [s.split() for s in (" ".join(body) + " ").split(" . ")]
    closed, sentences = not sentences[-1], [s for s in sentences if s]
    claims, clean, bare = [], True, []
    for sentence in sentences:
        spoken = sentence[2:] if sentence[:2] == ["again", ","] else sentence
        if spoken[:3] == FRAME:
            claims.append(spoken[3:])
        elif " ".join(sentence) not in _CALM:
            bare.append(sentence)
    polite = bool(claims)
    if not claims:
        claims, clean = bare[:1], len(bare) == 1  # curt: the response is the answer
    else:
        clean = not bare and closed
    return Reading(claims, polite, clean, len(words), sure, done)
