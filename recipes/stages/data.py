"""Stage `data`: a data set built inside a pipeline; outputs/ is what `align data build` writes."""

from __future__ import annotations

import shutil
from pathlib import Path

SHOWN = ("rows", "share_of_blend", "share_of_source", "most_copies")  # the rest is in outputs/ledger.json


def main(cfg: dict, stage_dir: Path) -> dict:
    """Facts: the buckets and the blend of data_prep/build/ledger.py, and the hash of the template."""
    from data_prep.build import Dataset, build
    from data_prep.template import Template

    private = Path(stage_dir) / "data"
    target = private / "built"  # built beside its place: outputs/ may hold an older build, and moves in one rename
    books = build(Dataset.of(cfg, cfg["stage"]), target, private / "cache", cfg["resources"]["threads"], say)
    outputs = Path(stage_dir) / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    target.rename(outputs)
    counts = dict(books["buckets"])
    kept = counts.pop("train", 0) + counts.pop("validation", 0)
    return {
        "counts": {"kept": kept, **counts},
        "human_rows": books["human"]["rows"],
        "blend": {entry["source"]: {key: entry[key] for key in SHOWN} for entry in books["blend"]},
        **({"reward_model": books["reward_model"]} if "reward_model" in books else {}),
        "template_sha256": Template.load(cfg["template"]).sha256,
    }


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
