"""The data of the run as the stages' facts tell it: rows, ledger buckets, human and synthetic share."""

from __future__ import annotations

from collections.abc import Iterator

from recipes.report.load import Run, Stage
from recipes.report.numbers import number, percent

LEDGER_KEYS = ("counts", "buckets", "ledger")
KEPT = "kept"
CARD = "card.html"


def datasets(run: Run) -> list[dict]:
    """One line for every ledger in the facts: a ledger says for each row that was read in which bucket it ended.

    Files that a stage wrote (facts.rows: file -> rows) have a line too, without a ledger.
    """
    return [
        line
        for stage in run.stages.values()
        for line in (*_written(stage), *_lines(stage.name, stage.kind, stage.facts))
    ]


def _written(stage: Stage) -> Iterator[dict]:
    rows = stage.facts.get("rows")
    for name, count in (rows if _is_ledger(rows) else {"rows": rows} if number(rows) is not None else {}).items():
        yield {
            "stage": stage.name,
            "kind": stage.kind,
            "name": name,
            "read": None,
            "kept": int(count),
            "share": None,
            "dropped": {},
            "human": None,
            "human_share": None,
            "max_tokens": None,
            "sha256": None,
        }


def cards(run: Run) -> list[tuple[str, str]]:
    """(stage, link from the report) of every card that a stage drew of its data."""
    made = [s for s in run.stages.values() if (s.path / "outputs" / CARD).is_file()]
    return [(s.name, f"../{s.path.name}/outputs/{CARD}") for s in made]


def notes(run: Run) -> list[str]:
    """What stages say in words about human and synthetic data."""
    return [
        f"{s.name}: {text}"
        for s in run.stages.values()
        for k, text in s.facts.items()
        if "human" in k and isinstance(text, str)
    ]


def _lines(stage: str, kind: str, facts: dict) -> Iterator[dict]:
    for name, entry, counts in _ledgers(facts):
        read = sum(counts.values())
        kept = counts.get(KEPT, _count(entry, "rows"))
        dropped = {k: int(v) for k, v in counts.items() if k != KEPT and v}
        human = _count(entry, "human_rows", "human")
        yield {
            "stage": stage,
            "kind": kind,
            "name": name.removeprefix("data.") or "data",
            "read": int(read),
            "kept": None if kept is None else int(kept),
            "share": kept / read if kept is not None and read else None,
            "dropped": dropped,
            "human": None if human is None or not kept else percent(human / kept),
            "human_share": None if human is None or not kept else human / kept,
            "max_tokens": _count(entry, "max_tokens"),
            "sha256": entry.get("sha256"),
        }


def _ledgers(value: object, name: str = "") -> Iterator[tuple[str, dict, dict[str, float]]]:
    """(dotted name, the dict it stands in, bucket -> rows) of every ledger within nested facts."""
    if not isinstance(value, dict):
        return
    key = next((k for k in LEDGER_KEYS if _is_ledger(value.get(k))), None)
    if key:
        yield name, value, {str(k): float(v) for k, v in value[key].items()}
    if _is_ledger_of_makers(value.get("counts")):
        for maker, book in value["counts"].items():
            yield maker, {}, {KEPT if k == "made" else str(k): float(v) for k, v in book.items() if k != "asked"}
    for k, v in value.items():
        if k != key:
            yield from _ledgers(v, f"{name}.{k}" if name else str(k))


def _is_ledger(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value.values())
    )


def _is_ledger_of_makers(value: object) -> bool:
    """{maker: {"asked": rows planned, bucket: rows, ...}} of a stage of kind prompts."""
    return isinstance(value, dict) and bool(value) and all(_is_ledger(v) and "asked" in v for v in value.values())


def _count(entry: dict, *keys: str) -> float | None:
    return next((n for k in keys if (n := number(entry.get(k))) is not None), None)


def total_human(lines: list[dict]) -> str | None:
    """Human rows among the kept rows of the training sets that say so, as text; None if none does."""
    told = [line for line in lines if line["human_share"] is not None and "validation" not in line["name"]]
    kept = sum(line["kept"] for line in told)
    if not kept:
        return None
    human = sum(line["human_share"] * line["kept"] for line in told)
    share = f"{round(human):,} of {kept:,} kept rows are human-written ({percent(human / kept)})"
    return f"{share}, over the {len(told)} training sets that say so"
