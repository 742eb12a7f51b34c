"""The first divergent input between two runs: `align diff`.

Stages are compared in the order of the graph, each in this order: kind and config (without what a fingerprint ignores),
inputs from outside, what its parents made, versions of packages and of this code, outputs. The first difference is the
stage's state. Paths are no difference where the content is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import artifacts, graph, references
from recipes.pipeline.config import from_run
from recipes.pipeline.manifests import input_refs, without_machine
from recipes.pipeline.merge import dotted, leaves

SAME, CONFIG, INPUT, FOLLOWS, VERSIONS, OUTPUTS = "same", "config", "input", "follows", "versions", "outputs"
ONLY_A, ONLY_B = "only in A", "only in B"
NOT_DONE = "not done"  # in neither run, and planned alike
# Files of a stage of kind `data` that name the run's own directory; the rows and their ledger stand beside them.
PLACE = ("manifest.json", "config.yaml", "rows.sqlite")
_ABSENT = "not set"


@dataclass(frozen=True)
class Difference:
    """what: of which kind, one of the states; key: what differs; a, b: its values."""

    what: str
    key: str
    a: object
    b: object


@dataclass
class StageDiff:
    """outputs: "equal", "differ", None where one run has none. machine: what else differs, if only outputs do."""

    stage: str
    kind: str
    state: str
    why: str = ""
    outputs: str | None = None
    differences: list[Difference] = field(default_factory=list)
    machine: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return self.state in (SAME, NOT_DONE)


@dataclass(frozen=True)
class _Side:
    """One run's stage: the config that it was made with, or would be, and its manifest if it is done."""

    cfg: dict
    parents: list[str]
    manifest: dict | None


def diff(a: Path, b: Path) -> list[StageDiff]:
    """Every stage of both runs, parents first. Raises UserInputError if a run cannot be read."""
    ours, theirs = _read(a), _read(b)
    rows: dict[str, StageDiff] = {}
    for name in _order(ours, theirs):
        rows[name] = _compare(name, ours.get(name), theirs.get(name), rows)
    return list(rows.values())


def first(rows: list[StageDiff]) -> StageDiff | None:
    """The first divergent stage, None if the runs are equal."""
    return next((row for row in rows if not row.equal), None)


def _read(run_dir: Path) -> dict[str, _Side]:
    sides = {}
    try:
        for name, stage in from_run(run_dir).stages.items():
            manifest = artifacts.read_manifest(run_dir / name)
            cfg = artifacts.read_config(run_dir / name / artifacts.CONFIG) if manifest else stage.cfg
            sides[name] = _Side(cfg, stage.parents, manifest)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        fix = "`align verify` names the file that was changed"
        raise UserInputError(Problem("", str(run_dir), f"cannot be compared: {error}", fix)) from error
    return sides


def _order(ours: dict[str, _Side], theirs: dict[str, _Side]) -> list[str]:
    both = dict.fromkeys([*ours, *theirs])
    sides = {name: [side for side in (ours.get(name), theirs.get(name)) if side] for name in both}
    union = {
        name: list(dict.fromkeys(parent for side in mine for parent in side.parents if parent in both))
        for name, mine in sides.items()
    }
    try:
        return graph.order(union)
    except UserInputError:  # what is above in one run is below in the other
        return list(both)


# -- one stage ---------------------------------------------------------------------------------------


def _compare(name: str, a: _Side | None, b: _Side | None, above: dict[str, StageDiff]) -> StageDiff:
    kind = (a or b).cfg["kind"]
    if a is None or b is None:
        return StageDiff(name, kind, ONLY_B if a is None else ONLY_A, "the other run has no such stage")
    inputs = _inputs(a, b, above)
    row = StageDiff(name, kind, SAME, differences=_configs(a.cfg, b.cfg))
    row.differences += [d for what in (CONFIG, INPUT, FOLLOWS) for d in inputs if d.what == what]
    if a.manifest and b.manifest:
        row.differences += _versions(a.manifest, b.manifest)
        changed = _outputs(a.manifest, b.manifest)
        row.outputs = "differ" if changed else "equal"
        row.differences += changed
    if row.differences:
        row.state = row.differences[0].what
    elif bool(a.manifest) != bool(b.manifest):
        row.state = ONLY_A if a.manifest else ONLY_B
    elif not a.manifest:
        row.state = NOT_DONE
    if row.state == OUTPUTS:
        row.machine = _machine(a, b)
    row.why = _why(row)
    return row


