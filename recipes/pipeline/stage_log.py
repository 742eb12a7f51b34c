"""What a failed stage's log says: the part a person has to read."""

from __future__ import annotations

from pathlib import Path

INPUT_ERROR = "INPUT ERROR"
_FAILED = "FAILED "  # how a stage begins the line on a failure it foresaw (recipes/stages/entry.py)
_TRACEBACK = "Traceback (most recent call last)"
_READ = 1 << 18


def log_size(path: str | Path) -> int:
    """Bytes in the log so far; where the next attempt starts."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def new_lines(path: str | Path, offset: int = 0) -> list[str]:
    """Lines of the log from `offset` on, at most the last 256 KiB of them."""
    size = log_size(path)
    start = max(offset if offset <= size else 0, size - _READ)
    try:
        with open(path, "rb") as source:
            source.seek(start)
            return source.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def input_error(path: str | Path, offset: int = 0) -> list[str]:
    """The problems that a stage printed after the line INPUT ERROR; [] if there is no such line."""
    lines = new_lines(path, offset)
    marks = [index for index, line in enumerate(lines) if line.strip().rstrip(":") == INPUT_ERROR]
    return [line for line in lines[marks[-1] + 1 :] if line.strip()][:60] if marks else []


def failure(path: str | Path, offset: int = 0) -> list[str]:
    """What ended the stage: its own words, or the exception without the frames, or the last five lines."""
    lines = [line.rstrip() for line in new_lines(path, offset) if line.strip()]
    said = [index for index, line in enumerate(lines) if line.startswith(_FAILED)]
    if said:
        return [line.removeprefix(_FAILED) for line in lines[said[-1] :][:4]]
    marks = [index for index, line in enumerate(lines) if _TRACEBACK in line]
    if marks:
        # Launchers of several ranks put "[rank0]: " in front of every line.
        prefix = lines[marks[-1]].split(_TRACEBACK)[0]
        for index in range(marks[-1] + 1, len(lines)):
            line = lines[index].removeprefix(prefix)
            if not line.startswith((" ", "\t")):
                return [line, *(_message(lines[index + 1 :], prefix))]
    return lines[-5:]


def _message(rest: list[str], prefix: str) -> list[str]:
    """The indented lines that continue an exception's message."""
    found = []
    for line in rest[:3]:
        line = line.removeprefix(prefix)
        if not line.startswith((" ", "\t")):
            break
        found.append(line)
    return found
