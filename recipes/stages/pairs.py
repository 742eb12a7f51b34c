"""Stage `pairs`: judged responses -> outputs/pairs.jsonl, outputs/pairs_validation.jsonl and a card of them."""

from __future__ import annotations

from pathlib import Path


def main(cfg: dict, stage_dir: Path) -> dict:
    """Facts: prompts per bucket, reward gaps, suggested_gt_reward_scale, judges and models (data_prep/pairs)."""
    from data_prep import pairs
    from data_prep.pairs import card
    from data_prep.template import Template
    from recipes.pipeline.artifacts import atomic_write_text

    template, outputs = Template.load(cfg["template"]), Path(stage_dir) / "outputs"
    selection = pairs.Selection(**cfg["pairs"], seed=cfg["seed"])
    facts = pairs.build(Path(cfg["inputs"]["scored"]), selection, template, outputs)
    atomic_write_text(outputs / "card.html", card.html(cfg, facts, outputs))
    return facts | {"template_sha256": template.sha256}


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
