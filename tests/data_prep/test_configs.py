"""The data set configs: every shipped one composes, says what is open, and builds; real rows of every stage."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from data_prep.build.inspect import digest, rows
from data_prep.rules import RULES
from data_prep.sources import all_schemas
from recipes import cli
from tests.test_docs import blocks

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs/data").glob("*.yaml"))
OPEN = {
    "nemotron4_code_sft": ["checks.benchmarks", "sources.genetic_instruct.path"],
    "nemotron4_general_sft": ["checks.benchmarks", "sources.topic_following.path"],
    "nemotron4_dpo": ["checks.benchmarks"],
    "nemotron4_rpo": ["checks.benchmarks", "sources.scored_pairs.path"],
}
NO_HASH_KNOWN = {"nvidia/Daring-Anteater", "HuggingFaceH4/ultrafeedback_binarized"}
NAMES = [path.stem for path in SHIPPED]


def align(capsys, *words) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    return code, "".join(capsys.readouterr())


def ledger(dataset: Path) -> dict:
    return json.loads((dataset / "ledger.json").read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


# -- the shipped configs -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_the_header_is_a_contract(path):
    text = path.read_text(encoding="utf-8")
    header = text.split("\n\n", 1)[0]
    assert all(word in header for word in ("Hardware:", "Command:", "Expect:")) and re.search("licen|CC-BY", header)
    assert f"align data build {path.stem}" in header
    if path.stem.startswith("nemotron4_"):
        assert re.search(r"\((?:grade )?[ABCDM][:;,) ]", header), "published numbers need a grade"
    for source in yaml.safe_load(text)["sources"].values():
        for name, sha256 in (source.get("hub") or {"files": {}})["files"].items():
            assert re.fullmatch(r"[0-9a-f]{40}", source["hub"]["revision"]), name
            assert re.fullmatch(r"[0-9a-f]{64}", sha256 or "") or source["hub"]["dataset"] in NO_HASH_KNOWN


@pytest.mark.parametrize("name", NAMES)
def test_what_is_open_is_said(name, capsys, tmp_path, monkeypatch):
    """Exit code 2 and the keys to set; with them set, or where none is open, the first file that is not there."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # no client, so no network and no waiting for it
    monkeypatch.chdir(tmp_path)
    wanted = OPEN.get(name, [])
    build = ["data", "build", name, "--out", tmp_path / name, "--cache", tmp_path / "cache"]
    if wanted:
        code, said = align(capsys, *build)
        assert code == 2 and re.findall(r"`([\w.]+)` must be set", said) == wanted
    given = [f"{key}=[]" if key == "checks.benchmarks" else f"{key}={tmp_path / 'gone.jsonl'}" for key in wanted]
    code, said = align(capsys, *build, *given)
    assert code == 2 and ("no such file" in said or "cannot be fetched" in said and "put it at" in said), said
    assert not (tmp_path / name).exists()


