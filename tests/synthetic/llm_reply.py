"""A language model for tests: answers the prompt texts of configs/prompt as a mediocre model would.

Deterministic in the request alone (messages and seed). Lists come in several layouts, some with talk around them; some
answers are rubbish, refusals, cut off or wrapped, so that readers and buckets have something to do.

Below it: the prompts stage with every maker on, in small. The server imports this module, so nothing heavy stands here.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

WORDS = """amber anchor basket beacon bridge cabin candle canyon cedar cellar chisel cider clover cobalt copper coral
crater delta ember falcon ferry flint garnet glacier granite harbor hazel heron indigo island ivory juniper kettle
lantern ledger lichen linen lotus magnet maple marble meadow mirror nectar nickel orchard otter paddle pebble pepper
pigeon plaza pollen quartz raven reef ribbon saddle saffron sail shale silver spruce summit thistle timber tulip
valley velvet walnut willow wren zephyr""".split()


def reply(messages: list[dict], body: dict) -> str | dict:
    asked, how = messages[-1]["content"], Draws(messages, body)
    for start, answer in ANSWERS.items():
        if start in asked:
            return answer(asked, how)
    return f"The {how.word()} and the {how.word()} go together because of the {how.word()}.{_kept_rules(asked)}"


class Draws:
    """Numbers and words that depend on the request alone."""

    def __init__(self, messages: list[dict], body: dict):
        self.key = json.dumps([messages, body.get("seed")], sort_keys=True)
        self.count = 0

    def number(self, below: int) -> int:
        self.count += 1
        return int(hashlib.sha256(f"{self.count} {self.key}".encode()).hexdigest(), 16) % below

    def word(self) -> str:
        return WORDS[self.number(len(WORDS))]

    def words(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))


def _kept_rules(asked: str) -> str:
    return " I will keep to that." if "following answers" in asked else ""


def _listed(item):
    """An answer that lists as many items as were asked for, in one of the layouts that models use."""

    def answer(asked: str, how: Draws) -> str | dict:
        count = int(re.search(r"(?:Name|Write) (\d+)", asked)[1])
        layout = how.number(9)
        items = [item(asked, how) for _ in range(count)]
        if layout == 0:
            return "I would rather talk about the weather, or about nothing at all."
        if layout == 1:
            items = items[: max(1, count - 1)]
            return "Here you go:\n\n" + "\n".join(f"- {text}" for text in items)
        if layout == 2:
            return "```json\n" + json.dumps(items) + "\n```"
        if layout == 3:
            return json.dumps({"items": [{"text": text} for text in items]})
        if layout == 4:
            lines = [f"{n}. {text}" for n, text in enumerate(items, 1)]
            return {"text": "\n".join(lines)[:-3], "finish_reason": "length"}
        if layout == 5:
            return "items:\n" + "\n".join(f"  - {json.dumps(text)}" for text in items)
        lines = "\n".join(f"{n}. {text}" for n, text in enumerate(items, 1))
        return f"Sure! Here they are:\n\n{lines}\n\nI hope that they are of use!"

    return answer


def _one(write):
    """An answer that is one text, sometimes wrapped, refused or empty."""

    def answer(asked: str, how: Draws) -> str | dict:
        text, layout = write(asked, how), how.number(10)
        if layout == 0:
            return "I'm sorry, but I can't help with that."
        if layout == 1:
            return f"Here is the request:\n\n{text}"
        if layout == 2:
            return f'"{text}"'
        if layout == 3:
            return f"**Request:** {text}"
        return text

    return answer


def _next_turn(asked: str, how: Draws) -> str:
    text = f"what about the {how.words(3)} and the {how.word()}?"
    layout = how.number(14)
    if layout == 0:
        return "Thank you so much! That's really helpful."
    if layout == 1:
        return f"USER: {text}\n\nASSISTANT: Well, that depends."
    if layout == 2:
        return f"That's great, thanks! But {text}"
    if layout == 3:
        return f"<extra_id_1>User\n{text}"
    return text.capitalize()


def _topic(asked: str, how: Draws) -> str:
    return f"{how.word().capitalize()} {how.word()}"


def _question(asked: str, how: Draws) -> str:
    return f"How does a {how.words(3)} work, and what is the {how.word()} for?"


def _longer(asked: str, how: Draws) -> str:
    inner = re.search(r"<request>\n(.*)\n</request>", asked, re.DOTALL)[1]
    return f"{inner} I have a {how.words(2)} and need it for the {how.words(3)}."


def _task(asked: str, how: Draws) -> str:
    return f"Write a function that takes a {how.word()} and returns its {how.words(2)}."


def _solution(asked: str, how: Draws) -> str:
    if how.number(8) == 0:
        return "One would have to think about that."
    return f"The idea is a {how.word()}.\n\n```python\ndef f({how.word()}):\n    return {how.number(100)}\n```"


def _fitness(asked: str, how: Draws) -> str:
    verdicts = ["Verdict: no", "I cannot say.", *["Verdict: yes"] * 6]
    return f"The task says what goes in, a {how.word()}.\n\n{verdicts[how.number(len(verdicts))]}"


ANSWERS = {
    "broad topics that people ask": _listed(_topic),
    "narrower topics that belong": _listed(_topic),
    "questions or requests about": _listed(_question),
    "instructions or questions about this document": _listed(lambda a, how: f"Summarise the {how.words(3)} part."),
    "fields of": _listed(_topic),
    "single notions, methods or tools of": _listed(_topic),
    "a notion, method or tool of": lambda a, how: ["Yes.", "No, it is a name.", "**Yes**", "Perhaps."][how.number(4)],
    "mathematics problems about": _listed(lambda a, how: f"What is {how.number(999)} + {how.number(999)}?"),
    "that have to do with": _listed(_task),
    "in which a user asks an assistant to write this": _one(lambda a, how: f"Write a {how.words(3)} for my club."),
    "Rewrite it into a longer and more specific request": _one(_longer),
    "as the first message of a conversation": _one(_question),
    "Write what the user says next": _next_turn,
    "You play the user in a conversation": _next_turn,
    "talks about one topic only": lambda a, how: f"You are a guide to {how.words(2)}. You decline everything else.",
    "of a user who wants something that the assistant is there for": _next_turn,
    "of a user who drifts away": _next_turn,
    "other requests of this kind": _listed(lambda a, how: f"Bring me the {how.words(3)} from upstairs."),
    "Make a new task out of it": _one(_task),
    "one new task in their style": _one(_task),
    "Solve this programming task": _solution,
    "Judge a programming task": _fitness,
}


def reward(messages: list[dict], body: dict) -> str:
    """A reward model with one number, for conversations that end with the assistant."""
    if messages[-1]["role"] != "assistant":
        raise ValueError("a reward model rates an answer")
    return f"{Draws(messages, body).number(100) / 10 - 5:.2f}"


# -- the stage that asks it

REPO = Path(__file__).resolve().parents[2]
LLM = "tests.synthetic.llm_reply:reply"
SIZES = {
    "topics": {"macro": 4, "sub": 2},
    "open_qa": {"per_topic": 2, "original": True},
    "writing": {"per_topic": 1},
    "closed_qa": {"documents": 6, "longest_document": 400},
    "maths": {"per_keyword": 2, "macro": 1, "sub": 2, "levels": ["primary school", "college"]},
    "coding": {"per_keyword": 3, "macro": 2, "sub": 1},
    "user_turns": {"rows": 12},
    "incapable": {"rows": 12},
    "dialogue": {"rows": 14},
    "two_turn": {"rows": 10},
    "instruction_following": {"rows": 24, "turns_share": 0.3, "revise_share": 0.3},
    "topic_following": {"rows": 24, "on_topic_share": 0.5},
    "genetic_instruct": {"colonies": 2, "generations": 3, "children": 6},
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(directory: Path, url: str | None, sizes: dict, **endpoint: object) -> dict:
    """configs/stage/prompts.yaml with these amounts, and a few documents, seeds and keywords beside it."""
    from recipes.pipeline.config import CONFIGS
    from recipes.pipeline.files import read_config

    cfg = read_config(CONFIGS / "stage" / "prompts.yaml")
    cfg["endpoint"].update(url=url, model="stub", **endpoint)
    for maker, options in sizes.items():
        cfg["make"][maker].update(options)
    documents = [{"text": f"Report {n}. " + "The heron stood by the lake. " * n} for n in range(1, 25)]
    seeds = [{"messages": [{"role": "user", "content": f"Seed {n % 8}: where is it?"},
                           {"role": "assistant", "content": "There."}]} for n in range(9)]  # fmt: skip
    words = [{"text": word} for word in ("recursion", "London", "dictionary", "Tuesday", "class")]
    cfg["inputs"] |= {
        "documents": str(write(directory / "documents.jsonl", documents)),
        "seeds": str(write(directory / "seeds.jsonl", seeds)),
        "coding_keywords": str(write(directory / "words.jsonl", words)),
    }
    return cfg | {"stage": "prompts"}


def start(stage: Path, cfg: dict) -> subprocess.Popen:
    """The stage as the runner starts it."""
    from recipes.pipeline.files import atomic_write_text, config_text

    stage.mkdir(exist_ok=True)
    atomic_write_text(stage / "config.yaml", config_text(cfg))
    command = [sys.executable, "-m", "recipes.stages.prompts", str(stage / "config.yaml")]
    with (stage / "log").open("a") as log:
        return subprocess.Popen(command, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)
