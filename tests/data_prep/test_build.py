"""A built data set, over random small sources: the books sum, nothing leaks, the bytes depend on the rows alone; and
what a killed, failed or repeated build leaves behind."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build import Dataset, build, ingest
from data_prep.build import inspect as look
from data_prep.template import Template
from recipes.errors import StageFailed, UserInputError

REPO = Path(__file__).parents[2]
BASE = yaml.safe_load((REPO / "configs/stage/data.yaml").read_text())


def config(makes: str, sources: dict, **groups) -> dict:
    cfg = BASE | {"makes": makes, "sources": sources, "inputs": {}}
    return cfg | {key: {**cfg[key], **value} if isinstance(value, dict) else value for key, value in groups.items()}


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder: Path, split: str = "train") -> list[dict]:
    path = folder / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def pair(prompt: str, chosen: str, rejected: str, better: float = 2.0, worse: float = 1.0, **more) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "chosen_reward": better,
            "rejected_reward": worse, **more}  # fmt: skip


def talk(*texts: str, system: str = "", **more) -> dict:
    turns = [{"role": role, "content": text} for role, text in zip(itertools.cycle(("user", "assistant")), texts)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + turns, **more}


def make(
    folder: Path, makes: str, rows: list[dict] | dict[str, list[dict]], out: str = "d", workers=1, **groups
) -> dict:
    """Build folder/out from rows of one source, or of sources by name; a source's settings stand in `settings`."""
    given = groups.pop("settings", {})
    named = rows if isinstance(rows, dict) else {"s": rows}
    sources = {
        name: {"path": write(folder / f"{name}.jsonl", some), **given.get(name, {})} for name, some in named.items()
    }
    dataset = Dataset.of(config(makes, sources, **groups), out)
    return build(dataset, folder / out, folder / "cache", workers)


# -- properties over random sources


SMALL, ANSWER = st.integers(0, 9), st.sampled_from(["a", "b", "c", " "])
HUMAN = st.booleans()
PAIRS = st.builds(
    lambda q, a, b, up, down, human: pair(f"Question {q}", a, b, float(up), float(down), human=human),
    SMALL, ANSWER, ANSWER, st.integers(1, 3), st.integers(0, 1), HUMAN,
)  # fmt: skip
TALKS = st.builds(
    lambda q, a, long, human: talk(f"Question {q}", a + " b a" * long, human=human),
    SMALL, ANSWER, st.sampled_from([0, 0, 0, 80]), HUMAN,
)  # fmt: skip
SHARES = [{"share_of_blend": 0.5}, {"share_of_blend": 0.5}]
AMOUNTS = st.sampled_from([{}, {"rows": 2}, {"share_of_source": 0.5}, {"share_of_source": 1.0}])


@st.composite
def recipes(draw) -> tuple[str, dict, dict]:
    """(what it makes, rows of each source, groups of settings)."""
    makes = draw(st.sampled_from(["sft", "preference"]))
    row = {"sft": TALKS, "preference": PAIRS}[makes]
    sources = {}
    for i in range(draw(st.integers(1, 3))):
        # First rows of its own: one of either kind, and gaps of rewards that differ.
        own = [talk(f"own {i} {k}", "a", human=k) for k in (True, False)]
        if makes == "preference":
            own = [pair(f"own {i} {k}", "a", "b", 9.5 + i + k, human=k) for k in (True, False)]
        sources[f"s{i}"] = [*own, *draw(st.lists(row, max_size=60))]
    given = {name: draw(AMOUNTS) | {"up_sample": draw(st.integers(1, 3))} for name in sources}
    if len(sources) == 2 and draw(st.booleans()):
        given = {name: share | {"up_sample": 2} for name, share in zip(sources, SHARES)}
    human = draw(st.sampled_from([None, None, 0.25, 0.5]))
    groups = {
        "settings": given,
        "seed": draw(st.integers(0, 3)),
        "blend": {"tolerance": 1.0, "human_share": human},
        "validation": {"rows": draw(st.sampled_from([0, 1, 3]))},
        "checks": {
            "duplicates": draw(st.sampled_from(["row", "row", "prompt", "keep"])),
            "conflicts": draw(st.sampled_from(["drop", "majority", "keep"])),
        },
    }
    return makes, sources, groups


