"""Build one data set: sources -> rows (ingest, rows) -> what is left of them (select) -> files, ledger, card, manifest.

build(Dataset.of(cfg, "general_sft"), Path("datasets/general_sft"), cache_dir, workers=2)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.build import ledger, output, select
from data_prep.build.catalog import Catalog
from data_prep.build.ingest import Job, Reading, jobs
from data_prep.build.rows import RowOptions
from data_prep.dataset import Dataset, Source
from data_prep.jsonl import file_sha256, read_rows, refuse
from data_prep.rules import RULES
from data_prep.sources import PAIRED, Schema, all_schemas, detect
from data_prep.template import Template
from recipes.errors import Problem, UserInputError

Say = Callable[[str], None]
_LONG = 32 << 20  # bytes of sources from which progress is told


@dataclass
class _File:
    """One file of a source, on its way in."""

    source: int
    path: Path
    jobs: list[Job]
    sha256: str = ""


def build(dataset: Dataset, target: Path, cache_dir: Path, workers: int = 1, say: Say = lambda text: None) -> dict:
    """Build `target`, a directory; returns its ledger. Raises UserInputError, and then leaves what was there before."""
    with output.new_folder(Path(target)) as folder:
        catalog = Catalog(folder / output.ROWS, dataset["seed"])
        try:
            files = _enter(catalog, dataset, Path(cache_dir), workers, say)
            facts = _choose(catalog, dataset, workers, say)
            books = ledger.ledger(catalog, dataset, facts)
            ledger.check_blend(books, dataset)
            say(f"writing {sum(entry['rows'] for entry in books['blend'])} rows")
            outputs = _write(catalog, dataset, folder, books)
        finally:
            catalog.close()
        _manifest(dataset, folder, files, outputs)
    return books


# -- rows in -----------------------------------------------------------------------------------------


def _enter(catalog: Catalog, dataset: Dataset, cache_dir: Path, workers: int, say: Say) -> list[_File]:
    files, options = [], _shared_options(dataset)
    for i, source in enumerate(dataset.sources):
        if source.hub:
            _official(source, dataset["checks.official_splits"])
        paths = _paths(source, cache_dir)
        schema = _schema(dataset.kind, source, paths[0])
        licence = source.licence or schema.licence or "not stated"
        catalog.db.execute("INSERT INTO source VALUES (?, ?, ?, ?)", (i, source.name, schema.name, licence))
        mine = RowOptions(source=source.name, schema=schema.name, only=source.only, human=source.human, **options)
        files += [_File(i, path, jobs(path, mine, schema, cache_dir / "shards")) for path in paths]
    reading = Reading([job for file in files for job in file.jobs], workers)
    finished = _told(reading, say)
    for number, file in enumerate(files):
        line = 0
        for job in file.jobs:
            next(finished)
            line += catalog.add_shard(file.source, number, job.shard, line)
    next(finished, None)  # the hashes
    for number, file in enumerate(files):
        file.sha256 = reading.digests[file.path]
        size = file.path.stat().st_size
        catalog.db.execute("INSERT INTO file VALUES (?, ?, ?, ?)", (number, str(file.path), size, file.sha256))
    _pinned(dataset, files)
    return files


def _told(reading: Reading, say: Say) -> Iterator[Job]:
    """The finished jobs, with a line at each tenth."""
    total, done = sum(job.part.size for job in reading.work), 0
    for job in reading:
        before, done = done, done + job.part.size
        if total > _LONG and done * 10 // total > before * 10 // total:
            say(f"read {done >> 20} of {total >> 20} MiB")
        yield job


def _shared_options(dataset: Dataset) -> dict:
    checks = dataset["checks"]
    return {
        "kind": dataset.kind,
        "template": Template.load(dataset["template"]),
        "tokenizer": dataset.tokenizer,
        "max_length": dataset["max_length"],
        "lengths": dataset["lengths"],
        "embedded_turns": checks["embedded_turns"],
        "over_length": checks["over_length"],
        "ties": checks["ties"],
        "rewards": dataset["rewards.from"],
        "weights": dataset["rewards.weights"],
        "minimum_margin": float(dataset["rewards.minimum_margin"]),
        "languages": tuple(checks["languages"]),
        "benchmarks": _benchmarks(checks["benchmarks"]),
        "inline": dataset["provenance"] == "inline",
        "keep_texts": checks["near_duplicates"] == "drop",
    }


def _benchmarks(paths: list[str]):
    if not paths:
        return None
    from data_prep.filters.decontaminate import Benchmarks

    return Benchmarks.load({Path(path).name: Path(path) for path in paths})


# Names that publishers give to the files of an evaluation split.
_EVALUATION = re.compile(r"(?:^|[-_./])(?:test|validation|valid|val|dev|eval)(?:[-_.]|$)", re.IGNORECASE)


def _official(source: Source, policy: str) -> None:
    """Raise UserInputError (D16) if a file of the hub is an official evaluation split by its name."""
    for name in source.hub["files"]:
        if policy != "keep" and _EVALUATION.search(name):
            message = f"{source.hub['dataset']}: {name} is an official evaluation split by its name"
            raise UserInputError(Problem("D16", f"sources.{source.name}.hub", message, RULES["D16"].fix))


def _paths(source: Source, cache_dir: Path) -> list[Path]:
    """The local files of a source; those of the hub are fetched. UserInputError if one is missing."""
    if source.hub:
        from data_prep.hub import fetch

        hub = source.hub
        return [
            fetch(hub["dataset"], hub["revision"], name, sha256, cache_dir / "hub")
            for name, sha256 in hub["files"].items()
        ]
    for path in source.paths:
        if not path.is_file():
            fix = f"check sources.{source.name}.path; it is relative to the working directory"
            raise refuse(path, None, "there is no such file", fix=fix)
    return list(source.paths)


def _schema(kind: str, source: Source, path: Path) -> Schema:
    if source.schema == "auto":
        first = next(read_rows(path), None)
        if first is None:
            raise refuse(path, None, "is empty", "D14")
        return detect(kind, first[1], path)
    found = next((s for s in all_schemas() if s.name == source.schema), None)
    if found is None or kind not in found.kinds:
        known = ", ".join(s.name for s in all_schemas() if kind in s.kinds)
        message = f"is {source.schema!r}, no schema that gives {kind} rows"
        raise UserInputError(Problem("D2", f"sources.{source.name}.schema", message, f"use auto or one of {known}"))
    return found


def _pinned(dataset: Dataset, files: list[_File]) -> None:
    for file in files:
        source = dataset.sources[file.source]
        if source.sha256 and source.sha256 != file.sha256:
            message = f"{file.path} has the SHA-256 {file.sha256}, the config pins {source.sha256}"
            fix = "fetch the pinned file again, or change the pin after looking at what is new"
            raise UserInputError(Problem("", f"sources.{source.name}.sha256", message, fix))


# -- rows chosen -------------------------------------------------------------------------------------


def _choose(catalog: Catalog, dataset: Dataset, workers: int, say: Say) -> dict:
    checks, facts = dataset["checks"], {}
    select.refuse(catalog, dataset)
    if dataset.kind in PAIRED:
        facts["comparisons"] = select.conflicts(catalog, checks["conflicts"])
    for other in checks["disjoint_from"]:
        select.disjoint(catalog, Path(other))
    if checks["duplicates"] != "keep":
        select.duplicates(catalog, checks["duplicates"])
    if checks["near_duplicates"] == "drop":
        say("comparing prompts")
        select.near_duplicates(catalog, checks["near_threshold"], min(2, workers))
    facts |= _rewards(catalog, dataset)
    select.take(catalog, dataset)
    select.split(catalog, dataset)
    if checks["benchmarks"]:
        from data_prep.filters.decontaminate import PARAPHRASES_NOTE

        facts["decontamination"] = PARAPHRASES_NOTE
    return facts


def _rewards(catalog: Catalog, dataset: Dataset) -> dict:
    """Rules about the rewards of all pairs together (D9, D13, D29). Returns whose they are, for the books."""
    if dataset["makes"] != "preference" or dataset["rewards.from"] == "none":
        return {}
    rows, rewarded, low, high = catalog.all(
        "SELECT count(*), count(reward), min(reward - reward2), max(reward - reward2) FROM rows WHERE bucket IS NULL"
    ).fetchone()
    if 0 < rewarded < rows:
        fix = "give rewards in all sources, or leave them out with rewards.from=none (DPO, IPO)"
        message = f"{rewarded} of {rows} pairs have rewards: the trainer would fill in 1.0 and 0.0 for the others"
        raise UserInputError(Problem("D9", f"{dataset.name}: rewards.from", message, fix))
    if rewarded > 1 and low == high and dataset["rewards.from"] == "source":
        message = f"all {rewarded} pairs have the same reward gap of {low:g}"
        fix = "score the pairs with a reward model, or leave rewards out with rewards.from=none (DPO, IPO)"
        raise UserInputError(Problem("D13", f"{dataset.name}: rewards.from", message, fix))
    sql = "SELECT DISTINCT source.name, judge FROM rows JOIN source ON source.id = source WHERE bucket IS NULL"
    judges = list(catalog.all(sql)) if rewarded and dataset["rewards.from"] == "source" else []
    if len({judge for _, judge in judges}) > 1:
        named = ", ".join(f"{name}: {judge[:12] or 'nobody named'}" for name, judge in sorted(judges))
        message = f"have different judges: {named}"
        raise UserInputError(Problem("D29", f"{dataset.name}: sources", message, RULES["D29"].fix))
    return {"reward_model": judges[0][1]} if judges and judges[0][1] else {}


# -- files out ---------------------------------------------------------------------------------------


def _write(catalog: Catalog, dataset: Dataset, folder: Path, books: dict) -> dict[str, dict]:
    from data_prep import card
    from recipes.pipeline.artifacts import config_text

    outputs = output.write_rows(catalog, dataset, folder)
    if dataset["makes"] == "packed_sft":
        packs, books["packing"] = output.write_packs(dataset, folder)
        outputs |= packs
    outputs[output.CONFIG] = output.write_bytes(folder / output.CONFIG, config_text(dataset.cfg).encode())
    outputs[output.LEDGER] = output.write_json(folder / output.LEDGER, books)
    outputs[output.CARD] = card.write(folder, catalog.db, dataset, books)
    return outputs


def _manifest(dataset: Dataset, folder: Path, files: list[_File], outputs: dict) -> None:
    from recipes.pipeline.artifacts import package_versions

    template = Template.load(dataset["template"])
    inputs = [
        {
            "source": dataset.sources[f.source].name,
            "path": str(f.path),
            "bytes": f.path.stat().st_size,
            "sha256": f.sha256,
        }
        for f in files
    ]
    outputs[output.ROWS] = {"sha256": file_sha256(folder / output.ROWS), "bytes": (folder / output.ROWS).stat().st_size}
    content = {
        "format": 1,
        "name": dataset.name,
        "makes": dataset["makes"],
        "inputs": inputs,
        "template": {"name": template.name, "sha256": template.sha256},
        "tokenizer_sha256": file_sha256(dataset.tokenizer) if dataset.tokenizer else None,
        "outputs": outputs,
        "versions": package_versions(),
    }
    output.write_json(folder / output.MANIFEST, content)


__all__ = ["Dataset", "build"]
