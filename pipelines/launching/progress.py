"""What a launch shows: a line an event, and under them, on a terminal, a live table of methods and seeds."""

import os
import shutil
import sys
import time

from pipelines.launching.grid import Grid, Task

REDRAW_S = 1.0
COLOURS = {"failed": "\x1b[31m", "running": "\x1b[33m", "done": "\x1b[32m"}


def clock(seconds: float | None) -> str:
    """12 s, 3.5 min, 2.1 h: as short as it may be read."""
    if seconds is None:
        return "unknown"
    for limit, size, unit in ((99.5, 1, "s"), (99.5 * 60, 60, "min"), (99.5 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / size
            return f"{number:.1f} {unit}" if number < 10 and unit != "s" else f"{number:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


class Progress:
    """Prints events, and draws the table again each second where `stream` is a terminal."""

    def __init__(self, grid: Grid, stream=None):
        self.grid, self.stream = grid, stream or sys.stdout
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._start, self._drawn, self._next = time.monotonic(), 0, 0.0

    def event(self, text: str) -> None:
        """One line that stays."""
        self._erase()
        print(f"[{clock(time.monotonic() - self._start):>8}] {text}", file=self.stream, flush=True)
        self._next = 0.0

    def ended(self, task: Task, slots: int) -> None:
        """A line on how a task ended, and how far the grid is."""
        if task.state == "failed":
            self.event(f"{task} failed: {task.why}; {self.summary(slots)}")
        elif task.state == "done":
            self.event(f"{task} done; {self.summary(slots)}")

    def summary(self, slots: int) -> str:
        """How many runs are done, running, failed and waiting, and how long the rest should take."""
        grid = self.grid
        done, running, failed = grid.count("done", "kept"), grid.count("running"), grid.count("failed")
        text = f"{done} of {grid.count('done', 'kept', 'running', 'failed', 'waiting', 'stopped')} runs done"
        text += f", {running} running" * bool(running) + f", {failed} failed" * bool(failed)
        if grid.in_state("waiting", "running"):
            text += f", time left {clock(grid.time_left(slots))}"
        return text

    def draw(self, slots: int) -> None:
        """Draw the table again if it is time to."""
        if not self.live or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REDRAW_S
        width, height = shutil.get_terminal_size()
        lines = [self.summary(slots), *self.table(height - 4)]
        self._erase()
        self.stream.write("".join(_cut(line, width - 1) + "\n" for line in lines))
        self.stream.flush()
        self._drawn = len(lines)

    def table(self, height: int) -> list[str]:
        """At most so many lines: a method a line with a word a seed, methods at work or in trouble first."""
        grid = self.grid
        words = {(task.method, task.seed): task for task in grid.tasks}
        rank = {"running": 0, "failed": 1, "stopped": 1, "waiting": 2}
        methods = sorted(
            grid.methods, key=lambda method: min(rank.get(t.state, 3) for t in grid.tasks if t.method == method)
        )
        seeds = ([None] if any(task.seed is None for task in grid.tasks) else []) + list(grid.seeds)
        name = max(len(method) for method in methods)
        lines = [" " * name + "".join(f"{'tuning' if seed is None else seed:>9}" for seed in seeds)]
        for method in methods:
            lines.append(f"{method:{name}}" + "".join(_word(words.get((method, seed))) for seed in seeds))
        if len(lines) > max(height, 2):
            hidden = len(lines) - max(height, 2) + 1
            lines[-hidden:] = [f"and {hidden} more methods"]
        return lines

    def close(self) -> None:
        self._erase()

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


def _word(task: Task | None) -> str:
    if task is None:
        return f"{'-':>9}"
    text = clock(time.monotonic() - task.started) if task.state == "running" else task.state
    return f"{COLOURS.get(task.state, '')}{text:>9}{chr(27) + '[0m' if task.state in COLOURS else ''}"


def _cut(line: str, width: int) -> str:
    """The line's first `width` visible characters; colour codes take no room."""
    out, seen, i = "", 0, 0
    while i < len(line) and (seen < width or line[i] == "\x1b"):
        if line[i] == "\x1b":
            j = line.index("m", i) + 1
            out, i = out + line[i:j], j
        else:
            out, seen, i = out + line[i], seen + 1, i + 1
    return out if i == len(line) else out + "\x1b[0m"