def attempt(folder: Path, makes: str, sources: dict, groups: dict, **more) -> dict | None:
    """The ledger, or None where the blend is impossible; then nothing may be there."""
    before = sorted(p.name for p in folder.iterdir() if "." not in p.name or p.name.startswith("."))
    try:
        return make(folder, makes, sources, **{**groups, **more})
    except UserInputError as error:
        assert all(p.fix for p in error.problems)
        now = {p.name for p in folder.iterdir() if "." not in p.name or p.name.startswith(".")}
        assert now <= {*before, "cache"} and not list((folder / "cache").rglob(".part-*"))
        return None


def key_of(row: dict) -> tuple:
    """Prompt and responses of a trainer's row."""
    if "conversations" in row:
        return tuple(turn["value"] for turn in row["conversations"])
    return row["prompt"], *sorted((row["chosen_response"], row["rejected_response"]))


def group_of(row: dict) -> str:
    text = (
        row["conversations"][0]["value"] if "conversations" in row else row["prompt"].split("User\n")[1].split("\n")[0]
    )
    return " ".join(text.lower().split())


@settings(max_examples=35, deadline=None)
@given(recipes())
def test_the_books_sum_and_nothing_leaks(tokenizer, recipe):
    makes, sources, groups = recipe
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extra = {"inputs": {"tokenizer": str(tokenizer)}, "max_length": 64} if makes == "sft" else {}
        books = attempt(folder, makes, sources, groups, **extra)
        if books is None:
            return
        out = folder / "d"
        assert look.verify(out) == []
        # Every row that entered has one bucket; every usable copy is a line.
        assert {n: e["rows_read"] for n, e in books["sources"].items()} == {n: len(r) for n, r in sources.items()}
        for entry in books["sources"].values():
            assert sum(entry["buckets"].values()) == entry["rows_read"]
        with sqlite3.connect(out / "rows.sqlite") as db:
            assert not db.execute("SELECT count(*) FROM rows WHERE (bucket IS NULL) = (split IS NULL)").fetchone()[0]
            assert not db.execute("SELECT count(*) FROM rows WHERE split IS NULL AND copies <> 0").fetchone()[0]
            lines = dict(db.execute("SELECT split, sum(copies) FROM rows WHERE split IS NOT NULL GROUP BY split"))
        train, validation = read(out), read(out, "validation")
        assert (len(train), len(validation)) == (lines["train"], lines.get("validation", 0))
        assert len(train) + len(validation) == sum(entry["rows"] for entry in books["blend"])
        assert len(validation) == groups["validation"]["rows"] == books["buckets"].get("validation", 0)
        counts = Counter(row["source"] for row in train + validation)
        assert {e["source"]: e["rows"] for e in books["blend"]} == {name: counts.get(name, 0) for name in sources}
        human = sum(row["human"] for row in train + validation)
        assert books["human"]["rows"] == human
        # No prompt on both sides; no copy where copies are not asked for.
        assert not set(map(group_of, train)) & set(map(group_of, validation))
        up = {name: given["up_sample"] for name, given in groups["settings"].items()}
        if groups["checks"]["duplicates"] != "keep":
            texts = Counter(map(json.dumps, train))
            assert all(n <= up[json.loads(text)["source"]] for text, n in texts.items())
            assert len(set(map(json.dumps, validation))) == len(validation)
            first = {}  # content -> the one source that may have it
            for row in train + validation:
                assert first.setdefault(key_of(row), row["source"]) == row["source"]


@settings(max_examples=9, deadline=None)
@given(recipes(), st.randoms(use_true_random=False), st.sampled_from(["inline", "beside"]))
def test_the_bytes_depend_on_the_rows_alone(recipe, rng, provenance):
    """Not on workers, on the order within a source, on how it is cut into parts and files, or on the cache."""
    makes, sources, groups = recipe
    groups = groups | {"provenance": provenance}
    shuffled = {name: rng.sample(rows, len(rows)) for name, rows in sources.items()}
    size = ingest.PART_BYTES
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("one", "two", "three")]
        for folder in folders:
            folder.mkdir()
        first = attempt(folders[0], makes, sources, groups)
        try:
            ingest.PART_BYTES = 700
            second = attempt(folders[1], makes, shuffled, groups, workers=2)
            warm = attempt(folders[1], makes, shuffled, groups, workers=2)
        finally:
            ingest.PART_BYTES = size
        third = attempt(folders[2], makes, shuffled, groups)
        assert (first is None) == (second is None) == (third is None)
        if first is not None:
            assert len({look.digest(folder / "d") for folder in folders}) == 1 or provenance == "beside"
            for split in ("train.jsonl", "validation.jsonl"):
                texts = {(folder / "d" / split).read_bytes() for folder in folders if (folder / "d" / split).exists()}
                assert len(texts) <= 1
            assert first["buckets"] == second["buckets"] == warm["buckets"] == third["buckets"]


