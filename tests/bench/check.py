"""How long `align check nemotron4_340b` takes with 300,000 preference pairs of 400 tokens, and in how much memory.

    python -m tests.bench.check [--before ANOTHER_TREE_OF_THIS_REPOSITORY]

The rows, a SentencePiece tokenizer of 256,000 pieces (8,000 learned on the same words, the others unused) and a
checkpoint directory with NVIDIA's config of the 340B are made in a temporary folder. Every variant is the command
itself, started anew: no large file; a tenth of the rows, to see whether memory grows with them; all in one file, whose
rows are spread over the cores, and on one core; the same rows in two files. With another tree, its command runs on the
first two as well, right after ours: on a machine that others use too, compare what ran side by side.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.tokenizer import train_tokenizer
from data_prep.tokens import Tokenizer
from tests.pipeline import checkpoints

ROOT = Path(__file__).resolve().parents[2]
SMALL, PROMPTS = 300, 1000  # rows of every other file; prompts of a round
WORDS, SEED = 30_000, 7
TOKENS = {"prompt": 120, "chosen": 140, "rejected": 140}  # of the mean row, about; a word is 1.2 tokens or so


def words() -> list[str]:
    """Made-up words of one to four syllables."""
    rng = random.Random(SEED)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "ing", "ot")]
    return ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(WORDS)]


class Rows:
    """Rows of words that occur as often as in a language: the k-th most frequent one 1 / k times."""

    def __init__(self):
        self.words, self.rng = words(), random.Random(SEED)
        self.weights = [1 / rank for rank in range(1, WORDS + 1)]
        self.pool = self.rng.choices(self.words, self.weights, k=2_000_000)  # drawn once: choices() is slow

    def text(self, mean: int) -> str:
        size = max(3, int(self.rng.gauss(mean / 1.23, mean / 5)))
        at = self.rng.randrange(len(self.pool) - size)
        return " ".join(self.pool[at : at + size]) + "."

    def pair(self, number: int) -> dict:
        prompt, chosen, rejected = (self.text(mean) for mean in TOKENS.values())
        rewards = {"chosen_reward": 2 + number % 7, "rejected_reward": 1.0}
        return {"prompt": [{"role": "user", "content": prompt}], "chosen": chosen, "rejected": rejected, **rewards}

    def talk(self, number: int) -> dict:
        turns = (("user", TOKENS["prompt"]), ("assistant", TOKENS["chosen"]))
        return {"messages": [{"role": role, "content": self.text(mean)} for role, mean in turns]}

    def question(self, number: int) -> dict:
        return {"id": str(number), "messages": self.talk(number)["messages"][:1]}

    def rating(self, number: int) -> dict:
        return {"prompt": self.text(50), "response": self.text(50), "helpfulness": number % 5, "correctness": 3,
                "coherence": 4, "complexity": 1, "verbosity": 2}  # fmt: skip


def write(path: Path, make, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(make(number)) + "\n" for number in range(count))
    return path


def desk(folder: Path, count: int) -> None:
    """Checkpoint `base`, the small files of the recipe, and the pairs: all, a tenth, the first and the second half."""
    rows = Rows()
    corpus = write(folder / "corpus.jsonl", lambda number: {"text": rows.text(100)}, 20_000)
    learned = train_tokenizer(corpus, folder / "learned.model", 8000, SEED).read_bytes()
    checkpoints.checkpoint(folder / "base")
    (folder / "base" / checkpoints.TOKENIZER).write_bytes(checkpoints.filled(learned, 256_000))
    kinds = {"code_sft": rows.talk, "general_sft": rows.talk, "dpo": rows.pair, "reward": rows.rating}
    for name, make in {**kinds, "reward_validation": rows.rating}.items():
        for file in ("train", "validation"):
            write(folder / f"datasets/nemotron4_{name}/{file}.jsonl", make, SMALL)
    for number in (1, 2, 3):
        write(folder / f"datasets/prompts/round{number}.jsonl", rows.question, PROMPTS)
    parts = {"tenth": (0, count // 10), "first": (0, count // 2), "second": (count // 2, count)}
    with write(folder / "all.jsonl", rows.pair, count).open(encoding="utf-8") as lines:
        files = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in parts}
        for number, line in enumerate(lines):
            for name, (start, end) in parts.items():
                if start <= number < end:
                    files[name].write(line)
    for file in files.values():
        file.close()


def measure(folder: Path, overrides: list[str], root: Path = ROOT, cores: int = 0) -> tuple[float, float, float, str]:
    """(seconds, seconds of a processor in all processes, peak MB of the largest one, last line said) of the command.
    cores: 0 = those that are there."""
    starts = [f"stages.{name}.inputs.init=base" for name in ("code_sft", "reward", "dpo")]
    command = [
        sys.executable,
        "-m",
        "recipes.cli",
        "check",
        "nemotron4_340b",
        *starts,
        "all.resources.gpu=null",
        *overrides,
    ]
    begin = time.perf_counter()
    here = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, sorted(here)[:cores])  # what is started has those of its parent
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)
    os.sched_setaffinity(0, here)
    said = process.stdout.read().decode().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("\n".join(said))
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--before", type=Path, help="another tree of this repository, to compare with")
    args = parser.parse_args()
    count = args.rows
    with tempfile.TemporaryDirectory(prefix="align-bench-") as scratch:
        folder = Path(scratch)
        child = multiprocessing.get_context("fork").Process(target=desk, args=(folder, count))
        child.start()  # what a process has held counts as the memory of those that it starts
        child.join()
        tokens = Tokenizer(folder / "base" / checkpoints.TOKENIZER)
        with (folder / "tenth.jsonl").open(encoding="utf-8") as lines:
            pairs = [json.loads(next(lines)) for _ in range(200)]
        texts = [(pair["prompt"][0]["content"], pair["chosen"], pair["rejected"]) for pair in pairs]
        mean = sum(len(tokens.encode(text)) for row in texts for text in row) / len(texts)
        size = (folder / "all.jsonl").stat().st_size / 1e6
        print(f"{count} pairs, {mean:.0f} tokens a row, {size:.0f} MB, {len(os.sched_getaffinity(0))} cores")
        train, validation = "stages.dpo.inputs.train", "stages.dpo.inputs.validation"
        none, tenth, one = [], [f"{train}=tenth.jsonl"], [f"{train}=all.jsonl"]
        two = [f"{train}=first.jsonl", f"{validation}=second.jsonl"]
        variants = [
            ("no large file", 0, none, ROOT, 0),
            ("no large file, before", 0, none, args.before, 0),
            ("a tenth in one file", count // 10, tenth, ROOT, 0),
            ("a tenth, before", count // 10, tenth, args.before, 0),
            ("all in one file", count, one, ROOT, 0),
            ("all in one, one core", count, one, ROOT, 1),
            ("all in two files", count, two, ROOT, 0),
        ]
        for name, rows, overrides, root, cores in variants:
            if root is None:
                continue
            seconds, busy, peak, said = measure(folder, overrides, root.resolve(), cores)
            rate = f"{rows / seconds:8.0f} rows/s" if rows else " " * 15
            print(f"{name:22s} {seconds:7.1f} s {busy:7.1f} s of CPU {rate} {peak:6.0f} MB   {said}", flush=True)


if __name__ == "__main__":
    main()
