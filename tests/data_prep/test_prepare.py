"""prepare: what each kind writes, that every row is counted once, and that output depends on the input alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from data_prep import passes
from data_prep.prepare import prepare, usable_rows
from data_prep.records import LABEL_SLOTS
from data_prep.workers import Workers
from recipes.errors import StageFailed, UserInputError

PAIR = {"prompt": [{"role": "user", "content": "reverse a b"}], "chosen": "b a", "rejected": "a b",
        "chosen_reward": 2.5, "rejected_reward": -1}  # fmt: skip
RATED = {"prompt": "hi", "response": "yo", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 0,
         "verbosity": 1}  # fmt: skip
HEADER = "<extra_id_0>System\n\n<extra_id_1>User\n"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_preference_rows_are_nemos_string_form(tmp_path, template, read):
    done = prepare("preference", write(tmp_path / "p.jsonl", [PAIR]), tmp_path / "data", "train", template, None, 0)
    assert read(done.path) == [
        {"prompt": HEADER + "reverse a b\n<extra_id_1>Assistant\n", "chosen_response": "b a\n<extra_id_1>",
         "rejected_response": "a b\n<extra_id_1>", "chosen_reward": 2.5, "rejected_reward": -1.0}
    ]  # fmt: skip


def test_reward_rows_have_nine_slots_the_first_four_unknown(tmp_path, template, read):
    done = prepare("reward", write(tmp_path / "h.jsonl", [RATED]), tmp_path / "data", "train", template, None, 0)
    row = read(done.path)[0]
    assert row["text"] == HEADER + "hi\n<extra_id_1>Assistant\nyo\n<extra_id_2>"
    assert row["label"] == [-100.0, -100.0, -100.0, -100.0, 4.0, 3.0, 4.0, 0.0, 1.0]
    assert LABEL_SLOTS[4] == "helpfulness"
    assert done.human_rows == 1


def test_sft_and_text_rows(tmp_path, template, read):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    sft = prepare("sft", write(tmp_path / "s.jsonl", [{"messages": talk}]), tmp_path / "d", "train", template, None, 0)
    assert read(sft.path) == [template.chat_row(talk)]
    text = prepare("text", write(tmp_path / "t.jsonl", [{"text": "a b"}]), tmp_path / "d", "train", None, None, 0)
    assert read(text.path) == [{"input": "", "output": "a b"}]


def test_side_rows_join_back_in_the_same_order(tmp_path, template, read):
    rows = [RATED | {"id": "x"}, RATED | {"response": "no"}, RATED | {"prompt": "other"}]
    done = prepare("reward", write(tmp_path / "h.jsonl", rows), tmp_path / "data", "train", template, None, 0)
    meta = read(done.meta_path)
    assert [row["line"] for row in meta] == [1, 2, 3] and meta[0]["id"] == "x"
    assert meta[0]["group"] == meta[1]["group"] != meta[2]["group"]
    assert meta[0]["attributes"] == {name: RATED[name] for name in LABEL_SLOTS[4:]}


def test_multi_turn_helpsteer_prompts_become_turns(tmp_path, template, read):
    row = RATED | {"prompt": "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nbye"}
    done = prepare("reward", write(tmp_path / "h.jsonl", [row]), tmp_path / "data", "train", template, None, 0)
    turns = HEADER + "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nbye\n<extra_id_1>Assistant\nyo\n<extra_id_2>"
    assert read(done.path)[0]["text"] == turns


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "json.gz"])
def test_every_packing_of_a_file_gives_the_same_rows(tmp_path, template, suffix):
    rows = [PAIR, PAIR | {"chosen": "é"}]
    text = json.dumps(rows, indent=1) if "json" == suffix.split(".")[0] else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    done = prepare("preference", path, tmp_path / "data", "train", template, None, 0)
    plain = prepare("preference", write(tmp_path / "q.jsonl", rows), tmp_path / "data", "train", template, None, 0)
    assert done.path == plain.path


def test_the_name_is_the_content_and_reruns_agree(tmp_path, template, tokenizer):
    source = write(tmp_path / "p.jsonl", [PAIR] * 3)
    first = prepare("preference", source, tmp_path / "a", "train", template, tokenizer, 64)
    second = prepare("preference", source, tmp_path / "b", "train", template, tokenizer, 64)
    assert first.path.name == second.path.name == f"train.{first.sha256[:12]}.jsonl"
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.ledger_path.read_bytes() == second.ledger_path.read_bytes()
    write(source, [PAIR] * 2 + [PAIR | {"rejected": "a  b"}])
    assert prepare("preference", source, tmp_path / "a", "train", template, tokenizer, 64).path != first.path


def test_dropped_rows_are_counted_by_rule_and_the_ledger_adds_up(tmp_path, template, tokenizer):
    long = PAIR | {"chosen": "b a " * 40}
    rows = [PAIR, long, PAIR | {"rejected": "b a"}, PAIR | {"chosen_reward": -3}, PAIR, PAIR]
    done = prepare("preference", write(tmp_path / "p.jsonl", rows), tmp_path / "data", "train", template, tokenizer, 64,
                   over_length="drop", bad_rows="drop", rewards="optional", limit=2)  # fmt: skip
    assert done.counts == {"kept": 2, "over_length": 1, "no_preference": 1, "beyond_limit": 2}
    ledger = json.loads(done.ledger_path.read_text())
    assert sum(ledger["counts"].values()) == ledger["rows_read"] == len(rows)
    assert ledger["schema"] == "pairs" and ledger["lengths_checked"] is True


def test_a_refused_file_leaves_nothing_behind(tmp_path, template):
    source = write(tmp_path / "p.jsonl", [PAIR, PAIR | {"rejected": "b a"}])
    with pytest.raises(UserInputError):
        prepare("preference", source, tmp_path / "data", "train", template, None, 0)
    assert list((tmp_path / "data").iterdir()) == []


def test_the_limit_is_on_tokens_of_the_whole_row(tmp_path, template, tokenizer):
    """One token more than allowed is dropped, the exact length is kept."""
    source = write(tmp_path / "p.jsonl", [PAIR])
    length = prepare("preference", source, tmp_path / "data", "t", template, tokenizer, 0).max_tokens
    assert length > 14
    for limit, bucket in ((length, "kept"), (length - 1, "over_length")):
        rows = write(tmp_path / "q.jsonl", [PAIR, PAIR | {"prompt": "a", "chosen": "b", "rejected": "c"}])
        done = prepare("preference", rows, tmp_path / "data", "t", template, tokenizer, limit, over_length="drop")
        assert done.counts.get(bucket) == (2 if bucket == "kept" else 1)


# -- several processes -------------------------------------------------------------------------------

TALK = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
KINDS = {
    "text": lambda i: {"text": f"a b {i}\u2028 " * (i % 5 + 1)},
    "sft": lambda i: {"messages": [TALK["messages"][0], {"role": "assistant", "content": "ünï 漢 " * (i % 7 + 1)}]},
    "reward": lambda i: RATED | {"response": f"yo {i}", "helpfulness": i % 5},
    "preference": lambda i: PAIR | {"chosen": "b a " * (i % 9 + 1), "rejected": f"c {i}", "id": i},
    # two rows make a record
    "binary_reward": lambda i: RATED | {"prompt": f"p {i // 2}", "response": f"{i}", "helpfulness": i % 2},
}
ROWS = 400


@pytest.fixture
def spread(monkeypatch):
    """Files of some ten kilobytes are large, and are cut into many pieces."""
    monkeypatch.setattr(passes, "SMALL", 0)
    monkeypatch.setattr(passes, "PART_BYTES", 3000)
    monkeypatch.setattr(passes, "BATCH", 17)


def outcome(folder, *args, **options):
    """Everything that a user can see of it: the files, or the refusals and that there are no files."""
    try:
        done = prepare(*args, **options)
    except UserInputError as error:
        return error.problems, sorted(path.name for path in folder.glob("*"))
    paths = (done.path, done.meta_path, done.ledger_path)
    facts = (done.rows, done.counts, done.schema, done.human_rows, done.max_tokens)
    return facts, [(path.name, path.read_bytes()) for path in paths]


def same_with_any_workers(tmp_path, kind, source, template, tokenizer, max_length=0, **options):
    """The outcome with one process, which that with two and three is compared with."""
    outcomes = []
    for workers in (1, 2, 3):
        folder = tmp_path / f"{source.name}.{workers}"
        args = (kind, source, folder, "train", template, tokenizer, max_length)
        outcomes.append(outcome(folder, *args, workers=workers, **options))
        if isinstance(outcomes[0][0], tuple):
            assert usable_rows(kind, source, *args[4:], workers=workers, **options) == outcomes[0][0][0]
        else:
            with pytest.raises(UserInputError) as caught:
                usable_rows(kind, source, *args[4:], workers=workers, **options)
            assert caught.value.problems == outcomes[0][0]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    return outcomes[0]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_writes_the_same_files(tmp_path, spread, template, tokenizer, kind, suffix):
    rows, path = [KINDS[kind](i) for i in range(ROWS)], tmp_path / f"rows.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(rows))
    else:
        text = "\n".join(map(json.dumps, rows))  # no newline at the end
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    facts, files = same_with_any_workers(tmp_path, kind, path, template if kind != "text" else None, tokenizer)
    assert sum(facts[1].values()) == ROWS and facts[4] > 0 and len(files) == 3


@pytest.mark.parametrize("kind, longest", [("text", 24), ("sft", 40), ("preference", 24)])
def test_any_number_of_workers_drops_the_same_rows(tmp_path, spread, template, tokenizer, kind, longest):
    source = write(tmp_path / "rows.jsonl", [KINDS[kind](i) for i in range(ROWS)])
    options = {"over_length": "drop", "bad_rows": "drop", "max_length": longest}
    facts, _ = same_with_any_workers(tmp_path, kind, source, template if kind != "text" else None, tokenizer, **options)
    assert 0 < facts[1]["over_length"] < ROWS and facts[4] <= longest


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("where", [0, ROWS // 2, ROWS - 1])
@pytest.mark.parametrize("rule", ["D1", "D3", "D8", "D9"])
def test_any_number_of_workers_refuses_the_same_row(tmp_path, spread, template, tokenizer, where, rule, suffix):
    """Wherever it stands, behind it rows that are refused too, or before an unreadable one."""
    bad = {"D1": None, "D3": PAIR | {"prompt": [{"role": "bot", "content": "x"}]}, "D8": PAIR | {"rejected": "b a"},
           "D9": PAIR | {"chosen_reward": "NaN"}}[rule]  # fmt: skip
    rows = [KINDS["preference"](i) for i in range(ROWS)]
    for at in range(where, ROWS, 30):
        rows[at] = bad
    if rule == "D1":
        rows[1 if where else 2] = PAIR | {"rejected": "b a"}  # what cannot be read is told first
    lines = [json.dumps(row) if row else "{" for row in rows]
    path, text = tmp_path / f"p.{suffix}", "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    problems, left = same_with_any_workers(tmp_path, "preference", path, template, tokenizer)
    assert (problems[0].rule, problems[0].where, left) == (rule, f"{path}:{where + 1}", [])


def test_any_number_of_workers_refuses_the_same_file(tmp_path, spread, template):
    """Rules about all rows together: rewards in some only, all equal, of two judges; nothing left."""
    rows = [KINDS["preference"](i) for i in range(ROWS)]
    some = [row if i else {k: v for k, v in row.items() if "reward" not in k} for i, row in enumerate(rows)]
    judges = [row | {"reward_model": "one" if i < ROWS - 1 else "two"} for i, row in enumerate(rows)]
    for rule, content in {"D9": some, "D13": rows, "D29": judges, "D14": [PAIR | {"rejected": "b a"}] * ROWS}.items():
        options = {"rewards": "require" if rule == "D13" else "optional"}
        options |= {"bad_rows": "drop"} if rule == "D14" else {}
        source = write(tmp_path / f"{rule}.jsonl", content)
        problems, left = same_with_any_workers(tmp_path, "preference", source, template, None, **options)
        assert ([problem.rule for problem in problems], left) == ([rule], [])


def test_a_limit_is_the_same_limit(tmp_path, spread, template):
    source = write(tmp_path / "p.jsonl", [KINDS["preference"](i) for i in range(ROWS)])
    outcomes = [outcome(tmp_path / f"{n}", "preference", source, tmp_path / f"{n}", "t", template, None, 0, limit=50,
                        workers=n) for n in (1, 3)]  # fmt: skip
    assert outcomes[0] == outcomes[1] and outcomes[0][0][1] == {"kept": 50, "beyond_limit": ROWS - 50}


def test_a_killed_worker_is_an_error_and_leaves_nothing(tmp_path, spread, template, monkeypatch):
    monkeypatch.setattr(passes, "dump", lambda row: os.kill(os.getpid(), signal.SIGKILL))
    source = write(tmp_path / "p.jsonl", [KINDS["preference"](i) for i in range(ROWS)])
    with pytest.raises(StageFailed, match="a worker process was killed"):
        prepare("preference", source, tmp_path / "data", "train", template, None, 0, workers=2)
    assert list((tmp_path / "data").iterdir()) == []


def test_few_batches_are_under_way(tmp_path):
    """What is read ahead does not grow with the file."""
    taken = []
    with Workers(2) as workers:
        results = workers.in_order(abs, (taken.append(i) or -i for i in range(100)))
        for done, result in enumerate(results, 1):
            assert result == done - 1 and len(taken) <= done + 2 * workers.count
    assert len(taken) == 100


def test_a_tokenizer_json_is_used_in_forks_without_a_warning(tmp_path, template):
    """The package tokenizers warns where it was used by several threads before the fork."""
    pytest.importorskip("tokenizers")
    write(tmp_path / "p.jsonl", [KINDS["preference"](i) for i in range(ROWS)])
    code = """