def test_copies_that_differ_only_in_who_wrote_them(tmp_path):
    """Beside the rows, `human` is not in their bytes: which copy stays must not hang on the order of lines."""
    rows = [talk("q", "a", human=True), talk("q", "a", human=False), talk("r", "a", human=True)]
    rows += [talk(f"s{i}", "a", human=False) for i in range(5)]
    for duplicates, size in (("row", None), ("keep", 9)):  # 9 of 8 rows: one of them twice
        found = set()
        for some in (rows, rows[::-1]):
            blend = {"human_share": 0.25, "tolerance": 1.0, "rows": size}
            books = make(tmp_path, "sft", some, settings={"s": {"up_sample": 2}}, blend=blend,
                         provenance="beside", checks={"duplicates": duplicates})  # fmt: skip
            found.add(((tmp_path / "d" / "train.jsonl").read_bytes(), books["human"]["rows"]))
        assert len(found) == 1


def test_lines_of_a_file_that_was_read_in_parts(tmp_path, monkeypatch):
    """Numbers of rows and of errors are those of the file, wherever it was cut."""
    rows = [talk(f"q{i}", " " if i % 7 == 3 else "a" * (i % 90 + 1)) for i in range(60)]
    for size in (50, 64, 333, 1000):
        monkeypatch.setattr(ingest, "PART_BYTES", size)
        books = make(tmp_path, "sft", rows)
        empty = [i + 1 for i in range(60) if i % 7 == 3]
        assert books["buckets"] == {"empty_text": len(empty), "train": 60 - len(empty)}
        assert [entry["line"] for entry in look.rows(tmp_path / "d", "empty_text", limit=99)] == empty
    data = (tmp_path / "s.jsonl").read_bytes().splitlines(keepends=True)
    for bad in (0, 17, 42, 59):
        (tmp_path / "s.jsonl").write_bytes(b"".join([*data[:bad], data[bad][:-9] + b"\n", *data[bad + 1 :]]))
        with pytest.raises(UserInputError) as caught:
            build(Dataset.of(config("sft", {"s": {"path": str(tmp_path / "s.jsonl"), "schema": "messages"}}), "d"),
                  tmp_path / "d", tmp_path / "cache", 2)  # fmt: skip
        assert caught.value.problems[0].where == f"{tmp_path}/s.jsonl:{bad + 1}"


# -- the cache