def _configs(a: dict, b: dict) -> list[Difference]:
    """Each key that differs, `kind` first. Inputs are compared by content and MACHINE not at all."""

    def flat(cfg: dict) -> dict:
        cfg = {"kind": cfg["kind"], **without_machine(cfg)}
        return {dotted(key): value for key, value in leaves({k: v for k, v in cfg.items() if k != "inputs"})}

    return _pairs(CONFIG, flat(a), flat(b))


def _pairs(what: str, a: dict, b: dict) -> list[Difference]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key, _ABSENT) != b.get(key, _ABSENT)]
    return [Difference(what, key, a.get(key, _ABSENT), b.get(key, _ABSENT)) for key in keys]


def _inputs(a: _Side, b: _Side, above: dict[str, StageDiff]) -> list[Difference]:
    """What the stage read: from elsewhere is the config's difference, other content the input's or the parent's."""
    ours, theirs = _entries(a), _entries(b)
    found = []
    for key in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(key), theirs.get(key)
        if one is None or other is None:
            paths = [entry["path"] if entry else _ABSENT for entry in (one, other)]
            found.append(Difference(CONFIG, f"inputs.{key}", *paths))
        elif one["sha256"] and one["sha256"] == other["sha256"]:
            continue
        elif one["producer"] or other["producer"]:
            found += _from_parents(key, one, other, above)
        elif one["sha256"] and other["sha256"]:
            values = [f"{entry['path']} (SHA-256 {entry['sha256'][:12]}...)" for entry in (one, other)]
            found.append(Difference(INPUT, f"inputs.{key}", *values))
        elif one["path"] != other["path"]:  # not done in one of the runs: the content is not known
            found.append(Difference(CONFIG, f"inputs.{key}", one["path"], other["path"]))
    return found


def _from_parents(key: str, one: dict, other: dict, above: dict[str, StageDiff]) -> list[Difference]:
    if one["path"] != other["path"]:
        return [Difference(CONFIG, f"inputs.{key}", one["path"], other["path"])]
    if not (one["sha256"] and other["sha256"]):
        return []
    parent = above.get(one["producer"])
    if parent is None or parent.outputs == "equal":  # redone since in one of the runs
        parts = [f"{entry['path']} (SHA-256 {entry['sha256'][:12]}...)" for entry in (one, other)]
        return [Difference(INPUT, f"inputs.{key}", *parts)]
    return [Difference(FOLLOWS, one["producer"], one["sha256"], other["sha256"])]


def _entries(side: _Side) -> dict[str, dict]:
    """The inputs as the manifest has them, or of a stage that is not done as its config has, without hashes."""
    if side.manifest:
        return side.manifest.get("inputs") or {}
    return {
        key: {"path": ref, "sha256": None, "producer": (references.thaw(ref) or [None])[0]}
        for key, ref in input_refs(side.cfg)
    }


def _versions(a: dict, b: dict) -> list[Difference]:
    ours, theirs = ({**(m.get("versions") or {}), "commit": m.get("commit") or _ABSENT} for m in (a, b))
    return _pairs(VERSIONS, ours, theirs)


def _outputs(a: dict, b: dict) -> list[Difference]:
    ours, theirs = ({name: entry["sha256"] for name, entry in _comparable(m).items()} for m in (a, b))
    return _pairs(OUTPUTS, ours, theirs)


def _comparable(manifest: dict) -> dict[str, dict]:
    """Outputs that are equal where their content is: a model by the hash it carries (its files hold times)."""
    outputs = manifest["outputs"]
    models = [name.removesuffix(artifacts.CONTENT_FILE) for name in outputs if name.endswith(artifacts.CONTENT_FILE)]
    skipped = set(PLACE) if manifest["kind"] == "data" else set()
    skipped |= {name for name in outputs if name.endswith(".nemo")} if models else set()  # the same model as a tar
    skipped |= {name for name in outputs if name.startswith(tuple(models)) and models
                and not name.endswith(artifacts.CONTENT_FILE)}  # fmt: skip
    return {name: entry for name, entry in outputs.items() if name not in skipped}


def _machine(a: _Side, b: _Side) -> list[Difference]:
    """What the fingerprint ignores and the manifests know about how and where the stage ran."""

    def facts(side: _Side) -> dict:
        resources = {f"resources.{key}": value for key, value in side.cfg["resources"].items()}
        return {**resources, **(side.manifest.get("machine") or {"machine": "not recorded"})}

    return _pairs("machine", facts(a), facts(b))


def _why(row: StageDiff) -> str:
    """The stage's difference in one line."""
    if row.state in (ONLY_A, ONLY_B):
        return f"done {row.state}"
    mine = list(dict.fromkeys(d.key for d in row.differences if d.what == row.state))
    more = f" and {len(mine) - 3} more" if len(mine) > 3 else ""
    return f"{', '.join(mine[:3])}{more}"
