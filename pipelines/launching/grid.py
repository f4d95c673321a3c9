"""The work of one or several profiles: which trials and runs are missing or stale, what comes next, how each ended.

A method's trials come before its runs. Waves come in their order; within one, nothing waits for anything else, and the
longest known work goes first. Imports no torch, and starts nothing.
"""

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.data import prepared
from pipelines.profile import Params, ParamsError
from pipelines.runs.record import read_record
from pipelines.training import runner, trials, tuning


@dataclass(frozen=True)
class Wave:
    """Methods and seeds of a profile (all where None), wanted before those of later waves."""

    profile_file: str
    params: Params
    methods: list[str] | None = None
    seeds: list[int] | None = None


@dataclass(eq=False)
class Task:
    """A method's trials (`seed` is None) or one run. `state`: kept, waiting, running, done, failed or stopped."""

    wave: Wave
    rank: int  # of its wave
    method: str
    seed: int | None
    size: float = 1.0  # in runs of its method
    prefix: str = ""  # of its name: its profile, where there are several
    state: str = "waiting"
    why: str = ""
    started: float | None = None  # monotonic seconds
    found: int | None = None  # when its record was written, as it was at the start

    def __str__(self):
        return f"{self.prefix}{self.method} {'tuning' if self.seed is None else f'seed {self.seed}'}"

    @property
    def params(self) -> Params:
        return self.wave.params

    @property
    def name(self) -> tuple[str, str]:
        """What its trials and runs share."""
        return self.params.profile, self.method

    @property
    def log(self) -> Path:
        return Path("checkpoints", *self.name, "tune.log" if self.seed is None else f"{self.seed}.log")

    @property
    def record_file(self) -> Path:
        if self.seed is None:
            return self.params.tune_file(self.method)
        return self.params.run_dir(self.method, self.seed) / "record.json"

    def written(self) -> int | None:
        return self.record_file.stat().st_mtime_ns if self.record_file.exists() else None

    def command(self) -> str:
        """What does this task alone."""
        words = ["pipelines.tune", "--method", self.method]
        if self.seed is not None:
            words = ["pipelines.train", "--method", self.method, "--seed", str(self.seed)]
        if self.wave.profile_file != "params.yaml":
            words += ["--profile-file", self.wave.profile_file]
        return f"python -m {' '.join(words)}"

    def fingerprint(self) -> str:
        """What the task's record must carry.

        Raises:
            ParamsError: a run whose method is not tuned yet.
        """
        if self.seed is None:
            return trials.identity(self.params, self.method)
        settings = runner.final_settings(self.params, self.method)
        return runner.identity(self.params, self.method, settings, self.seed)

    def is_complete(self) -> bool:
        """Whether the task's record is there with the right fingerprint, and all files with it."""
        if self.seed is None:
            return tuning.is_chosen(self.params, self.method)
        return runner.is_complete(self.params, self.method, self.seed, self.fingerprint())