def test_a_changed_byte_is_read_again_and_nothing_else_is(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(ingest, "_make", lambda job, make=ingest._make: (made.append(job.part.path.name), make(job)))
    sources = {"a": [talk("question", "x")], "b": [talk("other", "y")]}
    make(tmp_path, "sft", sources)
    assert sorted(made) == ["a.jsonl", "b.jsonl"]
    path, b = tmp_path / "a.jsonl", {"path": str(tmp_path / "b.jsonl")}
    before = path.stat()
    path.write_text(path.read_text().replace('"x"', '"z"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    made.clear()
    build(Dataset.of(config("sft", {"a": {"path": str(path)}, "b": b}), "d"), tmp_path / "d", tmp_path / "cache")
    assert made == ["a.jsonl"]
    assert {row["conversations"][1]["value"] for row in read(tmp_path / "d")} == {"z", "y"}


# -- what is left behind


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


IMPOSSIBLE = {
    "blend": {"settings": {"s": {"rows": 10}}},
    "validation": {"validation": {"rows": 9}},
    "row": {"checks": {"bad_rows": "refuse"}},
}


@pytest.mark.parametrize("groups", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_failed_build_leaves_the_old_data_set(tmp_path, groups):
    (tmp_path / "sets").mkdir()
    rows = [talk("a", "x"), talk("b", " "), talk("c", "y")]
    make(tmp_path, "sft", rows, out="sets/d")
    before = snapshot(tmp_path / "sets")
    with pytest.raises(UserInputError):
        make(tmp_path, "sft", rows, out="sets/d", **groups)
    assert snapshot(tmp_path / "sets") == before and os.listdir(tmp_path / "sets") == ["d"]


@pytest.mark.parametrize("there", ["folder", "run", "file"])
def test_what_no_build_has_written_is_not_replaced(tmp_path, there):
    target = tmp_path / "d"
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / ("manifest.json" if there == "run" else "notes.txt")).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UserInputError, match="no built data set"):
        make(tmp_path, "sft", [talk("q", "a")])
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before and set(os.listdir(tmp_path)) == {"d", "s.jsonl"}


def test_a_link_to_a_data_set_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "real")
    for text in ("a", "b"):
        make(tmp_path, "sft", [talk("q", text)])
        assert (tmp_path / "d").is_symlink() and read(tmp_path / "real")[0]["conversations"][1]["value"] == text
    assert sorted(os.listdir(tmp_path)) == ["cache", "d", "real", "s.jsonl"]


DAMAGE = {
    "short": lambda data: data[:-5],
    "changed": lambda data: data.replace(b"aaa", b"aba", 1),
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_not_built_from(tmp_path, damage):
    rows = [talk(f"q{i}", "aaa") for i in range(5)]
    make(tmp_path, "sft", rows)
    before = snapshot(tmp_path / "d")
    [shard] = (tmp_path / "cache" / "shards").iterdir()
    (shard / "rows.jsonl").write_bytes(damage((shard / "rows.jsonl").read_bytes()))
    with pytest.raises(StageFailed, match="start the build again"):
        make(tmp_path, "sft", rows)
    assert snapshot(tmp_path / "d") == before
    make(tmp_path, "sft", rows)
    assert (tmp_path / "d/train.jsonl").read_bytes() == before["train.jsonl"]


def kill_at(step: int, after: bool) -> None:
    """SIGKILL this process before or after the rename of that number."""
    count, rename = itertools.count(1), os.rename

    def counted(*args):
        hit = next(count) == step
        if hit and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*args)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = counted


@pytest.mark.parametrize("step, after", [(1, False), (1, True), (2, False), (2, True)])
def test_killed_while_the_new_data_set_takes_its_name(tmp_path, step, after):
    sets = tmp_path / "sets"
    sets.mkdir()
    rows = [talk(f"q{i}", "a") for i in range(9)]
    digests = []
    for seed in (1, 2):
        make(tmp_path, "sft", rows, out=f"sets/{seed}", seed=seed)
        digests.append(look.digest(sets / f"{seed}"))
    assert digests[0] != digests[1]
    child = os.fork()
    if child == 0:
        try:
            kill_at(step, after)
            make(tmp_path, "sft", rows, out="sets/1", seed=2)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert look.verify(sets / "1") == []
    assert look.digest(sets / "1") == digests[(step, after) == (2, True)]
    assert sorted(n for n in os.listdir(sets) if not n.startswith(".")) == ["1", "2"]
    make(tmp_path, "sft", rows, out="sets/1", seed=2)
    assert look.digest(sets / "1") == digests[1] and look.verify(sets / "1") == []
    assert sorted(os.listdir(sets)) == ["1", "2"]


def test_looking_at_a_data_set_does_not_disturb_a_build_of_it(tmp_path):
    make(tmp_path, "sft", [talk("q", "a")])
    (tmp_path / ".d.new-0000").mkdir()  # as a running build has it
    assert look.verify(tmp_path / "d") == [] and look.buckets(tmp_path / "d")
    assert (tmp_path / ".d.new-0000").is_dir()
    make(tmp_path, "sft", [talk("q", "a")])
    assert not (tmp_path / ".d.new-0000").exists()


def test_ten_kills_at_random_moments(tmp_path):
    rows = [talk(f"question {i}", "an answer " * 20) for i in range(2500)]
    (tmp_path / "sets").mkdir()
    sources = {"s": {"path": write(tmp_path / "s.jsonl", rows)}}
    (tmp_path / "d.yaml").write_text("# One.\n" + yaml.safe_dump({"makes": "sft", "sources": sources}))

    def command(seed: int) -> list[str]:
        paths = ["--out", str(tmp_path / "sets/d"), "--cache", str(tmp_path / "cache"), "--workers", "2"]
        return [sys.executable, "-m", "recipes.cli", "data", "build", str(tmp_path / "d.yaml"), f"seed={seed}", *paths]

    def finish(seed: int) -> tuple[str, float]:
        start = time.monotonic()
        subprocess.run(command(seed), cwd=REPO, check=True, capture_output=True)
        assert look.verify(tmp_path / "sets/d") == []
        return look.digest(tmp_path / "sets/d"), time.monotonic() - start

    (second, _), (first, wall) = finish(2), finish(1)
    assert first != second
    rng = random.Random(0)
    for i in range(10):
        if i == 5:  # from here on the source is not in the cache
            for shard in (tmp_path / "cache" / "shards").iterdir():
                shard.rename(tmp_path / f"old-{shard.name}")
        process = subprocess.Popen(
            command(2), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(rng.uniform(0.2, 1.0) * wall)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert look.verify(tmp_path / "sets/d") == []
        assert look.digest(tmp_path / "sets/d") in (first, second)
        assert [n for n in os.listdir(tmp_path / "sets") if not n.startswith(".")] == ["d"]
    assert finish(2)[0] == second and os.listdir(tmp_path / "sets") == ["d"]


# -- looking at it


def align(*args: object) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "recipes.cli", "data", *map(str, args)], cwd=REPO, text=True,
                          capture_output=True)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_verify_names_the_file_that_was_changed(tmp_path):
    rows = [talk(f"q{i}", "a") for i in range(9)]
    make(tmp_path, "sft", rows, validation={"rows": 2}, provenance="beside")
    out = tmp_path / "d"
    assert align("verify", out)[0] == 0
    names = sorted(p.name for p in out.iterdir() if p.name != "manifest.json")
    assert {"train.jsonl", "validation.meta.jsonl", "rows.sqlite", "ledger.json", "config.yaml"} <= set(names)
    for name in names:
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        assert [p.where for p in look.verify(out)] == [str(out / name)]
        if name == "train.jsonl":
            code, text = align("verify", out)
            assert code == 1 and str(out / name) in text
        (out / name).unlink()
        assert [p.where for p in look.verify(out)] == [str(out / name)]
        (out / name).write_bytes(data)
    (out / "more.txt").write_text("")
    assert [p.where for p in look.verify(out)] == [str(out / "more.txt")]
    (out / "more.txt").unlink()
    write(tmp_path / "s.jsonl", rows[1:])
    assert [p.where for p in look.verify(out)] == [str(tmp_path / "s.jsonl")]


