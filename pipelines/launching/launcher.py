"""Train the missing and stale runs of the active profile in parallel: on this machine, or on a Ray cluster.

Methods whose learning rate is still to be chosen are tuned first. A failed run does not stop the others. Ctrl-C stops,
and the next launch continues; afterwards `dvc repro` records the runs without training. Exit status: 0 if all runs
are complete, 1 if any failed or nothing could start, 128 + the signal's number if stopped.
"""

import argparse
import contextlib
import fcntl
import math
import os
import signal
import socket
import sys
import time
from pathlib import Path

from pipelines.launching.grid import Grid
from pipelines.launching.processes import Processes
from pipelines.launching.progress import Progress, clock
from pipelines.launching.worker import NodeError
from pipelines.profile import load


class LaunchError(RuntimeError):
    """Nothing can be launched, or nothing more; the message says why and what to do."""


def main(argv=None) -> int:
    args = _arguments(argv)
    try:
        params = load(args.profile_file)
        if args.dry_run:
            return _dry_run(Grid(params, args.method, args.seed))
        with _locked(Path("checkpoints") / params.profile / "launch.lock"), _stop_requests() as stops:
            grid = Grid(params, args.method, args.seed)
            if grid.in_state("waiting"):
                _run(grid, args, stops)
            return _close(grid, args.profile_file, stops)
    except (ValueError, OSError, LaunchError, NodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _arguments(argv):
    def positive(kind):
        def read(text):
            value = kind(text)
            if not value > 0:
                raise argparse.ArgumentTypeError(f"expected more than 0, found {text}")
            return value

        read.__name__ = kind.__name__  # argparse names it where the text is no number
        return read

    parser = argparse.ArgumentParser(prog="python -m pipelines.launch", description=__doc__)
    parser.add_argument(
        "--method", action="append", help="a method (may be repeated); default: all methods of the profile"
    )
    parser.add_argument("--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds")
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
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
        help="memory to be free for each run to start; default: what its method's earlier ones took, at first 2",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=positive(float), help="stop after this long, as Ctrl-C would; a later launch goes on"
    )
    ray = parser.add_argument_group("on a Ray cluster (pip install '.[cluster]')")
    ray.add_argument("--ray", metavar="ADDRESS", help="'auto' (the cluster of this machine), HOST:PORT, or 'local'")
    ray.add_argument(
        "--shared", metavar="FOLDER", nargs="?", const=os.getcwd(),
        help="nodes read data and weights in this folder of theirs (default: this folder's path); "
        "without --shared they are sent once to each node",
    )  # fmt: skip
    ray.add_argument("--cache", default="~/.cache/colora", help="where nodes keep what is sent (default: %(default)s)")
    ray.add_argument(
        "--retries", type=int, default=3, help="how often a run starts again that a lost node takes along (default: 3)"
    )
    return parser.parse_args(argv)


def _dry_run(grid: Grid) -> int:
    waiting = grid.queue() + [task for task in grid.in_state("waiting") if task not in grid.queue()]
    for task in waiting:
        seconds = grid.expected(task)
        print(f"{task}: would run" + (f", about {clock(seconds)}" if seconds is not None else ""))
    for task in grid.in_state("failed"):
        print(f"{task}: cannot run: {task.why}")
    print(f"{grid.count('waiting')} runs to train, {grid.count('kept')} complete")
    return 1 if grid.in_state("failed") else 0


def _run(grid: Grid, args, stops: list[int]) -> None:
    pool = _pool(grid, args)
    progress = Progress(grid)
    progress.event(f"profile {grid.params.profile}: {progress.summary(pool.slots)}; {pool}")
    end = time.monotonic() + 60 * (args.minutes or math.inf)
    try:
        while grid.in_state("waiting", "running") and not stops and time.monotonic() < end:
            job = grid.next_job(pool.slots, pool.shares)
            if job and pool.has_room(job[0]):
                grid.start(job)
                pool.start(job)
                progress.event(f"{', '.join(map(str, job))} started")
            else:
                for job, why in pool.ended(0.2):
                    grid.settle(job, why)
                    for task in job:
                        progress.ended(task, pool.slots)
            progress.draw(pool.slots)
    finally:  # stopped, or an error of our own: nothing is left running
        if pool.running:
            progress.event("stopping; once more to stop at once")
        for job, why in pool.stop(lambda: len(stops) > 1):
            grid.settle(job, why, stopped=True)
        progress.close()


def _pool(grid: Grid, args):
    if args.ray is None:
        return Processes(
            grid.params, args.profile_file, jobs=args.jobs, per_gpu=args.per_gpu, threads=args.threads,
            memory_gib=args.memory,
        )  # fmt: skip
    try:
        from pipelines.launching.cluster import Cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise LaunchError("--ray needs the package ray; `pip install '.[cluster]'`") from None
    return Cluster(grid, args)


def _close(grid: Grid, profile_file: str, stops: list[int]) -> int:
    """Print what became of the grid; returns the exit status."""
    failed = grid.in_state("failed")
    total = len(grid.methods) * len(grid.seeds)
    print(f"profile {grid.params.profile}: {grid.count('done', 'kept')} of {total} runs are complete")
    option = "" if profile_file == "params.yaml" else f" --profile-file {profile_file}"
    for task in failed:
        print(f"{task} failed: {task.why}", file=sys.stderr)
        if task.log:
            print(f"  log: {task.log}", file=sys.stderr)
        print(f"  rerun: python -m {' '.join(task.command())}{option}", file=sys.stderr)
    unfinished = grid.in_state("waiting", "stopped")
    if unfinished:
        print(f"stopped with {len(unfinished)} left; launch again to continue", file=sys.stderr)
    if stops:
        return 128 + stops[0]
    return 1 if failed or unfinished else 0


@contextlib.contextmanager
def _stop_requests():
    """A list that SIGINT, SIGTERM and SIGHUP append their numbers to, instead of ending this process anywhere."""
    stops = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda received, frame: stops.append(received)) for number in numbers}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(path: Path):
    """Hold the profile's lock; the system drops it with the process, so one that died never blocks.

    Raises:
        LaunchError: another launcher holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LaunchError(
                f"{path}: another launcher, {file.read().strip()}, is at work on this profile; "
                "wait until it ends, or stop it with Ctrl-C there"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main())
