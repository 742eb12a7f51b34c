"""User turns: prompts that a model writes by itself, as the continuation of a bare user header or of given openings.

An aligned model that is given its template up to the place of the first user turn writes one (Magpie, arXiv
2406.08464); a base model continues openings. What comes out is as varied as the model's own idea of its users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from data_prep.first_turns import first_turns
from data_prep.jsonl import write_rows
from data_prep.keys import normal
from data_prep.template import Template
from data_prep.tokens import Tokenizer
from recipes.errors import StageFailed
from recipes.pipeline.artifacts import content_hash
from recipes.stages import batched, generate, training


def main(cfg: dict, stage_dir: Path) -> dict | None:
    template, policy_path = Template.load(cfg["template"]), Path(cfg["inputs"]["policy"])
    training.check_template(template, policy_path)
    elsewhere = {normal(turn) for path in cfg["inputs"]["disjoint_from"] for _, turn in first_turns(path, template)}

    config = training.load_engine(cfg)
    from recipes.engine.inference import load_policy

    sha256 = content_hash(policy_path)
    jobs = turns(cfg, template)
    identity = [sha256, template.sha256, jobs.texts, generate.decoding(cfg)]
    done = batched.finish(config, stage_dir, identity, len(jobs), load_policy, policy_path, jobs.sampler(cfg, False))
    if done is None:
        return None
    whole = joiner(Tokenizer.open(training.tokenizer_of(policy_path, stage_dir))) if cfg["openings"] else None
    written = (
        (whole(opening, turn) if whole else turn["text"].strip(), turn["finished"])
        for opening, mine in zip(jobs.texts, jobs.rows(done))
        for turn in mine
    )
    rows, counts = select(cfg, template, written, elsewhere)
    facts = {"counts": dict(counts), "rows": len(rows), "policy_sha256": sha256, "template_sha256": template.sha256}
    if len(rows) < cfg["minimum_rows"]:
        raise StageFailed(f"{len(rows)} usable user turns, {cfg['minimum_rows']} are wanted; buckets: {dict(counts)}")
    if training.is_first_rank():
        made_by = {"stage": cfg["stage"], "model": f"{generate.model_name(cfg)}@{sha256[:12]}"}
        write_rows(stage_dir / "outputs" / "prompts.jsonl", ({**row, "made_by": made_by} for row in rows))
    return facts


def turns(cfg: dict, template: Template) -> generate.Jobs:
    """What is continued: the template's header of a user turn, or the openings one after the other."""
    if not cfg["openings"]:
        rendered = template.prompt([{"role": "user", "content": "\0"}])
        return generate.Jobs([rendered[: rendered.index("\0")]], template, cfg["count"], cfg["batch_size"])
    each = -(-cfg["count"] // len(cfg["openings"]))
    jobs = generate.Jobs(list(cfg["openings"]), template, each, cfg["batch_size"])
    jobs.stop, jobs.before_stop = "\n", ""  # plain text: a turn is a line
    return jobs


def joiner(tokenizer: Tokenizer) -> Callable[[str, dict], str]:
    """A function (opening, continuation) -> the line. Only together do their tokens say where the spaces are."""

    def whole(opening: str, turn: dict) -> str:
        ids = turn["ids"][: len(turn["ids"]) - turn["finished"]]
        return tokenizer.decode([*tokenizer.encode(opening), *ids]).strip()

    return whole


def select(cfg: dict, template: Template, written: Iterable, elsewhere: set[str]) -> tuple[list[dict], Counter]:
    """(prompt rows, bucket -> turns). Turns that were cut off, hold a control token or came before are left out.

    written: (text, did it end by itself) of every turn.
    """
    rows, counts, seen = [], Counter(), set()
    for text, finished in written:
        key, task = normal(text), _task(cfg, text)
        bucket = (
            "unfinished" if not finished
            else "empty" if not text
            else "control_token" if any(token in text for token in template.control_tokens)
            else "no_task" if cfg["read_tasks"] and task is None
            else "duplicate" if key in seen
            else "shared_prompt" if key in elsewhere
            else "kept"
        )  # fmt: skip
        counts[bucket] += 1
        if bucket == "kept":
            row = {"id": f"{cfg['stage']}-{len(rows):06d}", "messages": [{"role": "user", "content": text}]}
            rows.append(row | ({"task": task} if task else {}) | {"source": cfg["stage"], "human": False})
        seen.add(key)
    return rows, counts


def _task(cfg: dict, text: str) -> dict | None:
    if cfg["read_tasks"] is None:
        return None
    from data_prep.world.reading import read

    return read(text)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
