"""The work of a profile: which trials and runs are missing or stale, what comes next, how each ended.

A method's trials come before its runs; beyond that nothing waits for anything, and the longest known work goes first.
Imports neither torch nor numpy, and starts nothing: `pipelines.launch` does.
"""

import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.files import records
from pipelines.profile import Params, ParamsError
from pipelines.runs.record import read_record
from pipelines.training import runner, trials, tuning

# Short runs of a method share one process, which imports torch once, up to about this many seconds of them.
SHARED_PROCESS_S = 60


@dataclass
class Task:
    """A method's trials (`seed` is None) or one run. `state`: kept, waiting, running, done, failed or stopped."""

    method: str
    seed: int | None
    state: str = "waiting"
    why: str = ""
    log: Path | None = None
    started: float = 0.0  # monotonic seconds
    found: int | None = field(default=None, repr=False)  # when its record was written, as it was at the start

    def __str__(self):
        return f"{self.method} tuning" if self.seed is None else f"{self.method} seed {self.seed}"

    def command(self) -> list[str]:
        """The module and arguments that do this task alone."""
        if self.seed is None:
            return ["pipelines.tune", "--method", self.method]
        return ["pipelines.train", "--method", self.method, "--seed", str(self.seed)]


class Grid:
    """The tasks of a profile, or of some of its methods and seeds.

    Raises:
        ParamsError: a method or seed that the profile does not have.
        FileNotFoundError: the data are not prepared.
    """

    def __init__(self, params: Params, methods: list[str] | None = None, seeds: list[int] | None = None):
        self.params = params
        self.methods = list(params.method) if methods is None else list(dict.fromkeys(methods))
        self.seeds = params.seeds if seeds is None else sorted(set(seeds))
        for method in self.methods:
            if method not in params.method:
                params.settings(method)  # raises, with near names
        for seed in self.seeds:
            if seed not in params.seeds:
                raise ParamsError(f"seed {seed} is not one of profile {params.profile!r}: {params.seeds}")
            records.data_identity(params.data_dir, seed)
        self.seconds = {}  # (method, seed) -> seconds its training took, here or wherever its record comes from
        self._spent = self._predicted = 0.0
        self.tasks: list[Task] = []
        for method in self.methods:
            self._plan(method)

    def _plan(self, method: str) -> None:
        runs = [Task(method, seed, log=self._log(method, str(seed))) for seed in self.seeds]
        try:
            epochs = self.params.settings(method)["train"]["epochs"]
            if self._needs_tuning(method):
                self.tasks.append(Task(method, None, log=self._log(method, "tune")))
        except (ValueError, FileNotFoundError) as error:
            for run in runs:
                run.state, run.why, run.log = "failed", str(error), None
        for run in runs:
            self.tasks.append(run)
            if run.state != "failed":
                try:
                    self._look_up(run, epochs)
                except (ValueError, FileNotFoundError) as error:
                    run.state, run.why, run.log = "failed", str(error), None

    def _log(self, method: str, name: str) -> Path:
        return Path("checkpoints") / self.params.profile / method / f"{name}.log"

    def _needs_tuning(self, method: str) -> bool:
        if not self.params.tuned(method):
            return False
        trials.identity(self.params, method)  # raises where data or weights are missing, which tuning would not mend
        try:
            tuning.chosen_lr(self.params, method)
        except ParamsError:
            return True
        return False

    def _look_up(self, run: Task, epochs: int) -> None:
        """Keep a complete run; note what an earlier run of it took, by the epochs it will have now."""
        record = read_record(self.params.run_dir(run.method, run.seed))
        if record is None:
            return
        if not self._tuning(run.method) and self.is_complete(run):
            run.state = "kept"
        if record.get("timings"):
            had = record["settings"]["train"]["epochs"]
            self.seconds[run.method, run.seed] = record["timings"]["total_s"] * epochs / had

    def _tuning(self, method: str) -> Task | None:
        return next((task for task in self.tasks if task.method == method and task.seed is None), None)

    def fingerprint(self, task: Task) -> str:
        """What the task's record must carry.

        Raises:
            ParamsError: a run whose method is not tuned yet.
        """
        if task.seed is None:
            return trials.identity(self.params, task.method)
        settings = self.params.settings(task.method)
        if self.params.tuned(task.method):
            settings["train"]["lr"] = tuning.chosen_lr(self.params, task.method)
        return runner.identity(self.params, settings, task.seed)

    def is_complete(self, task: Task) -> bool:
        """Whether the task's record is there with the right fingerprint, and all files with it."""
        if task.seed is None:
            return not self._needs_tuning(task.method)
        return runner.is_complete(self.params, task.method, task.seed, self.fingerprint(task))

    # What is next

    def count(self, *states: str) -> int:
        """The number of runs (not trials) in these states."""
        return sum(task.seed is not None and task.state in states for task in self.tasks)

    def in_state(self, *states: str) -> list[Task]:
        return [task for task in self.tasks if task.state in states]

    def expected(self, task: Task) -> float | None:
        """Seconds the task should take: as before, else as the method's other seeds, else as any method; None if unknown."""
        if task.seed is not None and (task.method, task.seed) in self.seconds:
            return self.seconds[task.method, task.seed]
        known = [s for (method, _), s in self.seconds.items() if method == task.method] or list(self.seconds.values())
        if not known:
            return None
        seconds = statistics.median(known)
        if task.seed is not None:
            return seconds
        grid, epochs = self.params.tune, self.params.settings(task.method)["train"]["epochs"]
        return seconds * len(grid.lrs) * grid.epochs / epochs

    def queue(self) -> list[Task]:
        """Waiting tasks that nothing holds back, what should end last first; what is unknown may be long."""
        ready = [task for task in self.in_state("waiting") if task.seed is None or not self._held(task)]
        return sorted(ready, key=lambda task: (-self._until_done(task), task.seed is not None))

    def _held(self, run: Task) -> bool:
        tuning = self._tuning(run.method)
        return tuning is not None and tuning.state != "done"

    def _until_done(self, task: Task) -> float:
        own = self.expected(task)
        if own is None:
            return math.inf
        if task.seed is not None:
            return own
        return own + max(self.expected(run) for run in self.tasks if run.method == task.method and run.seed is not None)

    def next_job(self, slots: int, share: bool = True) -> list[Task]:
        """The tasks that the next process should do one after the other; empty if none is ready.

        Several only where they are short runs of one method (`share`), and other processes are left with enough.
        """
        queue = self.queue()
        if not queue:
            return []
        job, total = [queue[0]], self.expected(queue[0])
        if share and job[0].seed is not None and total is not None:
            most = math.ceil(len(queue) / max(slots, 1))
            for task in (t for t in queue[1:] if t.method == job[0].method and t.seed is not None):
                total += self.expected(task)
                if len(job) == most or total > SHARED_PROCESS_S:
                    break
                job.append(task)
        return job

    def start(self, job: list[Task]) -> None:
        for task in job:
            task.state, task.started, task.found = "running", time.monotonic(), self._written(task)
            task.log = job[0].log

    def record_file(self, task: Task) -> Path:
        if task.seed is None:
            return self.params.tune_file(task.method)
        return self.params.run_dir(task.method, task.seed) / "record.json"

    def _written(self, task: Task) -> int | None:
        path = self.record_file(task)
        return path.stat().st_mtime_ns if path.exists() else None

    # How it went

    def settle(self, job: list[Task], why: str, stopped: bool = False) -> None:
        """Judge a job whose process has ended, by what it left on disk alone; `why` is its last word.

        The first task without a result answers for a process that ended early; those after it wait for another one.
        """
        seconds = time.monotonic() - job[0].started
        predicted = [self.expected(task) for task in job]
        answered = False
        for task in job:
            try:
                complete, failure = self.is_complete(task), self._fresh_failure(task)
            except (ValueError, FileNotFoundError) as error:
                complete, failure = False, str(error)
            if complete:
                task.state = "done"
                self._remember(task)
            elif failure:
                task.state, task.why = "failed", failure
            elif stopped:
                task.state = "stopped"
            elif not answered:
                task.state, task.why, answered = "failed", why, True
            else:
                task.state, task.log = "waiting", self._log(task.method, str(task.seed))
        if None not in predicted and all(task.state == "done" for task in job):
            self._spent, self._predicted = self._spent + seconds, self._predicted + sum(predicted)
        for run in self.in_state("waiting"):
            tuning = self._tuning(run.method)
            if tuning and tuning.state == "failed" and run.seed is not None:
                run.state, run.why, run.log = "failed", "its method could not be tuned", None

    def _fresh_failure(self, task: Task) -> str | None:
        """What the task's record says went wrong, if this process wrote it."""
        if task.seed is None or self._written(task) == task.found:
            return None
        record = read_record(self.params.run_dir(task.method, task.seed))
        if record["status"] == "complete":
            return "its settings, data or code changed while it was trained; launch again"
        return record["failure"]

    def _remember(self, task: Task) -> None:
        if task.seed is not None:
            record = read_record(self.params.run_dir(task.method, task.seed))
            self.seconds[task.method, task.seed] = record["timings"]["total_s"]

    def time_left(self, slots: int) -> float | None:
        """Seconds until all is done with so many processes, by what is known; None where nothing is."""
        now, left, longest = time.monotonic(), 0.0, 0.0
        for task in self.in_state("waiting", "running"):
            seconds = self.expected(task)
            if seconds is None:
                return None
            if task.state == "running":
                seconds = max(0.0, seconds - (now - task.started))
            left, longest = left + seconds, max(longest, seconds)
        slower = self._spent / self._predicted if self._predicted else 1.0
        return max(left / max(slots, 1), longest) * slower
