"""What a launch shows: a line an event, and under them, on a terminal, what runs now and how far all is."""

import sys
import time

from tqdm import tqdm

from pipelines.launching.grid import Grid, Task

clock = tqdm.format_interval


class Progress:
    """Prints events; where `stream` is a terminal, `draw` keeps a line under them."""

    def __init__(self, grid: Grid, stream=None):
        self.grid, self.stream, self._start = grid, stream or sys.stdout, time.monotonic()
        self._line = tqdm(file=self.stream, disable=None, bar_format="{desc}", leave=False, dynamic_ncols=True)

    def event(self, text: str) -> None:
        """One line that stays."""
        tqdm.write(f"[{clock(time.monotonic() - self._start)}] {text}", file=self.stream)
        self.stream.flush()

    def ended(self, task: Task, slots: int) -> None:
        """A line on how a task ended, and how far the grid is."""
        how = f"failed: {task.why}" if task.state == "failed" else task.state
        self.event(f"{task} {how}; {self.summary(slots)}")

    def summary(self, slots: int) -> str:
        """How many runs are done, running and failed, and how long the rest should take where that is known."""
        grid = self.grid
        done, running, failed = grid.count("done", "kept"), grid.count("running"), grid.count("failed")
        text = f"{done} of {grid.count()} runs done"
        text += f", {running} running" * bool(running) + f", {failed} failed" * bool(failed)
        left = grid.time_left(slots)
        return f"{text}, time left {clock(left)}" if left else text

    def draw(self, slots: int) -> None:
        """Write the line anew: how far all is, and what runs since when."""
        if not self._line.disable:
            now = time.monotonic()
            running = [f"{task} {clock(now - task.started)}" for task in self.grid.in_state("running")]
            self._line.set_description_str(" | ".join([self.summary(slots), *running]))

    def close(self) -> None:
        self._line.close()
