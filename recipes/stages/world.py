"""Stage `world`: generate the data of the tiny chain into outputs/. Needs no input and no model."""

from __future__ import annotations

from pathlib import Path


def main(cfg: dict, stage_dir: Path) -> dict:
    """Write the files of data_prep/world/build.py; facts: rows, quality of the answers, realised share of ratings."""
    from data_prep.world.answers import Faults
    from data_prep.world.build import World, build

    faults = {key: Faults(**cfg[key]) for key in ("corpus_faults", "teacher_faults", "human_faults")}
    world = World(
        seed=cfg["seed"], **cfg["tasks"], **faults, annotators=cfg["annotators"], annotator_noise=cfg["annotator_noise"]
    )
    facts = build(world, cfg["sizes"], Path(stage_dir) / "outputs")
    rows = facts["rows"]
    pairs = cfg["sizes"]["prompts"] * cfg["sizes"]["rounds"]  # at most one pair a prompt
    alignment = rows["code_sft"] + rows["general_sft"] + pairs + rows["human"]
    facts["human_share"] = round(rows["human"] / alignment, 4)
    facts["human_share_note"] = (
        f"{rows['human']} simulated ratings of {alignment} alignment rows (SFT, pairs, ratings). The recipe has about "
        "2 % human data; a reward model of this size needs a few thousand ratings, so the tiny world holds more."
    )
    return facts


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