def test_inspect_shows_the_lines_of_a_bucket(tmp_path):
    rows = {
        "one": [talk("a", "x"), talk("b", ""), talk("c", "y")],
        "two": [talk("d", "x"), talk("a", "x"), talk("e", "")],
    }
    make(tmp_path, "sft", rows, provenance="beside")
    out = tmp_path / "d"
    found = look.rows(out, "empty_text")
    assert [(e["source"], Path(e["file"]).name, e["line"]) for e in found] == [
        ("one", "one.jsonl", 2),
        ("two", "two.jsonl", 3),
    ]
    assert [e["row"] for e in found] == [rows["one"][1], rows["two"][2]] and "is empty" in found[0]["why"]
    [copy] = look.rows(out, "duplicate", source="two")
    assert (copy["line"], copy["why"]) == (2, "a copy of one:1")
    assert sorted(e["line"] for e in look.rows(out, "train", "one")) == [1, 3]
    assert len(look.rows(out, "train", limit=1)) == 1
    code, text = align("inspect", out, "empty_text", "--source", "two")
    assert code == 0 and f"{tmp_path}/two.jsonl:3" in text and "one.jsonl" not in text
    with pytest.raises(UserInputError, match="duplicate, empty_text, train"):
        look.rows(out, "empty")
    write(tmp_path / "two.jsonl", rows["two"][::-1])
    assert [e["row"] for e in look.rows(out, "empty_text")] == [rows["one"][1], None]


# -- settings, on rows made by hand

JUDGED = [
    pair("q", "a", "b", 2.0), pair("q", "a", "b", 3.0), pair("q", "b", "a", 4.0),  # two to one
    pair("r", "a", "b", 2.5), pair("r", "b", "a", 3.5), pair("s", "a", "b", 1.5),  # one to one; alone
]  # fmt: skip


@pytest.mark.parametrize(
    "policy, buckets, prompts",
    [
        ("drop", {"conflict": 5, "train": 1}, "s"),
        ("majority", {"conflict": 3, "duplicate": 1, "train": 2}, "qs"),
        ("keep", {"duplicate": 1, "train": 5}, "qqrrs"),
    ],
)
def test_conflicts(tmp_path, policy, buckets, prompts):
    books = make(tmp_path, "preference", JUDGED, checks={"conflicts": policy})
    assert books["buckets"] == buckets
    assert books["comparisons"] == {"judged_more_than_once": 2, "opposite_labels": 2}
    rows = read(tmp_path / "d")
    assert "".join(sorted(group_of(row) for row in rows)) == prompts
    if policy == "majority":
        assert {row["chosen_response"][0] for row in rows} == {"a"}


def rewards(folder: Path) -> list[tuple]:
    return sorted(
        (r["chosen_response"][0], r.get("chosen_reward"), r.get("rejected_reward")) for r in read(folder / "d")
    )


