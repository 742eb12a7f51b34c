"""Write the files of the tiny world. The same options and seed give the same bytes.

corpus.jsonl, corpus_validation.jsonl            {"text"}: skills stated in plain text, right but uneven in manner
code_sft.jsonl, general_sft.jsonl (+_validation) messages from a weak teacher
human.jsonl, human_validation.jsonl              HelpSteer2 rows, two responses a prompt, rated by SIMULATED annotators
prompts_round{0..}.jsonl, eval_prompts.jsonl     prompts with a verifiable task, all different
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.jsonl import write_rows
from data_prep.verify import verify
from data_prep.world import annotator, answers, code, skills
from data_prep.world.answers import Faults
from data_prep.world.splits import split_of
from recipes.errors import Problem, UserInputError

POOL = 8  # statements to choose from when a corpus row has room left
FACTS = {name for name, skill in skills.SKILLS.items() if skill.fact}
OPENERS = ("please", "now", "so", "then")


@dataclass(frozen=True)
class World:
    """Options of the world stage; see configs/stage/world.yaml for what each one does."""

    seed: int
    skills: dict[str, int]
    letters: int
    digits: int
    longest_list: int
    max_code_steps: int
    constraint_share: float
    corpus_code_share: float
    general_code_share: float
    prompt_code_share: float
    corpus_tokens: int
    corpus_faults: Faults
    teacher_faults: Faults
    human_faults: Faults
    annotators: int
    annotator_noise: float

    @cached_property
    def lists(self) -> skills.Lists:
        return skills.Lists.of(self.letters, self.digits, self.longest_list)

    @cached_property
    def _lots(self) -> list[str]:
        """Each skill as often as its weight says."""
        return [name for name, weight in self.skills.items() for _ in range(weight)]

    def task(self, rng: random.Random, code_share: float) -> dict:
        if rng.random() < code_share:
            return code.draw(rng, self.max_code_steps)
        return skills.draw(rng, skills.pick(rng, self._lots), self.lists, self.constraint_share)

    def tasks(self, rng: random.Random, split: str, code_share: float) -> Iterator[dict]:
        """Endless tasks of one split."""
        while True:
            task = self.task(rng, code_share)
            if split_of(task, self.seed) == split:
                yield task

    def unique(
        self, rng: random.Random, split: str, code_share: float, count: int, seen: set[str]
    ) -> Iterator[tuple[str, dict]]:
        """`count` (prompt, task) whose prompts are not in `seen` yet; they are added to it."""
        stream, tries, made = self.tasks(rng, split, code_share), 0, 0
        while made < count:
            task = next(stream)
            prompt = ask(task, rng)
            tries += 1
            if tries > 40 * count + 1000:
                raise UserInputError(
                    Problem(
                        "",
                        f"split {split}",
                        f"the world has only {made} different prompts of the {count} asked for",
                        "ask for fewer prompts or make longest_list larger",
                    )
                )
            if prompt not in seen:
                seen.add(prompt)
                made += 1
                yield prompt, task


def ask(task: dict, rng: random.Random) -> str:
    """The prompt: an opener and the task. Without the opener the verb would start the line, where its token differs."""
    return f"{skills.pick(rng, OPENERS)} {code.ask(task) if task['type'] == 'code' else skills.ask(task)}"


def build(world: World, sizes: dict[str, int], out: Path) -> dict:
    """Write all files into `out`; returns facts: rows of each file, and how good the teacher's answers really are."""
    rows: dict[str, int] = {}
    for name in ("corpus", "corpus_validation"):
        rows[name] = write_rows(out / f"{name}.jsonl", _corpus(world, _rng(world, name), sizes[name]))
    quality: dict[str, dict] = {}
    for name, share in (("code_sft", 1.0), ("general_sft", world.general_code_share)):
        for part, split in ((name, "sft"), (f"{name}_validation", "sft_validation")):
            stream = world.tasks(_rng(world, part), split, share)
            rows[part] = write_rows(out / f"{part}.jsonl", _sft(world, part, stream, sizes[part], quality))
    for name, split in (("human", "human"), ("human_validation", "human_validation")):
        rows[name] = write_rows(out / f"{name}.jsonl", _human(world, name, split, sizes[name], quality))
    rows |= _write_prompts(world, sizes, out)
    return {"rows": rows, "answers": quality}


