"""What each `align data` command does: `function(args) -> exit code`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from recipes.errors import EXIT_DONE, EXIT_FAILED
from recipes.printing import cell, first_sentence, print_problems, print_rows

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nemotron-align"


def ls(args) -> int:
    from recipes.pipeline.config import CONFIGS
    from recipes.pipeline.layers import read

    rows = []
    for path in sorted((CONFIGS / "data").glob("*.yaml")):
        given = read(path).data
        rows.append(
            {
                "data set": path.stem,
                "makes": given.get("makes"),
                "sources": len(given.get("sources", {})),
                "summary": first_sentence(path, 200 if args.json else 80),
            }
        )
    print_rows(rows, ("data set", "makes", "sources", "summary"), args.json)
    return EXIT_DONE


def schemas(args) -> int:
    """Every layout of rows that is read."""
    from data_prep.sources import all_schemas

    rows = [
        {"schema": s.name, "gives": list(s.kinds), "human": s.human, "licence": s.licence or None, "fields": s.fields}
        for s in all_schemas()
    ]
    print_rows(rows, ("schema", "gives", "licence", "fields"), args.json)
    return EXIT_DONE


def show(args) -> int:
    from recipes.pipeline.artifacts import config_text

    cfg = _compose(args).cfg
    print(json.dumps(cfg, indent=1, ensure_ascii=False) if args.json else config_text(cfg).rstrip())
    return EXIT_DONE


def build(args) -> int:
    from data_prep.build import Dataset
    from data_prep.build import build as build_dataset

    stage = _compose(args)
    dataset = Dataset.of(stage.cfg, stage.name)
    target = args.out or Path("datasets") / stage.name
    workers = args.workers or min(os.cpu_count() or 1, 8)
    books = build_dataset(dataset, target, args.cache, workers, lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(books, indent=1, ensure_ascii=False))
    else:
        _print_books(books, target)
    return EXIT_DONE


def _print_books(books: dict, target: Path) -> None:
    print_rows(
        [{"bucket": bucket, "rows": count} for bucket, count in books["buckets"].items()], ("bucket", "rows"), False
    )
    print()
    rows = [
        {**entry, "asked": ", ".join(f"{k}={cell(v)}" for k, v in entry["asked"].items()) or "all"}
        for entry in books["blend"]
    ]
    columns = ("source", "asked", "rows", "share_of_blend", "share_of_source", "most_copies", "tokens", "licence")
    print_rows(rows, columns, False)
    human = books["human"]
    asked = "" if human["asked"] is None else f" (asked for {human['asked']:.2%})"
    print(f"\nhuman rows {human['rows']}, {human['share']:.2%} of the blend{asked}")
    if "comparisons" in books:
        twice, opposite = books["comparisons"].values()
        print(f"comparisons judged more than once {twice}, with opposite labels {opposite}")
    if "decontamination" in books:
        print(books["decontamination"])
    print(f"{books['rows_read']} rows read, each in one bucket; card {(target / 'card.html').resolve()}")


def inspect(args) -> int:
    from data_prep.build import inspect as look

    if args.bucket is None:
        print_rows(look.buckets(args.dataset), ("source", "bucket", "rule", "rows"), args.json)
        return EXIT_DONE
    found = look.rows(args.dataset, args.bucket, args.source, args.rows)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return EXIT_DONE
    for entry in found:
        print(f"{entry['source']}  {entry['file']}:{entry['line']}" + (f"  {entry['why']}" if entry["why"] else ""))
        text = (
            json.dumps(entry["row"], ensure_ascii=False) if entry["row"] else "the source file is gone or was changed"
        )
        print(f"    {text if args.full else text[:400]}")
    return EXIT_DONE


def card(args) -> int:
    from data_prep.card import rewrite

    print(rewrite(args.dataset).resolve())
    return EXIT_DONE


def verify(args) -> int:
    from data_prep.build.inspect import verify as verify_dataset

    problems = verify_dataset(args.dataset)
    print_problems(problems, args.json)
    if not args.json:
        print(f"{len(problems)} problems" if problems else "every file is as its manifest says")
    return EXIT_FAILED if problems else EXIT_DONE


def agreement(args) -> int:
    from data_prep.agreement import describe, of_file

    found = of_file(args.file)
    print(json.dumps(found, indent=1) if args.json else "\n".join(describe(found)))
    return EXIT_DONE


def _compose(args):
    from recipes.pipeline.datasets import compose_dataset

    return compose_dataset(args.config, args.overrides)
