"""Stage `audit`: how good is a judge? Accuracy on labelled comparisons, order consistency, biases."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import Problem, UserInputError


def main(cfg: dict, stage_dir: Path) -> dict:
    """outputs/audit.json: see data_prep/synthetic/audit.py. Facts: the short form of it, and tokens."""
    from data_prep.synthetic.audit import Settings, audit, describe
    from recipes.pipeline.files import atomic_write_json
    from recipes.stages.judge import asked

    settings, sets = Settings(**cfg["tests"]), labelled_sets(cfg)
    with asked(cfg, stage_dir) as (judge, cost):
        result = audit(judge, sets, settings) | {"cost": cost()}
    print(*describe(result), sep="\n", flush=True)
    atomic_write_json(stage_dir / "outputs" / "audit.json", result)
    return {
        "judge": cfg["judge"],
        "by": result["judge"],
        "pairs": {entry["name"]: entry["pairs"] for entry in result["sets"]},
        "right_of_all": {entry["name"]: _share(entry["accuracy_of_all"]) for entry in result["sets"]},
        "right_of_decided": {entry["name"]: _share(entry["accuracy_of_decided"]) for entry in result["sets"]},
        "biases": {bias: found["verdict"] for bias, found in result["biases"].items()},
        **cost(),
    }


def labelled_sets(cfg: dict) -> list:
    """The probes, and every file of inputs.sets under its own name, "<stage>/<name>" if a stage made it."""
    from data_prep.synthetic.audit_sets import PROBES, probe_set, read_set
    from data_prep.template import Template
    from recipes.pipeline.artifacts import OUTPUTS

    template, own = Template.load(cfg["template"]), cfg["own_family"]
    sets = [probe_set(cfg["probes"], own["mark"], cfg["seed"])] if cfg["probes"] else []
    taken = {PROBES}
    for path in map(Path, cfg["inputs"]["sets"]):
        stem = path.name.partition(".")[0]
        name = f"{path.parent.parent.name}/{stem}" if path.parent.name == OUTPUTS else stem
        if name in taken:
            message, fix = f"two sets are called {name}", "give the files different names"
            raise UserInputError(Problem("", "inputs.sets", message, fix))
        taken.add(name)
        sets.append(read_set(path, name, own["names"], cfg["pairs_per_set"], cfg["seed"], template))
    return sets


def _share(found: dict | None) -> float | None:
    return found and found["share"]


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
