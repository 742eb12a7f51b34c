"""Stage `pairs`: scored responses -> outputs/pairs.jsonl and outputs/pairs_validation.jsonl."""

from __future__ import annotations

from pathlib import Path


def main(cfg: dict, stage_dir: Path) -> dict:
    """Facts: prompts per bucket, reward gaps, suggested_gt_reward_scale (see data_prep/pairs.py)."""
    from data_prep.jsonl import write_rows
    from data_prep.pairs import Selection, build
    from data_prep.template import Template

    template = Template.load(cfg["template"])
    built = build(Path(cfg["inputs"]["scored"]), Selection(**cfg["pairs"], seed=cfg["seed"]), template)
    outputs = Path(stage_dir) / "outputs"
    write_rows(outputs / "pairs.jsonl", built.train)
    write_rows(outputs / "pairs_validation.jsonl", built.validation)
    return built.facts | {"template_sha256": template.sha256}


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