def test_rewards_of_the_source_and_none(tmp_path):
    rows = [pair("q", "a", "b", 2.5, -1.0), pair("r", "c", "d", 0.5, 0.0)]
    make(tmp_path, "preference", rows)
    assert rewards(tmp_path) == [("a", 2.5, -1.0), ("c", 0.5, 0.0)]
    make(tmp_path, "preference", rows, rewards={"from": "none"})
    assert rewards(tmp_path) == [("a", None, None), ("c", None, None)]


def rated(prompt: str, response: str, *values: int) -> dict:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, values))}


def test_rewards_of_attributes(tmp_path):
    """0.3*4 + 0.74*3 + 0.46*4 + 0.47*0 - 0.33*1 = 4.93; 0.3*2 + 0.74*2 + 0.46*3 + 0.47*1 - 0.33*4 = 2.61."""
    rows = [rated("q", "worse", 2, 2, 3, 1, 4), rated("q", "better", 4, 3, 4, 0, 1),
            rated("r", "x", 4, 4, 4, 4, 4), rated("r", "y", 4, 4, 4, 4, 4),
            rated("s", "same", 3, 3, 3, 3, 3), rated("s", "more", 3, 3, 3, 3, 4)]  # fmt: skip
    schema = {"settings": {"s": {"schema": "helpsteer2_pairs"}}}
    books = make(tmp_path, "preference", rows, rewards={"from": "attributes"}, **schema)
    assert books["buckets"]["tie"] == 2 and books["buckets"]["train"] == 2
    found = {
        r["chosen_response"].split("\n")[0]: (r["chosen_reward"], r["rejected_reward"]) for r in read(tmp_path / "d")
    }
    assert found["better"] == pytest.approx((4.93, 2.61)) and found["same"] == pytest.approx((4.92, 4.59))
    make(tmp_path, "preference", rows, rewards={"from": "attributes", "weights": "llama3_70b"}, **schema)
    found = {
        r["chosen_response"].split("\n")[0]: (r["chosen_reward"], r["rejected_reward"]) for r in read(tmp_path / "d")
    }
    # 0.65*4 + 0.8*3 + 0.45*4 + 0.55*0 - 0.4*1 = 6.4; 0.65*2 + 0.8*2 + 0.45*3 + 0.55*1 - 0.4*4 = 3.2
    assert found["better"] == pytest.approx((6.4, 3.2))


def compared(prompt: str, preference: int, **more) -> dict:
    return {"prompt": prompt, "response_1": "first", "response_2": "second", "preference_strength": preference, **more}


def test_rewards_of_strength(tmp_path):
    rows = [compared("q", -3), compared("r", 1), compared("s", 0)]
    books = make(tmp_path, "preference", rows, rewards={"from": "strength"})
    assert rewards(tmp_path) == [("f", 3.0, 0.0), ("s", 1.0, 0.0)] and books["buckets"] == {"tie": 1, "train": 2}
    books = make(tmp_path, "preference", rows, rewards={"from": "strength", "minimum_margin": 1.5})
    assert rewards(tmp_path) == [("f", 3.0, 0.0)] and books["buckets"]["small_margin"] == 1
    with pytest.raises(UserInputError, match="does not say by how much"):
        make(tmp_path, "preference", [pair("q", "a", "b")], rewards={"from": "strength"}, checks={"bad_rows": "refuse"})


def test_ties(tmp_path):
    rows = [pair("q", "a", "b", 1.0, 1.0), pair("r", "c", "d", 2.0, 1.0)]
    assert make(tmp_path, "preference", rows)["buckets"] == {"tie": 1, "train": 1}
    assert make(tmp_path, "preference", rows, checks={"ties": "keep"})["buckets"] == {"train": 2}
    assert rewards(tmp_path) == [("a", 1.0, 1.0), ("c", 2.0, 1.0)]
    # A tie of people names no chosen response: there is nothing to keep.
    books = make(tmp_path, "binary_reward", [compared("q", 0), compared("r", 2)], checks={"ties": "keep"})
    assert books["buckets"] == {"tie": 1, "train": 1}