HELPSTEER2 = [
    {"prompt": f"Prompt {i} of {i * i} words?", "response": f"Answer {i}{side}.", "helpfulness": 4 - 2 * (side == "b"),
     "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
    for i in range(40) for side in "ab"
]  # fmt: skip
STAND_INS = {
    "genetic": [{"instruction": f"Write a function that adds {n}.", "output": f"def f(x): return x + {n}"}
                for n in range(60)],
    "code_alpaca": [{"instruction": f"Reverse list number {n}.", "input": "", "output": f"xs{n}[::-1]"}
                    for n in range(60)],
    "dolly": [{"instruction": f"Why is the sky blue on day {n}?", "context": "" if n % 2 else "A page.",
               "response": f"Because of reason {n}.", "category": "open_qa"} for n in range(60)],
    "gsm8k": [{"question": f"What is {n} + 1?", "answer": f"<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
              for n in range(60)],
    "chat": [{"system": "", "mask": "User", "dataset": "synthetic_conv", "conversations": [
        {"from": "User", "value": f"Tell me about town {n}.", "label": None},
        {"from": "Assistant", "value": f"Town {n} is small.", "label": None}]} for n in range(600)],
    "topic": [{"system_instruction": "Speak of rent only.", "conversation_with_distractors": [
        {"role": "user", "content": f"Is flat {n} free?"}, {"role": "assistant", "content": "Yes."}]}
              for n in range(20)],
    "glaive": [{"system": "SYSTEM: You can call functions.",
                "chat": f"USER: Weather in {n}?\n\nASSISTANT: Rain in {n}. <|endoftext|>"} for n in range(80)],
    "helpsteer2": HELPSTEER2,
    "ultrafeedback": [{"prompt": f"Name bird {n}.", "chosen": f"Bird {n} is a tit.", "rejected": "No.",
                       "score_chosen": 8.0, "score_rejected": 3.0 + n % 5} for n in range(400)],
    "scored": [{"prompt": f"Explain river {n}.", "chosen": f"River {n} runs down.", "rejected": "No.",
                "chosen_reward": 3.5, "rejected_reward": 1.0 + n % 7 / 7} for n in range(400)],
}  # fmt: skip
# Each shipped config on rows of the layout that its sources have, in the order in which they need each other.
RUNS = {
    "nemotron4_code_sft": {"genetic_instruct": "genetic", "code_alpaca": "code_alpaca"},
    "nemotron4_general_sft": {"human": "dolly", "topic_following": "topic", "chat": "chat",
                              "function_calling": "glaive"},
    "nemotron4_reward": {"helpsteer2": "helpsteer2"},
    "nemotron4_reward_validation": {"helpsteer2": "helpsteer2"},
    "nemotron4_dpo": {"helpsteer2": "helpsteer2", "ultrafeedback": "ultrafeedback"},
    "real_small_preference": {"helpsteer2": "helpsteer2"},
    "nemotron4_rpo": {"scored_pairs": "scored"},
    "real_small_sft": {"gsm8k": "gsm8k", "dolly": "dolly", "code_alpaca": "code_alpaca"},
    "real_small_reward": {"helpsteer2": "helpsteer2"},
}  # fmt: skip
SMALLER = {"nemotron4_reward": ["sources.helpsteer2.minimum_rows=1"],
           "nemotron4_reward_validation": ["sources.helpsteer2.minimum_rows=1"],
           "real_small_reward": ["sources.helpsteer2.rows=60"]}  # fmt: skip


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """datasets/ with every shipped config built from generated rows of the right layout. The near-duplicate check is
    off: such rows are all alike."""
    desk = tmp_path_factory.mktemp("shipped")
    for name, content in STAND_INS.items():
        (desk / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        for name, sources in RUNS.items():
            given = [f"sources.{s}.{key}" for s, f in sources.items() for key in ("hub=null", f"path={f}.jsonl")]
            given += ["checks.near_duplicates=keep", "checks.benchmarks=[]", *SMALLER.get(name, [])]
            if yaml.safe_load((ROOT / f"configs/data/{name}.yaml").read_text()).get("validation", {}).get("rows"):
                given.append("validation.rows=4")
            assert cli.main(["data", "build", name, "--cache", "cache", "--workers", "1", *given]) == 0, name
    return desk / "datasets"


def test_every_shipped_config_is_built_here():
    assert sorted(RUNS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_config_builds_from_rows_of_its_sources(shipped, name, capsys, monkeypatch):
    monkeypatch.chdir(shipped.parent)
    code, said = align(capsys, "data", "verify", shipped / name)
    assert code == 0, said
    books = ledger(shipped / name)
    assert sum(books["buckets"].values()) == books["rows_read"] and books["buckets"]["train"]


def test_the_general_blend_has_two_percent_of_code_and_of_people(shipped):
    books = ledger(shipped / "nemotron4_general_sft")
    share = {entry["source"]: entry["share_of_blend"] for entry in books["blend"]}
    assert share["code"] == pytest.approx(0.02, abs=0.01) and share["function_calling"] == pytest.approx(0.05, abs=0.01)
    assert 0.01 < books["human"]["share"] <= 0.02


def test_the_human_share_of_the_pairs_is_capped(shipped):
    for name in ("nemotron4_dpo", "nemotron4_rpo"):
        assert 0 < ledger(shipped / name)["human"]["share"] <= 0.02, name
    assert not any("chosen_reward" in row for row in lines(shipped / "nemotron4_dpo/train.jsonl"))
    assert all(row["chosen_reward"] > row["rejected_reward"] for row in lines(shipped / "nemotron4_rpo/train.jsonl"))


def test_the_reward_rows_have_nine_slots(shipped):
    for row in lines(shipped / "nemotron4_reward/train.jsonl"):
        assert row["label"][:4] == [-100.0] * 4 and len(row["label"]) == 9 and 0 <= min(row["label"][4:])


# -- real rows ---------------------------------------------------------------------------------------

CONFIGS = Path(__file__).parent / "configs"
REAL = ("code_sft", "general_sft", "reward", "binary_reward", "dpo", "rpo")


def build_real(shared_data: Path, target: Path, workers: int) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_data)  # paths of a config are relative to the working directory
        for name in REAL:
            config = CONFIGS / f"{name}.yaml"
            given = [f"sources.code.path={target}/code_sft/train.jsonl"] if name == "general_sft" else []
            if name in ("dpo", "rpo"):
                given = [f"checks.disjoint_from=[{target}/code_sft,{target}/general_sft]"]
            command = ["data", "build", config, "--out", target / name, "--cache", target.parent / "cache"]
            assert cli.main([str(word) for word in [*command, "--workers", workers, *given]]) == 0, name
    return target


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory) -> Path:
    """Directory with the data sets of tests/data_prep/configs, built by two workers."""
    return build_real(shared_data, tmp_path_factory.mktemp("real") / "datasets", 2)


@pytest.mark.parametrize("name", REAL)
def test_every_row_has_one_bucket_and_the_files_verify(real, shared_data, name, capsys, monkeypatch):
    monkeypatch.chdir(shared_data)
    books = ledger(real / name)
    for entry in [books, *books["sources"].values()]:
        assert sum(entry["buckets"].values()) == entry["rows_read"]
    code, said = align(capsys, "data", "verify", real / name)
    assert code == 0, said
    for split in ("train", "validation"):
        count = books["buckets"][split] * (2 if name == "binary_reward" else 1)
        assert len(lines(real / name / f"{split}.jsonl")) == count


@pytest.fixture
def bucket(real, shared_data, monkeypatch):
    """bucket(data set, name, source) -> its rows, with their source lines."""
    monkeypatch.chdir(shared_data)
    return lambda name, which, source=None: rows(real / name, which, source, 100_000)


def test_four_rows_of_gsm8k_are_contaminated_and_no_more(real, bucket):
    assert [entry["line"] for entry in bucket("general_sft", "contaminated", "gsm8k")] == [21, 407, 1315, 5163]
    assert ledger(real / "general_sft")["sources"]["gsm8k"]["rows_read"] == 7473
    others = bucket("general_sft", "contaminated", "code")  # three answers with the table of MT-Bench's question 124
    assert len(others) == 3 and all("mt_bench" in entry["why"] for entry in others)
    assert "paraphrases" in ledger(real / "general_sft")["decontamination"]


def test_the_shares_of_the_general_blend_come_out(real):
    books = ledger(real / "general_sft")
    blend = {entry["source"]: entry for entry in books["blend"]}
    assert blend["code"]["share_of_blend"] == pytest.approx(0.02, abs=0.0005)
    assert blend["toolformer"]["share_of_source"] == pytest.approx(0.1, abs=0.001)
    assert blend["alpaca"]["rows"] == 500 and blend["nemo"]["rows"] == 500  # 12 of NVIDIA's 512 are near copies
    assert books["sources"]["toolformer"]["buckets"]["near_duplicate"] > 4000  # rows of one template
    assert books["buckets"]["duplicate"] >= 14
    assert books["human"] == pytest.approx({"rows": blend["gsm8k"]["rows"], "share": 0.68, "asked": None, "cap": None},
                                           abs=0.01)  # fmt: skip


def test_glued_turns_of_nvidias_rows_become_turns(real):
    turns = [len(row["conversations"]) for row in lines(real / "general_sft/train.jsonl") if row["source"] == "nemo"]
    assert sum(count > 2 for count in turns) >= 290


def test_hh_keeps_its_histories(real, bucket):
    """Every HH row is used, left over, or refused for a reason; those that are used keep all their turns."""
    counts = ledger(real / "binary_reward")["sources"]["hh"]["buckets"]
    assert sum(counts.get(b, 0) for b in ("bad_turns", "control_token", "empty_text")) < 60
    used = bucket("binary_reward", "train", "hh")
    texts = "".join(row["text"] for row in lines(real / "binary_reward/train.jsonl"))
    for entry in used[:50]:
        for turn in re.split(r"\n\n(?:Human|Assistant):", entry["row"]["chosen"])[1:]:
            assert turn.strip() in texts
    assert sum(entry["row"]["chosen"].count("\n\nHuman:") > 1 for entry in used) > 100


def test_human_shares(real):
    assert ledger(real / "dpo")["human"]["share"] == pytest.approx(0.1, abs=0.01)
    assert 0.25 < ledger(real / "binary_reward")["human"]["share"] <= 0.3
    assert ledger(real / "rpo")["human"]["share"] == 0


def test_ties_and_small_margins_are_no_pairs(real):
    assert ledger(real / "dpo")["sources"]["pandalm"]["buckets"]["tie"] > 50
    books = ledger(real / "rpo")
    assert books["buckets"]["tie"] > 900 and books["buckets"]["small_margin"] > 0
    for row in lines(real / "rpo/train.jsonl"):
        assert row["chosen_reward"] - row["rejected_reward"] >= 0.2
        assert row["chosen_response"] != row["rejected_response"]


def test_no_pair_is_on_a_prompt_of_the_sft_sets(real):
    def prompts(name):
        found = set()
        for split in ("train", "validation"):
            for row in lines(real / name / f"{split}.jsonl"):
                text = row["conversations"][0]["value"] if "conversations" in row else first_user(row["prompt"])
                found.add(" ".join(text.lower().split()))
        return found

    def first_user(prompt):
        return re.split(r"<extra_id_1>(?:User|Assistant)\n", prompt)[1]

    sft = prompts("general_sft") | prompts("code_sft")
    assert not sft & prompts("dpo") and not sft & prompts("rpo")
    assert ledger(real / "dpo")["rows_read"] == 885 + 999 + 2312 + 1000


def test_the_same_bytes_with_one_worker(real, shared_data, tmp_path):
    again = build_real(shared_data, tmp_path / "datasets", 1)
    for name in REAL:
        assert digest(again / name) == digest(real / name), name
        mine, theirs = ledger(again / name), ledger(real / name)
        assert mine == theirs, name


# -- what the documents say --------------------------------------------------------------------------


def table(document: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its first two lines."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    found = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line] for line in found[2:]]


def test_the_table_of_schemas():
    shown = {(name, gives, licence) for name, gives, licence, *_ in table("data.md", "## Layouts that are read")}
    known = {(s.name, ", ".join(s.kinds), s.licence or "-") for s in all_schemas()}
    assert shown == known


def test_the_table_of_rules():
    shown = [(rule, bucket) for rule, bucket, *_ in table("data.md", "## Rules and buckets")]
    assert shown == [(rule.id, rule.bucket) for rule in RULES.values()]


def test_the_source_of_the_fork_guide_runs(tmp_path, monkeypatch, capsys):
    """The module in docs/fork.md, put where it says, reads the rows shown there; nothing else is changed."""
    shown = blocks(ROOT / "docs/fork.md")
    (code,) = [block for block in shown if block.info.startswith("python")]
    (data,) = [block for block in shown if block.info.startswith("jsonl")]
    (config,) = [block for block in shown if block.info == "yaml" and block.lines[0] == "# votes.yaml"]
    name = code.info.split()[1]
    assert name.startswith("data_prep/sources/") and not (ROOT / name).exists()
    module = "data_prep.sources." + Path(name).stem
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / Path(name).name).write_text(code.text, encoding="utf-8")
    (tmp_path / "my").mkdir()
    (tmp_path / data.info.split()[1]).write_text(data.text, encoding="utf-8")
    path = tmp_path / config.lines[0].removeprefix("# ")
    path.write_text(config.text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(module, tmp_path / "code" / Path(name).name)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    import data_prep.sources

    monkeypatch.setitem(sys.modules, module, loaded)
    monkeypatch.setattr(data_prep.sources, "__path__", [*data_prep.sources.__path__, str(tmp_path / "code")])
    monkeypatch.chdir(tmp_path)
    all_schemas.cache_clear()
    try:
        code, said = align(capsys, "data", "build", path, "--cache", "cache", "--workers", "1")
        assert code == 0, said
    finally:
        all_schemas.cache_clear()
    books = ledger(tmp_path / "datasets" / path.stem)
    (source,) = books["blend"]
    assert source["rows"] == len(data.lines) - books["buckets"]["tie"] > 0 and source["licence"] == "CC-BY-4.0"
