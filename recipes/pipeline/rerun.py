"""Run again from the directory of a run alone: its frozen configs, and the same inputs from outside.

PIPELINE of a command may be the directory of a run or its pipeline.yaml. What a run froze is not changed, by an
override or a layer; only the cluster profile of a submission is chosen anew, because it says where and not what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import artifacts
from recipes.pipeline.config import CONFIGS, Pipeline, from_run
from recipes.pipeline.hashing import Reader
from recipes.pipeline.manifests import resolve
from recipes.pipeline.seals import text_intact
from recipes.pipeline.verify_stage import input_problems


def run_of(pipeline: str) -> Path | None:
    """The directory of the run that PIPELINE names, None if it names a pipeline.

    A run is told from a pipeline file by its path (a name has no slash) and by the `versions` that the runner writes.
    """
    path = Path(pipeline)
    if "/" not in pipeline and path.name != artifacts.PIPELINE:
        return None
    path = path / artifacts.PIPELINE if path.is_dir() else path
    if path.name != artifacts.PIPELINE or not path.is_file():
        return None
    try:
        return path.parent if "versions" in artifacts.read_config(path) else None
    except ValueError:
        return None


def compose(run_dir: Path, overrides: list[str], cluster: str | None = None) -> Pipeline:
    """The pipeline that the run froze. Raises UserInputError if it was changed since or `overrides` would change it.

    cluster: a profile, by name or path, for a submission; default: the one that the run was submitted with, if it was
    """
    path = run_dir / artifacts.PIPELINE
    if text_intact(path.read_bytes()) is False:
        fix = "restore it; for other settings run the pipeline file with overrides"
        raise UserInputError(Problem("", str(path), "was changed after the run wrote it", fix))
    pipeline = from_run(run_dir)
    if overrides:
        message = f"the configs of the run {run_dir} are frozen: `{overrides[0]}` cannot change them"
        fix = "leave it out, or run the pipeline itself with it"
        raise UserInputError(Problem("", "command line", message, fix))
    pipeline.cluster = _profile(run_dir, cluster)
    return pipeline


def _profile(run_dir: Path, cluster: str | None):
    from recipes.slurm.state import is_submitted, load_profile

    if cluster is None:
        return load_profile(run_dir) if is_submitted(run_dir) else None
    from recipes.pipeline.document import LAUNCH, find
    from recipes.pipeline.layers import read
    from recipes.slurm import profile

    return profile.compose(cluster, [read(find(CONFIGS / "cluster", cluster)).section(LAUNCH)])


def other_inputs(old: Path, names: list[str], reader: Reader) -> list[Problem]:
    """Inputs from outside that are not what these stages of the old run recorded: the same hashes cannot come out.

    Stages that the old run never finished recorded none.
    """
    found = []
    for name, key, entry in _outside(old, names):
        found += input_problems(resolve(old / name, entry["path"]), key, name, entry["sha256"], reader)
    fix = "restore it: with other content the same hashes cannot come out; or run the pipeline itself, with this one"
    return [replace(problem, fix=fix) for problem in found]


def _outside(old: Path, names: list[str]) -> Iterator[tuple[str, str, dict]]:
    """(stage, input, its entry in the manifest) of the inputs from outside."""
    for name in names:
        inputs = (artifacts.read_manifest(old / name) or {}).get("inputs") or {}
        yield from ((name, key, entry) for key, entry in inputs.items() if not entry["producer"])


def refuse_itself(old: Path, new: Path) -> None:
    """UserInputError if the run would be begun again in its own directory."""
    if old.resolve() == new.resolve():
        fix = f"name another one: --run NAME; or go on with this one: align resume {old}"
        raise UserInputError(Problem("", str(new), "is the directory of the run that is to be run again", fix))


def notes(old: Path) -> list[str]:
    """What is not frozen and differs by now: this code and the packages."""
    recorded = artifacts.read_config(old / artifacts.PIPELINE)
    pairs = {"the commit of this code": (recorded.get("commit"), artifacts.git_commit())}
    before, now = recorded["versions"], artifacts.package_versions()
    pairs |= {name: (before.get(name), now.get(name)) for name in dict.fromkeys([*before, *now])}
    changed = [f"{name} was {was}, is {is_}" for name, (was, is_) in pairs.items() if was != is_]
    return [f"the outputs may come out different: {', '.join(changed)}"] if changed else []
