"""Train the missing and stale runs of some waves in parallel: on this machine, or on a Ray cluster."""

import argparse
import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.files.locks import locked
from pipelines.launching.grid import Grid, Wave
from pipelines.launching.progress import Progress, clock


def launch(
    waves: list[Wave],
    make_pool: Callable,
    *,
    minutes: float | None = None,
    tick: Callable[[], None] = lambda: None,
    first: Callable[[], None] = lambda: None,
) -> int:
    """Do what is left of some waves; returns 0 if all of it is complete, 1 if not, 128 + a signal's number if stopped.

    Args:
        make_pool: called with the grid; gives a `processes.Workers` or a `cluster.Cluster`.
        minutes: stop after so long, as Ctrl-C would.
        tick: called several times a second, and at the end.
        first: called once it is known that all can be done, before any of it is.

    Raises:
        UserError: another launcher is at work on one of the profiles, `first` raised it, or the pool cannot be used.
        ParamsError, FileNotFoundError: as `Grid`; or a method with a run to train cannot be built.
    """
    end, stops = time.monotonic() + 60 * (minutes or math.inf), []
    with contextlib.ExitStack() as stack:
        for profile in sorted({wave.params.profile for wave in waves}):
            stack.enter_context(locked(Path("checkpoints") / profile / "launch.lock"))
        stack.enter_context(on_stop(lambda number, frame: stops.append(number)))
        grid = Grid(waves)
        if waiting := grid.in_state("waiting"):
            from pipelines.training import checking  # torch, where something is left to do

            own = {task.name for task in waiting}
            for profile, params in grid.profiles.items():
                checking.check(params, [method for method in params.method if (profile, method) in own])
            pool = make_pool(grid)
        if not stops:
            first()
        if waiting:
            _run(grid, pool, end, stops, tick)
        tick()
        return _close(grid, stops)


def dry_run(waves: list[Wave]) -> int:
    """Say what would run; returns 1 if something cannot."""
    grid = Grid(waves)
    queue = grid.queue()
    for task in queue + [task for task in grid.in_state("waiting") if task not in queue]:
        seconds = grid.expected(task)
        print(f"{task}: would run" + (f", about {clock(seconds)}" if seconds is not None else ""))
    for task in grid.in_state("failed"):
        print(f"{task}: cannot run: {task.why}")
    print(f"{grid.count('waiting')} runs to train, {grid.count('kept')} complete")
    return 1 if grid.in_state("failed") else 0


def _run(grid: Grid, pool, end: float, stops: list[int], tick) -> None:
    progress = Progress(grid)
    progress.event(f"{pool}; {progress.summary(pool.slots)}")
    try:
        while grid.in_state("waiting", "running") and not stops and time.monotonic() < end:
            task = next(iter(grid.queue()), None)
            if task and pool.has_room(task):
                grid.start(task)
                pool.start(task)
                progress.event(f"{task} started")
            else:
                for task, why in pool.ended(0.2):
                    if why is None:
                        task.state = "waiting"
                        progress.event(f"{task} was lost with its node and will start again")
                    else:
                        grid.settle(task, why)
                        progress.ended(task, pool.slots)
            progress.draw(pool.slots)
            tick()
    finally:  # stopped, or an error of our own: nothing is left running
        if grid.in_state("running"):
            progress.event("stopping; once more to stop at once")
        for task, why in pool.stop(lambda: len(stops) > 1):
            grid.settle(task, why, stopped=True)
        progress.close()


def _close(grid: Grid, stops: list[int]) -> int:
    """Print what became of the grid; returns the exit status."""
    print(f"profile {', '.join(grid.profiles)}: {grid.count('done', 'kept')} of {grid.count()} runs are complete")
    failed = grid.in_state("failed")
    for task in failed:
        print(f"{task} failed: {task.why}", file=sys.stderr)
        if task.started is not None:
            print(f"  log: {task.log}", file=sys.stderr)
        print(f"  rerun: {task.command()}", file=sys.stderr)
    unfinished = grid.in_state("waiting", "stopped")
    if unfinished:
        print(f"stopped with {len(unfinished)} left; launch again to continue", file=sys.stderr)
    if stops:
        return 128 + stops[0]
    return 1 if failed or unfinished else 0


@contextlib.contextmanager
def on_stop(handler: Callable):
    """SIGINT, SIGTERM and SIGHUP call a handler, instead of ending this process anywhere; `nohup` stays one."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def positive(kind):
    """A type of command-line options that takes numbers above 0."""

    def read(text):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, found {text}")
        return value

    read.__name__ = kind.__name__  # argparse names it where the text is no number
    return read


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """--jobs, --per-gpu, --threads, --memory and --minutes, which `launch` and `campaign` have."""
    parser.add_argument(
        "--jobs", type=positive(int),
        help="runs at a time; default: one a GPU or, without one, one a core as far as memory goes",
    )  # fmt: skip
    parser.add_argument("--per-gpu", type=positive(int), default=1, help="runs at a time on each GPU (default: 1)")
    parser.add_argument(
        "--threads", type=positive(int),
        help="CPU threads a run; default: OMP_NUM_THREADS if set, else cores / jobs (1 on a cluster without GPUs). "
        "On a CPU their number decides the last digits of the results",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=positive(float), metavar="GIB",
        help="memory of the host to be free for each run to start; default: what its method's earlier ones took, at "
        "first 2; on GPUs none",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=positive(float), help="stop after this long, as Ctrl-C would; a later launch goes on"
    )
