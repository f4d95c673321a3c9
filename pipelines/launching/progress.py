"""What a launch shows: a line an event, and under them, on a terminal, what runs now and how far all is."""

import os
import sys
import time

from pipelines.launching.grid import Grid, Task


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
    """Prints events; where `stream` is a terminal, `draw` keeps a table of the running tasks under them."""

    def __init__(self, grid: Grid, stream=None):
        self.grid, self.stream, self._live = grid, stream or sys.stdout, None
        self._start, self._drawn = time.monotonic(), 0.0
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self.stream), auto_refresh=False, transient=True)
            self._live.start()

    def event(self, text: str) -> None:
        """One line that stays."""
        line = f"[{clock(time.monotonic() - self._start):>8}] {text}"
        if self._live:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.stream, flush=True)

    def ended(self, task: Task, slots: int) -> None:
        """A line on how a task ended, and how far the grid is."""
        how = f"failed: {task.why}" if task.state == "failed" else task.state
        self.event(f"{task} {how}; {self.summary(slots)}")

    def summary(self, slots: int) -> str:
        """How many runs are done, running and failed, and how long the rest should take."""
        grid = self.grid
        done, running, failed = grid.count("done", "kept"), grid.count("running"), grid.count("failed")
        text = f"{done} of {grid.count()} runs done"
        text += f", {running} running" * bool(running) + f", {failed} failed" * bool(failed)
        if grid.in_state("waiting", "running"):
            text += f", time left {clock(grid.time_left(slots))}"
        return text

    def draw(self, slots: int) -> None:
        """Draw the table again if it is a second old."""
        if self._live and time.monotonic() - self._drawn > 1:
            self._drawn = time.monotonic()
            self._live.update(self.table(slots), refresh=True)

    def table(self, slots: int):
        """The running tasks with the time they have taken and should take, as a `rich` table."""
        from rich.table import Table

        table = Table(box=None, caption=self.summary(slots), caption_justify="left")
        for name in ("running", "since", "of about"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for task in self.grid.in_state("running"):
            table.add_row(str(task), clock(time.monotonic() - task.started), clock(self.grid.expected(task)))
        return table

    def close(self) -> None:
        if self._live:
            self._live.stop()