def test_oldest_turns_are_cut(tmp_path, tokenizer):
    long = "b a " * 20
    fits = talk("reverse b a", "a b", system="be kind")
    cut = talk(long, long, "and " + long, long, "reverse c d", "d c", system="be kind")
    never = talk("q", "a", long * 2, "d c")
    rows, given = [fits, cut, never], {"inputs": {"tokenizer": str(tokenizer)}, "max_length": 64}
    books = make(tmp_path, "sft", rows, checks={"over_length": "cut_oldest_turns"}, **given)
    assert books["buckets"] == {"over_length": 1, "train": 2} and books["cut_rows"] == 1
    kept = {tuple(t["value"] for t in row["conversations"]): row["system"] for row in read(tmp_path / "d")}
    assert kept == {("reverse b a", "a b"): "be kind", ("reverse c d", "d c"): "be kind"}
    assert look.rows(tmp_path / "d", "over_length")[0]["line"] == 3
    assert make(tmp_path, "sft", rows, **given)["buckets"] == {"over_length": 2, "train": 1}
    with pytest.raises(UserInputError) as caught:
        make(tmp_path, "sft", rows, checks={"over_length": "refuse"}, **given)
    assert [(p.rule, p.where.rsplit(":")[-1]) for p in caught.value.problems] == [("D6", "2"), ("D6", "3")]


def test_prompts_of_another_data_set_are_left_out(tmp_path):
    make(tmp_path, "sft", [talk("What is it?", "x"), talk("B", "y")], out="other", validation={"rows": 1})
    rows = [talk("what  IS it? ", "z"), talk("b", "y", "more", "z"), talk("c", "x")]
    books = make(tmp_path, "sft", rows, checks={"disjoint_from": [str(tmp_path / "other")]})
    assert books["buckets"] == {"shared_prompt": 2, "train": 1} and group_of(read(tmp_path / "d")[0]) == "c"
    with pytest.raises(UserInputError, match="no built data set"):
        make(tmp_path, "sft", rows, checks={"disjoint_from": [str(tmp_path / "absent")]})


def test_case_and_white_space_do_not_make_another_prompt(tmp_path):
    rows = [talk(text, "x") for text in ("what is it?", " What  is\nit? ", "WHAT IS IT?\n", "is it?")]
    books = make(tmp_path, "sft", rows, checks={"duplicates": "prompt"})
    assert books["buckets"] == {"duplicate": 2, "train": 2}
    rows = [talk(text, "a", "b", "c", system="s") for text in ("what is it?", "\n what is it? ")]
    assert make(tmp_path, "sft", rows, checks={"duplicates": "prompt"})["buckets"] == {"duplicate": 1, "train": 1}


def test_official_splits(tmp_path):
    rows = [compared("q", -1, split="train"), compared("r", 1, split="val"), compared("s", 2)]
    assert make(tmp_path, "binary_reward", rows)["buckets"] == {"official_split": 1, "train": 2}
    with pytest.raises(UserInputError) as caught:
        make(tmp_path, "binary_reward", rows, checks={"official_splits": "refuse"})
    assert [(p.rule, p.where) for p in caught.value.problems] == [("D16", f"{tmp_path}/s.jsonl:2")]
    books = make(tmp_path, "binary_reward", rows, settings={"s": {"only": {"split": "val"}}})
    assert books["buckets"] == {"not_selected": 2, "train": 1}, "a split that is asked for by name"


def test_only(tmp_path):
    rows = [talk(f"q{i}", "a", kind=kind, n=i) for i, kind in enumerate(["x", "y", "z", None])]
    for only, kept in (({"kind": "x"}, 1), ({"kind": ["x", "z"]}, 2), ({"kind": ["x", "y"], "n": 1}, 1)):
        books = make(tmp_path, "sft", rows, settings={"s": {"only": only}})
        assert books["buckets"] == {"not_selected": 4 - kept, "train": kept}


def test_near_duplicates(tmp_path):
    text = "please write a short story about the small village where all the old clocks run backwards at night"
    rows = [talk(text, "x"), talk(text + " now", "y"), talk(text + " now", "z"), talk("something else entirely", "w")]
    assert make(tmp_path, "sft", rows)["buckets"] == {"train": 4}
    books = make(tmp_path, "sft", rows, checks={"near_duplicates": "drop"})
    # Which of two alike prompts is the earlier one is up to the order by hashes; the rows of a prompt go together.
    assert books["buckets"] in ({"near_duplicate": 2, "train": 2}, {"near_duplicate": 1, "train": 3})
    again = make(tmp_path, "sft", rows[::-1], checks={"near_duplicates": "drop"}, workers=2)
    assert again["buckets"] == books["buckets"]
    sources = {"a": rows[:1], "b": rows[1:]}
    books = make(tmp_path, "sft", sources, checks={"near_duplicates": "drop"})
    assert books["sources"]["b"]["buckets"] == {"near_duplicate": 2, "train": 1}, "the first source wins"


