"""Stage `prompts`: a language model makes prompts, dialogues and code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recipes.errors import StageFailed


def main(cfg: dict, stage_dir: Path) -> dict:
    """outputs/prompts.jsonl, dialogues.jsonl and code.jsonl (each where it was asked for), lineage.jsonl, ledger.json.

    Raises StageFailed where a file stays empty. Facts: {"rows": {file: rows}, "counts": {maker: {"asked", "made",
    bucket: count, ...}}, "requests_...", "failed", "model", "model_sha256"}.
    """
    from data_prep.jsonl import write_rows
    from data_prep.synthetic.endpoint import open_model
    from data_prep.synthetic.prompts.checks import check
    from data_prep.synthetic.prompts.production import MAKERS, Production, active
    from data_prep.synthetic.requests import Sampling, Unanswered
    from data_prep.template import Template
    from recipes.pipeline.files import atomic_write_json
    from recipes.stages.served import served

    make, template = cfg["make"], Template.load(cfg["template"])
    check(make, cfg["inputs"], cfg["openings"])
    outputs, done = stage_dir / "outputs", _progress(stage_dir)
    with served(cfg, stage_dir) as endpoint:
        model = open_model(endpoint, stage_dir / "data", template, progress=done)
        reward = _reward(cfg, stage_dir, template, done)
        what = (make, cfg["inputs"], cfg["openings"], model, Sampling(**cfg["sampling"]), template, cfg["seed"], reward)
        try:
            made = Production(*what).run()
        except Unanswered as error:
            raise StageFailed(str(error)) from None
    files = list(dict.fromkeys(MAKERS[name].writes for name in active(make)))
    rows = {file: write_rows(outputs / file, made.rows(file)) for file in files}
    if made.lineage:
        write_rows(outputs / "lineage.jsonl", made.lineage)
    atomic_write_json(outputs / "ledger.json", {"makers": made.books, "examples": made.examples, "rows": rows})
    if not all(rows.values()):
        empty = ", ".join(file for file, count in rows.items() if not count)
        raise StageFailed(f"{empty}: not one row was made; the buckets are in {outputs / 'ledger.json'}")
    return {"rows": rows, "counts": made.books, **model.facts()}


def _progress(stage_dir: Path) -> Callable[[int], None]:
    """Notes the answers so far; how many there will be depends on what they say."""
    from recipes.engine.metrics import JsonlLogger

    logger, done = JsonlLogger(stage_dir / "metrics.jsonl", total=None, unit="row"), [0]

    def progress(count: int) -> None:
        done[0] += count
        logger.write("progress", done=done[0], total=None)

    return progress


def _reward(cfg: dict, stage_dir: Path, template, done: Callable[[int], None]):
    """Conversations -> rewards of their last answers; None where no dialogue is dropped by its reward."""
    dialogue = cfg["make"]["dialogue"]
    if not dialogue["rows"] or dialogue["minimum_reward"] is None:
        return None
    from data_prep.synthetic.endpoint import open_model
    from data_prep.synthetic.judges.reward import Reward
    from data_prep.synthetic.judges.scored import Answer
    from data_prep.synthetic.requests import Sampling

    model = open_model(cfg["reward"]["endpoint"], stage_dir / "data" / "reward", template, progress=done)
    judge = Reward(model, cfg["reward"]["weights"], Sampling(temperature=0.0))

    def rewards(conversations: list[list[dict]]) -> list[float | None]:
        answers = [Answer(messages[:-1], messages[-1]["content"]) for messages in conversations]
        return [score.value for score in judge.score(answers, "dialogue: rewards")]

    return rewards


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