import sys
from pathlib import Path
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from data_prep import passes, prepare, template
passes.SMALL, passes.PART_BYTES = 0, 3000
folder, chat = Path(sys.argv[1]), template.Template.load()
model = Tokenizer(models.BPE())
model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
model.train_from_iterator(["a b"] * 9, trainers.BpeTrainer(
    vocab_size=300, special_tokens=chat.control_tokens, initial_alphabet=alphabet, show_progress=False))
model.save(str(folder / "tokenizer.json"))
model.encode_batch(["a b"] * 100)
args = ("preference", folder / "p.jsonl", chat, folder / "tokenizer.json", 0)
print(prepare.usable_rows(*args, workers=2))
"""
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True,
                          env=environment, timeout=100)  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{ROWS}\n", "")


@pytest.mark.engine
def test_nemo_aligner_reads_what_we_write(tmp_path, template, tokenizer, world):
    """NeMo-Aligner's own DPO and reward data sets on our files: no assertion, nothing ignored, our token counts."""
    pytest.importorskip("nemo_aligner")
    import numpy as np
    from omegaconf import OmegaConf

    from recipes.engine import compat

    compat.install()
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
    from nemo_aligner.data.nlp.datasets import DPOModelDataset, RegressionRewardModelDataset

    spm = SentencePieceTokenizer(str(tokenizer))
    cfg = OmegaConf.create({"data": {"data_impl": "jsonl", "chat_prompt_tokens": template.nemo_tokens()}, "seed": 1})

    def dataset(kind, source, cls):
        done = prepare(kind, source, tmp_path / "data", "train", template, tokenizer, 64)
        rows = [json.loads(line) for line in done.path.read_text().splitlines()]
        meta = [json.loads(line) for line in done.meta_path.read_text().splitlines()]
        return rows, meta, cls(cfg, spm, "train", None, np.arange(len(rows)), rows, 64, 1)

    rows, meta, pairs = dataset("preference", write(tmp_path / "p.jsonl", [PAIR]), DPOModelDataset)
    for i in range(len(rows)):
        item = pairs[i]
        assert not item["ignore_example"]
        assert max(item["chosen_length"], item["rejected_length"]) == meta[i]["tokens"] - 1  # inputs leave out the last
        answer = [token for token in item["chosen_labels"].tolist() if token != -100]
        assert spm.ids_to_text(answer) == rows[i]["chosen_response"]
    rows, meta, rated = dataset("reward", world / "human.jsonl", RegressionRewardModelDataset)
    for i in range(0, len(rows), 25):
        assert int(rated[i]["lengths"]) == meta[i]["tokens"]
        assert rated[i]["labels"].tolist() == rows[i]["label"]
