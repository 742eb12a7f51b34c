"""The page: what the catalog, the ledger and the config of a data set say, put through card.html.j2."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from data_prep.card import charts, counts, parts
from data_prep.card.samples import samples
from data_prep.card.text import correlation, share, visible
from data_prep.sources import PAIRED
from data_prep.template import Template
from data_prep.tokens import Tokenizer
from recipes.errors import UserInputError
from recipes.report import svg
from recipes.report.numbers import fmt, size

HERE = Path(__file__).parent
MAKES = {
    "sft": "conversations for supervised fine-tuning",
    "packed_sft": "conversations for supervised fine-tuning, packed into rows of one length",
    "preference": "preference pairs for DPO and RPO",
    "reward": "rated responses for a regression reward model",
    "binary_reward": "comparisons for a Bradley-Terry reward model",
}


@dataclass(frozen=True)
class Built:
    """A data set whose files are all there but the card and perhaps the manifest.

    manifest: None during the build, when template and tokenizer are those that it used.
    """

    folder: Path
    db: sqlite3.Connection
    name: str
    cfg: dict
    books: dict
    manifest: dict | None = None

    @cached_property
    def template(self) -> Template | None:
        """None if it is not the one the rows were rendered with any more."""
        try:
            template = Template.load(self.cfg["template"])
        except UserInputError:
            return None
        return template if self.manifest is None or template.sha256 == self.manifest["template"]["sha256"] else None

    @property
    def template_sha256(self) -> str:
        return self.manifest["template"]["sha256"] if self.manifest else self.template.sha256

    @cached_property
    def tokenizer_sha256(self) -> str | None:
        return self.manifest["tokenizer_sha256"] if self.manifest else self._tokenizer_file_sha256()

    def _tokenizer_file_sha256(self) -> str | None:
        from data_prep.jsonl import file_sha256

        path = self.cfg["inputs"].get("tokenizer")
        return file_sha256(path) if path and Path(path).is_file() else None

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """None where there is none, or where the file is gone or another one."""
        if self.tokenizer_sha256 is None or self._tokenizer_file_sha256() != self.tokenizer_sha256:
            return None
        return Tokenizer.open(self.cfg["inputs"]["tokenizer"])


def html(built: Built) -> str:
    """The page of a built data set."""
    return render(HERE / "card.html.j2", **context(built))


def render(template: Path, **values) -> str:
    """A card's page. Everything from data is made visible and escaped; charts and samples are of escaped parts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: visible(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters.update(fmt=fmt, share=share, size=size, correlation=correlation)
    styles = [Path(svg.__file__).with_name("report.css"), HERE / "card.css"]
    css = Markup("".join(path.read_text(encoding="utf-8") for path in styles))
    return environment.get_template(template.name).render(css=css, **values)


def context(built: Built) -> dict:
    """All values of the template."""
    found = built.db.execute("SELECT id, name, schema FROM source")
    sources = {name: {"id": i, "schema": schema} for i, name, schema in found}
    with counts.narrow(built.db) as db:
        rows = counts.rows(db)
        blend = parts.blend(built, rows.by_source, sources)
        responses = [counts.spreads(db, "c")]
        if built.cfg["makes"] in PAIRED:
            responses.append(counts.spreads(db, "r", "r IS NOT NULL"))
        lengths = _lengths(db, built, rows.turns, responses)
        judged = _judged(db, built, responses) if built.cfg["makes"] in PAIRED else None
        rated = _rated(db) if built.cfg["makes"] == "reward" else None
    files = parts.files(built)
    return {
        "built": built,
        "headline": _headline(built, rows, files),
        "blend": blend,
        "ledger": parts.ledger(built),
        "families": parts.FAMILY_NAMES,
        "lengths": lengths,
        "judged": judged,
        "rated": rated,
        "samples": samples(built),
        "licences": parts.licences(blend["entries"]),
        "benchmarks": _benchmarks(built),
        "files": files,
    }


def _headline(built: Built, rows: counts.Rows, files: list[dict]) -> dict:
    tokens = [entry["tokens"] for entry in built.books["blend"]]
    return {
        "makes": MAKES[built.cfg["makes"]],
        **{split: rows.total(split) for split in counts.SPLITS},
        "tokens": None if None in tokens else sum(tokens),
        "human": built.books["human"],
        "pinned": sum(bool(f["pin"]) for f in files),
        "files": len(files),
    }


def _benchmarks(built: Built) -> dict | None:
    used = built.cfg["checks"]["benchmarks"]
    if not used:
        return None
    found = built.books["buckets"].get("contaminated", 0)
    return {"names": [Path(path).name for path in used], "rows": found, "note": built.books.get("decontamination", "")}


# -- figures


def _lengths(db: sqlite3.Connection, built: Built, turns: list[counts.Spread], responses: list) -> list[dict]:
    """Histograms of rows, prompts, responses and turns."""
    found = []
    if built.cfg["inputs"].get("tokenizer"):
        found.append(_tokens(counts.spreads(db, "k", "k > 0"), built))
    found.append(_figure("Prompt", counts.spreads(db, "p"), "characters"))
    response = [sum(spreads[1:], spreads[0]) for spreads in zip(*responses)]
    found.append(_figure("Response", response, "characters"))
    found.append(_figure("Turns", turns, "turns"))
    return [figure for figure in found if figure]


def _figure(title: str, both: list, unit: str, scale: tuple[int, int] | None = None) -> dict | None:
    return charts.histogram(title, list(zip(counts.SPLITS, ("train", "val"), both)), unit, scale)


def _tokens(both: list, built: Built) -> dict | None:
    pair = built.cfg["makes"] in PAIRED
    figure = _figure("Whole row, longer of the pair" if pair else "Whole row", both, "tokens")
    if figure and built.cfg["lengths"] == "bound":
        figure["note"] += " Rows that fit whatever their tokens are were not counted."
    return figure


def _judged(db: sqlite3.Connection, built: Built, responses: list[list[counts.Spread]]) -> dict | None:
    """Of comparisons: reward gaps, and whether length decides."""
    found = counts.pairs(db, *(train + validation for train, validation in responses))
    if found is None:
        return None
    figures, gaps = [], found.gaps
    if gaps:
        note = f"median {fmt(gaps.median)}, mean {fmt(gaps.mean)}."
        figures.append(charts.gap_histogram("Reward gap, chosen − rejected", gaps.bins, gaps.width, "reward", note))
    length = [("pairs", "metric", found.differences)]
    figures.append(charts.histogram("Length, chosen − rejected", length, "characters"))
    return {"pairs": found, "figures": figures, "comparisons": built.books.get("comparisons")}


def _rated(db: sqlite3.Connection) -> dict:
    found = counts.ratings(db)
    names = list(found.values)
    return {
        "names": names,
        "figures": [_figure(name.capitalize(), both, "rating", (0, 4)) for name, both in found.values.items()],
        "table": [(a, [found.correlations.get((a, b)) for b in names]) for a in names],
    }