class Grid:
    """The tasks of some waves.

    Raises:
        ParamsError: a method or seed that its profile does not have, or two files for one profile.
        DataError: the data are not prepared, or with other settings.
    """

    def __init__(self, waves: list[Wave]):
        self.tasks: list[Task] = []
        self._seconds: dict[tuple[str, str], list[float]] = {}  # what runs took, here or where their records come from
        self.profiles: dict[str, Params] = {}
        planned = set()
        for rank, wave in enumerate(waves):
            profile = wave.params.profile
            if self.profiles.setdefault(profile, wave.params) != wave.params:
                raise ParamsError(
                    f"{wave.profile_file}: another file has a profile {profile!r} too; rename one of them"
                )
            asked = wave.params.all_seeds if wave.seeds is None else list(dict.fromkeys(wave.seeds))
            for seed in asked:
                if seed not in wave.params.all_seeds:
                    raise ParamsError(f"seed {seed} is not one of profile {profile!r}: {wave.params.all_seeds}")
                prepared.identity(wave.params.data_dir, seed, external=wave.params.data.external_names)
            prepared.check_settings(wave.params)  # else each task would find out for itself
            for method in dict.fromkeys(wave.params.method if wave.methods is None else wave.methods):
                if method not in wave.params.method:
                    wave.params.settings(method)  # raises, with near names
                own = wave.params.seeds_of(method)
                new = [seed for seed in asked if seed in own and (profile, method, seed) not in planned]
                planned |= {(profile, method, seed) for seed in new}
                self._plan(wave, rank, method, new)
        for task in self.tasks if len(self.profiles) > 1 else ():
            task.prefix = f"{task.params.profile}: "

    def _plan(self, wave: Wave, rank: int, method: str, seeds: list[int]) -> None:
        runs = [Task(wave, rank, method, seed) for seed in seeds]
        key = (wave.params.profile, method)
        try:
            epochs = wave.params.settings(method)["train"]["epochs"]
            if key not in self._untuned() and not tuning.is_chosen(wave.params, method):
                tune = wave.params.tune
                size = tune.expected_trials * tune.epochs_of(epochs) / epochs
                trial = Task(wave, rank, method, None, size)
                trial.fingerprint()  # raises where data or weights are missing, which tuning would not mend
                self.tasks.append(trial)
        except (ValueError, FileNotFoundError) as error:
            for run in runs:
                run.state, run.why = "failed", str(error)
        for run in [run for run in runs if run.state == "waiting"]:
            try:
                self._look_up(run, epochs)
            except (ValueError, FileNotFoundError) as error:
                run.state, run.why = "failed", str(error)
        self.tasks += runs

    def _look_up(self, run: Task, epochs: int) -> None:
        """Keep a complete run; note what an earlier run of it took, by the epochs it will have now."""
        record = read_record(run.record_file.parent)
        if record is None:
            return
        if run.name not in self._untuned() and run.is_complete():
            run.state = "kept"
        if record.timings:
            seconds = record.timings.total_s * epochs / record.settings["train"]["epochs"]
            self._seconds.setdefault(run.name, []).append(seconds)

    # What is next

    def count(self, *states: str) -> int:
        """The number of runs (not trials) in these states, or of all."""
        return sum(task.seed is not None and (not states or task.state in states) for task in self.tasks)

    def in_state(self, *states: str) -> list[Task]:
        return [task for task in self.tasks if task.state in states]

    def expected(self, task: Task) -> float | None:
        """Seconds the task should take, by the median of its method's runs, else of its profile's; None if unknown."""
        known = self._seconds.get(task.name) or [
            s for (profile, _), seconds in self._seconds.items() if profile == task.params.profile for s in seconds
        ]
        return task.size * statistics.median(known) if known else None

    def queue(self) -> list[Task]:
        """Waiting tasks that nothing holds back: by wave, then what should end last first; the unknown may be long."""

        def until_done(task):
            expected = self.expected(task)
            if expected is None:
                return math.inf
            return expected if task.seed is not None else expected * (1 + 1 / task.size)  # its runs come after it

        untuned = self._untuned()
        ready = [task for task in self.in_state("waiting") if task.seed is None or task.name not in untuned]
        return sorted(ready, key=lambda task: (task.rank, -until_done(task), task.seed is not None))

    def _untuned(self) -> set[tuple[str, str]]:
        """The names of what has trials that are not done, for which their runs wait."""
        return {task.name for task in self.tasks if task.seed is None and task.state != "done"}

    def start(self, task: Task) -> None:
        task.state, task.started, task.found = "running", time.monotonic(), task.written()

    # How it went

    def settle(self, task: Task, why: str, stopped: bool = False) -> None:
        """Judge a task whose work has ended, by what it left on disk alone; `why` is its last word."""
        try:
            complete, failure = task.is_complete(), _fresh_failure(task)
        except (ValueError, FileNotFoundError) as error:
            complete, failure = False, str(error)
        if complete:
            task.state = "done"
            if task.seed is not None:
                self._seconds.setdefault(task.name, []).append(time.monotonic() - task.started)
        elif failure or not stopped:
            task.state, task.why = "failed", failure or why
        else:
            task.state = "stopped"
        if task.seed is None and task.state == "failed":
            for run in self.in_state("waiting"):
                if run.name == task.name:
                    run.state, run.why = "failed", "its method could not be tuned"

    def time_left(self, slots: int) -> float | None:
        """Seconds until all is done with so many workers, by what is known; None where nothing is."""
        now, left, longest = time.monotonic(), 0.0, 0.0
        for task in self.in_state("waiting", "running"):
            seconds = self.expected(task)
            if seconds is None:
                return None
            if task.state == "running":
                seconds = max(0.0, seconds - (now - task.started))
            left, longest = left + seconds, max(longest, seconds)
        return max(left / max(slots, 1), longest)


def _fresh_failure(task: Task) -> str | None:
    """What the task's record says went wrong, if it was written since the task started."""
    if task.seed is None or task.written() == task.found:
        return None
    record = read_record(task.record_file.parent)
    if record is None:  # a stale one went, and the new one is not there yet
        return None
    if record.status == "complete":
        return "its settings, data or code changed while it was trained; launch again"
    return record.failure
