"""The journal of replies: what survives a kill, a full disk and damage, and that it has one writer."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc

import pytest

from data_prep.synthetic.journal import REPLIES, Journal
from data_prep.synthetic.requests import Reply, Request
from recipes.errors import StageFailed

REPLY = Reply("Tee \u2028 und \\ \"Milch\"\n", finished=False, prompt_tokens=3, tokens=5, model="m")


def keys(count: int) -> list[str]:
    return [Request(({"role": "user", "content": str(number)},)).key("m") for number in range(count)]


def filled(folder, count: int) -> list[str]:
    journal, names = Journal(folder), keys(count)
    with journal.writing():
        for name in names:
            journal.add(name, REPLY)
    return names


@pytest.mark.parametrize("cut", [1, 2, 30, -1], ids=["the newline", "the brace", "half", "all but one byte"])
def test_a_torn_last_line_is_cut_off_and_the_others_stay(tmp_path, cut):
    first, second, third, fourth = filled(tmp_path, 3) + keys(4)[3:]
    path = tmp_path / REPLIES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines)[: -cut if cut > 0 else 1 - len(lines[2])])
    journal = Journal(tmp_path)
    with journal.writing():
        assert first in journal and second in journal and third not in journal and journal.damaged == 0
        journal.add(fourth, REPLY)
        assert journal.read(second) == REPLY and journal.read(fourth) == REPLY
    assert path.read_bytes().splitlines(keepends=True)[:2] == lines[:2]


def test_a_damaged_line_costs_only_itself(tmp_path):
    first, second, third = filled(tmp_path, 3)
    path = tmp_path / REPLIES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 40 + b"\n" + lines[2])
    journal = Journal(tmp_path)
    with journal.writing():
        assert journal.damaged == 1 and second not in journal
        assert journal.read(first) == journal.read(third) == REPLY


def test_the_first_reply_of_a_key_stays(tmp_path):
    (name,) = filled(tmp_path, 1)
    for _ in range(2):
        journal = Journal(tmp_path)
        with journal.writing():
            journal.add(name, Reply("another"))
            assert journal.read(name) == REPLY


def test_a_journal_takes_in_what_another_has_written(tmp_path):
    journal = Journal(tmp_path)
    with journal.writing():
        assert len(journal) == 0
    names = filled(tmp_path, 5)
    with journal.writing():
        assert [journal.read(name) for name in names] == [REPLY] * 5


HOLD = """
import sys
from data_prep.synthetic.journal import Journal
with Journal(sys.argv[1]).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_writer_at_a_time(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StageFailed, match=f"held by process {other.pid}"), Journal(tmp_path).writing():
            pass
        other.send_signal(signal.SIGKILL)
    with Journal(tmp_path).writing():
        pass


FILL = """
import resource, signal, sys
from data_prep.synthetic.journal import Journal
from data_prep.synthetic.requests import Reply
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
journal = Journal(sys.argv[1])
with journal.writing():
    for number in range(1000):
        journal.add(f"{number:032x}", Reply("x" * 100))
        print(number, flush=True)
"""


def test_a_full_disk_tears_no_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True)
    assert "OSError" in done.stderr
    kept = [f"{int(number):032x}" for number in done.stdout.split()]
    assert (tmp_path / REPLIES).read_bytes().endswith(b"\n") and len(kept) > 10
    journal = Journal(tmp_path)
    with journal.writing():
        assert len(journal) == len(kept) and all(name in journal for name in kept)


def test_memory_holds_keys_not_texts(tmp_path):
    rows, long = 20_000, Reply("x" * 2000)
    writer = Journal(tmp_path)
    with writer.writing():
        for number in range(rows):
            writer.add(f"{number:032x}", long)
    tracemalloc.start()
    try:
        reader = Journal(tmp_path)
        with reader.writing():
            assert len(reader) == rows
            assert tracemalloc.get_traced_memory()[0] / rows < 300
    finally:
        tracemalloc.stop()
