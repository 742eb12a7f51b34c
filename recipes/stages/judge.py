"""Stage `judge`: what a judge makes of candidate responses, added to their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipes.errors import StageFailed


def main(cfg: dict, stage_dir: Path) -> dict:
    """outputs/judged.jsonl: the rows of inputs.responses in their order (data_prep/synthetic/judges/rows.py).

    Facts: who judged, outcomes by count, order consistency and share of the first place (pairwise), tokens.
    """
    from data_prep.candidates import read_candidates
    from data_prep.jsonl import write_rows
    from data_prep.synthetic.judges import asking, rows, truth

    kind = cfg["judge"]
    asking.check_kind(kind, ("truth", *asking.ASKING))
    candidates = read_candidates(cfg["inputs"]["responses"])
    rows.check(candidates, kind)
    if kind == "truth":
        facts = truth.judge(candidates)
    else:
        with asked(cfg, stage_dir) as (judge, cost):
            facts = rows.judge(candidates, judge, cfg)
        facts |= cost() | {"by": asking.identity(judge)}
    write_rows(stage_dir / "outputs" / "judged.jsonl", candidates)
    return {"judge": kind, "rows_read": len(candidates)} | facts


@contextmanager
def asked(cfg: dict, stage_dir: Path) -> Iterator[tuple]:
    """(the judge of the settings, a function that says what its replies cost) while its model can be asked."""
    from data_prep.synthetic.endpoint import open_model
    from data_prep.synthetic.judges.asking import Metered, make_judge
    from data_prep.synthetic.requests import Unanswered
    from data_prep.template import Template
    from recipes.engine.metrics import JsonlLogger
    from recipes.stages.served import served

    template, log = Template.load(cfg["template"]), {}

    def begin(total: int) -> None:
        log["rows"] = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", total)

    with served(cfg, stage_dir) as endpoint:
        model = open_model(endpoint, stage_dir / "data", template, progress=lambda count: log["rows"](count))
        meter = Metered(model, begin)
        try:
            yield make_judge(cfg, meter), meter.facts
        except Unanswered as error:
            raise StageFailed(str(error)) from None


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