def test_binary_pairs_stay_together(tmp_path):
    """The trainer takes lines 2i and 2i+1 for a pair."""
    rows = [compared(f"q{i}", -1 if i % 2 else 1) for i in range(20)]
    make(tmp_path, "binary_reward", rows, settings={"s": {"up_sample": 2, "rows": 30}})
    lines = read(tmp_path / "d")
    assert len(lines) == 60
    header = Template.load("nemotron").assistant_header
    for chosen, rejected in zip(lines[::2], lines[1::2]):
        (prompt, better), (same, worse) = (line["text"].split(header) for line in (chosen, rejected))
        assert prompt == same and better.split("\n")[0] == ("first" if int(prompt.split("q")[1]) % 2 else "second")
        assert better != worse


def test_a_share_of_human_rows(tmp_path):
    rows = [talk(f"q{i}", "a", human=i < 30) for i in range(50)]
    books = make(tmp_path, "sft", rows, blend={"human_share": 0.5})
    assert books["buckets"] == {"beyond_human_share": 10, "train": 40} and books["human"]["share"] == 0.5
    books = make(tmp_path, "sft", rows, blend={"human_share_cap": 0.2})
    assert books["buckets"] == {"beyond_human_share": 25, "train": 25} and books["human"]["share"] == 0.2


def test_a_share_is_met_to_within_a_row(tmp_path):
    """blend.tolerance is for large blends; half of 33 rows is 16 or 17, and no setting gives another share."""
    rows = [talk(f"q{i}", "a", human=i < 13) for i in range(33)]
    books = make(tmp_path, "sft", rows, settings={"s": {"share_of_source": 0.5}})
    assert books["buckets"] == {"beyond_share": 17, "train": 16}
    thirds = {"a": {"share_of_blend": 0.333333}, "b": {"share_of_blend": 0.666667}}
    books = make(tmp_path, "sft", {"a": rows[:10], "b": rows[10:21]}, settings=thirds)
    assert [entry["rows"] for entry in books["blend"]] == [6, 11]
    assert make(tmp_path, "sft", rows[11:16], blend={"human_share": 0.3})["human"]["share"] == 0.25
    # Further off than a row is refused: the copies that validation does not repeat are missing.
    with pytest.raises(UserInputError, match="share_of_blend"):
        half = {name: {"share_of_blend": 0.5, "up_sample": 9} for name in "ab"}
        make(tmp_path, "sft", {"a": rows[:2], "b": rows[10:28]}, settings=half, validation={"rows": 12})


def test_copies_are_spread_and_validation_has_none(tmp_path):
    rows = [talk(f"q{i}", "a") for i in range(10)]
    books = make(tmp_path, "sft", rows, settings={"s": {"rows": 25, "up_sample": 3}})
    counts = Counter(group_of(row) for row in read(tmp_path / "d"))
    assert sorted(counts.values()) == [2] * 5 + [3] * 5 and books["blend"][0]["most_copies"] == 3
    # The second copies stand elsewhere, not beside the first ones.
    order = [group_of(row) for row in read(tmp_path / "d")]
    assert sum(a == b for a, b in zip(order, order[1:])) < 10


def test_one_build_of_a_target_at_a_time(tmp_path):
    from data_prep.build import output
    from recipes.errors import StageFailed

    with output.new_folder(tmp_path / "a") as first:
        (first / "x").write_text("")
        with pytest.raises(StageFailed, match="another build"), output.new_folder(tmp_path / "a"):
            pass
    assert (tmp_path / "a" / "x").is_file()


def test_rewards_keep_their_judge_and_two_judges_are_not_mixed(tmp_path):
    """What one build wrote, another reads: the judge is still known, and another one's scale is refused (D29)."""
    ours = [pair(f"p{i}", "a", "b", 2.0 + i, reward_model="one") for i in range(4)]
    books = make(tmp_path, "preference", ours, out="ours")
    assert {row["reward_model"] for row in read(tmp_path / "ours")} == {"one"} == {books["reward_model"]}
    other = [pair(f"q{i}", "a", "b", 30.0 + i, reward_model="two") for i in range(4)]
    built = read(tmp_path / "ours")
    more = [pair("new", "a", "b", 9.0, reward_model="one")]
    make(tmp_path, "preference", {"built": built, "more": more}, out="again")
    for strangers in (other, [{**row, "reward_model": None} for row in other]):
        with pytest.raises(UserInputError, match=r"\[D29\].*built: one"):
            make(tmp_path, "preference", {"built": built, "theirs": strangers}, out="mixed")
    make(tmp_path, "preference", {"built": built, "theirs": other}, out="dpo", rewards={"from": "none"})