def _write_prompts(world: World, sizes: dict[str, int], out: Path) -> dict[str, int]:
    """Prompts of all rounds are drawn together and dealt out: drawn one after the other, the last round would get what
    the first ones left, which is the rare kinds of task."""
    seen: set[str] = set()
    share = world.prompt_code_share
    rows = {
        "eval_prompts": list(
            world.unique(_rng(world, "eval_prompts"), "evaluation", share, sizes["eval_prompts"], seen)
        )
    }
    rng, rounds = _rng(world, "prompts"), sizes["rounds"]
    drawn = list(world.unique(rng, "prompts", share, sizes["prompts"] * rounds, seen))
    rng.shuffle(drawn)
    rows |= {f"prompts_round{i}": drawn[i::rounds] for i in range(rounds)}
    return {name: write_rows(out / f"{name}.jsonl", _prompts(name, prompts)) for name, prompts in rows.items()}


def _rng(world: World, name: str) -> random.Random:
    """A stream for each file: changing the size of one file leaves the others as they are."""
    return random.Random(f"{world.seed}:{name}")


def _corpus(world: World, rng: random.Random, count: int) -> Iterator[dict]:
    """Rows of several statements, packed up to corpus_tokens tokens: padding costs as much as text."""
    pool: list[tuple[int, str]] = []
    for _ in range(count):
        parts, left = [], world.corpus_tokens
        while True:
            while len(pool) < POOL:
                text = _statement(world, rng)
                # a token for each word, for each newline inside, and for the one behind
                pool.append((text.count(" ") + 2 * text.count("\n") + 2, text))
            fitting = next((i for i, (size, _) in enumerate(pool) if size <= left or not parts), None)
            if fitting is None:
                break
            size, text = pool.pop(fitting)
            left -= size
            parts.append(text)
        yield {"text": "\n".join(parts)}


def _statement(world: World, rng: random.Random) -> str:
    """A task and an answer. Tasks kept for evaluation do not occur, except of skills that are facts (an addition table
    can only be known, not worked out)."""
    task = world.task(rng, world.corpus_code_share)
    while task.get("skill") not in FACTS and split_of(task, world.seed) == "evaluation":
        task = world.task(rng, world.corpus_code_share)
    return f"{ask(task, rng)}\nanswer :\n{answers.teach(task, world.corpus_faults, world.lists, rng)}"


def _sft(world: World, name: str, stream: Iterator[dict], count: int, quality: dict) -> Iterator[dict]:
    rng, correct, manner = _rng(world, f"{name}:answers"), 0, 0.0
    for i in range(count):
        task = next(stream)
        prompt, answer = ask(task, rng), answers.teach(task, world.teacher_faults, world.lists, rng)
        verdict = verify(task, answer)
        correct, manner = correct + verdict["correct"], manner + verdict["manner"]
        yield {
            "id": f"{name}-{i:05d}",
            "messages": [_user(prompt), {"role": "assistant", "content": answer}],
            "source": "tiny_teacher_code" if task["type"] == "code" else "tiny_teacher",
            "human": False,
        }
    quality[name] = {"correct": round(correct / max(1, count), 4), "manner": round(manner / max(1, count), 4)}


def _human(world: World, name: str, split: str, count: int, quality: dict) -> Iterator[dict]:
    """Two different responses a prompt, in adjacent rows, as in HelpSteer2."""
    rng, correct = _rng(world, name), 0
    prompts = world.unique(rng, split, world.prompt_code_share, (count + 1) // 2, set())
    written = 0
    for number, (prompt, task) in enumerate(prompts):
        first = answers.teach(task, world.human_faults, world.lists, rng)
        second = first
        while second == first:
            second = answers.teach(task, world.human_faults, world.lists, rng)
        for letter, response in zip("ab", (first, second)):
            if written == count:
                break
            written, correct = written + 1, correct + verify(task, response)["correct"]
            rated = annotator.annotate(task, response, rng, world.annotator_noise, world.annotators)
            yield {
                "id": f"{name}-{number:05d}{letter}",
                "prompt": prompt,
                "response": response,
                **rated,
                "source": "tiny_annotators",
                "human": True,
                "simulated": True,
            }
    quality[name] = {"correct": round(correct / max(1, count), 4)}


def _prompts(name: str, drawn: list[tuple[str, dict]]) -> Iterator[dict]:
    for i, (prompt, task) in enumerate(drawn):
        yield {
            "id": f"{name}-{i:05d}",
            "messages": [_user(prompt)],
            "task": task,
            "source": "tiny_world",
            "human": False,
        }


def _user(text: str) -> dict:
    return {"role": "user", "content": text}
