"""What a run shows: a live table on a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from recipes.pipeline.task import FAILED, QUEUED, REFUSED, RUNNING, Task

PROGRESS_EVERY = 15.0  # seconds between two progress lines of a stage
_COLOURS = {
    "done": "green", "unchanged": "green", "running": "cyan",
    "failed": "red", "refused": "red", "blocked": "yellow", "stopped": "yellow",
}  # fmt: skip


def seconds(value: float | None) -> str:
    """4.2 s, 3 min 07 s, 2 h 05 min; "" for None."""
    if value is None:
        return ""
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def facts_text(facts: dict, limit: int = 4) -> str:
    """The first few numbers and short texts among a stage's facts."""
    shown = []
    for key, value in facts.items():
        if isinstance(value, float):
            shown.append(f"{key} {value:.4g}")
        elif isinstance(value, (bool, int)) or (isinstance(value, str) and len(value) <= 24):
            shown.append(f"{key} {value}")
    return ", ".join(shown[:limit])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as aligned text, the header first."""
    rows = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def summary(tasks: Iterable[Task], total: float) -> list[str]:
    """The table at the end of a run, and its total time."""
    rows = [(task.name, task.state, seconds(task.seconds), _outcome(task)) for task in tasks]
    return ["", *table(("stage", "state", "wall", ""), rows), "", f"total {seconds(total)}"]


def _outcome(task: Task) -> str:
    return task.message[0] if task.message and task.state not in (FAILED, REFUSED) else facts_text(task.facts)


class PlainDisplay:
    """One line when a stage starts, one when it ends, and progress at most every 15 s a stage."""

    def __init__(self, echo: Callable[[str], None]):
        self.line = echo
        self._shown: dict[str, float] = {}

    def tick(self, tasks: Iterable[Task]) -> None:
        now = time.time()
        for task in tasks:
            if task.state == RUNNING and now - self._shown.setdefault(task.name, task.started) >= PROGRESS_EVERY:
                self._shown[task.name] = now
                if text := task.progress.text():
                    self.line(f"{task.name}: {text}, {seconds(task.seconds)}")

    def close(self) -> None:
        pass


class LiveDisplay:
    """The same lines, above a table that follows all stages."""

    def __init__(self):
        from rich.console import Console
        from rich.live import Live

        self._tasks: list[Task] = []
        self._console = Console()
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self, tasks: Iterable[Task]) -> None:
        self._tasks = list(tasks)

    def close(self) -> None:
        self._live.stop()

    def _table(self):
        from rich.table import Table
        from rich.text import Text  # not markup: the console prints lines, and with them this table, without it

        grid = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("stage", "state", "progress", "loss", "time"):
            grid.add_column(column, no_wrap=True, justify="right" if column in ("loss", "time") else "left")
        for task in self._tasks:
            state = Text(_state(task), style=_COLOURS.get(task.state, "dim"))
            grid.add_row(Text(task.name), state, *_cells(task), seconds(task.seconds))
        return grid


def _state(task: Task) -> str:
    return "waits for engine" if task.state == QUEUED and task.engine else task.state


def _cells(task: Task) -> tuple[str, str]:
    progress = task.progress
    steps = "" if progress.step is None else f"{progress.step}/{progress.total or '?'}"
    return steps, "" if progress.loss is None else f"{progress.loss:.4g}"


def choose(echo: Callable[[str], None]) -> PlainDisplay | LiveDisplay:
    """Live on a terminal that can move its cursor and where `rich` is installed, plain lines otherwise."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console

            if Console().is_terminal and not Console().is_dumb_terminal:
                return LiveDisplay()
        except ImportError:
            pass
    return PlainDisplay(echo)
