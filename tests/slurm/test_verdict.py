"""The rules of a start's end, apart from Slurm: what is done about it, and how often."""

from __future__ import annotations

import pytest

from recipes.slurm import verdict
from recipes.slurm.profile import parse_time

OUTCOME = {"rank": 3, "node": "node2", "message": "it said so"}
# what is known -> what is done; everything that is not given is the calm default
CASES = [
    ({"done": True}, "done"),
    ({"done": True, "code": 143, "terminated": True}, "done"),  # the artifact counts, not how the job ended
    ({"outcome": "part"}, "part"),
    ({"outcome": "done"}, "failed"),  # the stage ended well, and yet nothing verifies
    ({"outcome": "refused", "code": 2}, "failed"),
    ({"outcome": "failed", "code": 1}, "failed"),
    ({"outcome": "crashed", "code": 1}, "again"),
    ({"outcome": "stopped"}, "again"),
    ({"outcome": "stopped", "advanced": False}, "failed"),
    ({"time_up": True, "code": 137}, "again"),  # killed after the grace, but an earlier save is there
    ({"time_up": True, "code": 137, "advanced": False}, "failed"),
    ({"outcome": "stopped", "terminated": True}, "terminated"),
    ({"terminated": True, "code": 143}, "terminated"),
    ({"hung": True, "code": 137}, "again"),
    ({"code": 143}, "again"),  # a rank died without a word: a kill, a node
]


@pytest.mark.parametrize(("known", "result"), CASES)
def test_what_is_done_about_an_end(known, result):
    said = known.pop("outcome", None)
    outcome = OUTCOME | {"result": said} if said else None
    calm = {"done": False, "code": 0, "time_up": False, "terminated": False, "hung": False, "advanced": True}
    found, why = verdict.judge(verdict.Findings(outcome=outcome, **(calm | known)))
    assert (found, bool(why)) == (result, True)
    if said in ("refused", "failed", "crashed"):
        assert why == "rank 3 on node2: it said so"


def began(job: str, *marks: int) -> list[dict]:
    return [
        {"event": "began", "job": job, "attempt": f"{job}.{n}", "mark": [mark, 0, 0]} for n, mark in enumerate(marks)
    ]


@pytest.mark.parametrize(
    ("marks", "now", "stops"),
    [
        ((-1,), -1, False),
        ((-1, -1), -1, True),
        ((-1, -1, -1), 20, False),
        ((-1, 20, 20), 20, True),
        ((5, 10, 15), 20, False),
    ],
)
def test_starts_end_when_they_save_nothing_new(marks, now, stops):
    assert bool(verdict.out_of_starts(began("7", *marks), [now, 0, 0], allowed=1)) == stops


def test_only_jobs_of_one_submission_count_together():
    events = [
        {"event": "submitted", "jobs": ["5"]}, *began("5", -1, -1, -1),
        {"event": "submitted", "jobs": ["7", "8"]}, *began("7", -1),
    ]  # fmt: skip
    assert [event["job"] for event in verdict.starts_of(events, "8")] == ["7"]
    assert verdict.starts_of(events, "9") == []  # submitted by hand: a fresh count


def test_progress_is_the_newest_whole_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("sft--step=10-epoch=0-last", "sft--step=20-epoch=0-last"):
        (folder / name).mkdir(parents=True)
    (folder / "sft--step=20-epoch=0-last-unfinished").touch()
    assert verdict.progress_mark(tmp_path)[0] == 10


def test_prepared_files_are_no_progress_but_answers_are(tmp_path):
    data = tmp_path / "data"
    for path in (data / "train.jsonl", data / "batches" / "0f" / "0-0.jsonl", data / "replies.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    assert verdict.progress_mark(tmp_path) == [-1, 2, 4]


@pytest.mark.parametrize(("text", "seconds"), [("00:10:00", 600), ("2-12:00:00", 216000), ("100:00:00", 360000)])
def test_time_limits(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["04:00", "4h", "", "1-4", "00:00:5"])
def test_time_limits_that_slurm_reads_differently_are_refused(text):
    with pytest.raises(ValueError, match="HH:MM:SS"):
        parse_time(text)
