"""Workers on this machine: as many as its GPUs, or its cores and memory, allow."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe, connection
from pathlib import Path

from pipelines.files import records
from pipelines.launching.grid import Task
from pipelines.profile import ParamsError
from pipelines.runs.code import ROOT

GIB = 2**30
MEMORY_GIB = 2.0  # of a task whose like has not been seen yet
GRACE_S = 10  # from the request to stop to the end


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count, chosen = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return (chosen.split(",") if chosen else [str(number) for number in range(count)])[:count]


def memory(root: str | Path = "/") -> tuple[float, float]:
    """Total and available memory in bytes, within the limit of this process's control group if it has one."""
    import psutil

    root, system = Path(root), psutil.virtual_memory()
    total, free, own = system.total, system.available, root / "proc/self/cgroup"
    # Of version 2; a container sees its own group at the top.
    names = re.findall(r"^0::/(.*)$", own.read_text(), re.MULTILINE) if own.is_file() else []
    for group in (root / "sys/fs/cgroup" / name for name in (*names, "")):
        try:
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        except (OSError, ValueError):  # no such group, or "max", which is no limit
            continue
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        total, free = min(total, limit), min(free, limit - used + int(parts["inactive_file"]))
    return total, free


def variables(threads: int) -> dict[str, str]:
    """Of the environment of a process that trains: what must stand before torch is loaded and a GPU computes."""
    chosen = {"OMP_WAIT_POLICY": "PASSIVE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return {name: os.environ.get(name, value) for name, value in chosen.items()} | {"OMP_NUM_THREADS": str(threads)}


class Worker:
    """A process of `pipelines.launching.worker`, its threads and its GPU (None: as this process sees them)."""

    def __init__(self, log: Path, *, threads: int, gpu: str | None):
        self.task: Task | None = None
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables(threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "pipelines.launching.worker", str(theirs.fileno()), str(os.getpid())]
        with open(log, "wb") as output, theirs:
            # A session of its own: Ctrl-C in a terminal reaches the launcher alone, which then decides.
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def start(self, task: Task) -> None:
        self.task = task
        message = {"profile_file": task.wave.profile_file, "method": task.method, "seed": task.seed}
        with suppress(BrokenPipeError):  # it died meanwhile, which `collect` finds out
            self.connection.send({**message, "command": task.command(), "log": str(task.log.absolute())})

    def collect(self) -> tuple[str, int]:
        """The last word of a task that has ended, and the most memory it took; the process may have ended too."""
        try:
            peak = self.connection.recv()
        except (EOFError, ConnectionError):
            _, status, usage = os.wait4(self.process.pid, 0)  # not wait(), which does not say what it used
            self.process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        task, self.task = self.task, None
        return last_word(self.process.returncode or 0, task.log.read_text(errors="replace")), peak

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def resident(self) -> int:
        import psutil

        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return 0

    def signal(self, number: int) -> None:
        if self.alive:
            os.killpg(self.process.pid, number)


def last_word(returncode: int, log: str) -> str:
    """One line for a task that ended: the last of its log, and the signal if one killed its process."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}; last line: {last}"
    return last


class Workers:
    """At most `slots` tasks at a time, each in a worker that stays for the next; one starts only where the memory it
    should need is free.

    Args:
        jobs, threads, memory_gib: None to choose. What is chosen depends on the machine, not on what is left to do or
            on what else runs: the number of threads decides how sums are rounded on a CPU, and so the last digits of
            the results.
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        per_gpu: int = 1,
        threads: int | None = None,
        memory_gib: float | None = None,
    ):
        self.gpus = gpus()
        places = [gpu for _ in range(per_gpu) for gpu in self.gpus]
        if places and jobs and jobs > len(places):
            raise ParamsError(
                f"--jobs {jobs}: there are {len(self.gpus)} GPUs for {per_gpu} each; raise --per-gpu, or set "
                "CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
            )
        assumed = (memory_gib or MEMORY_GIB) * GIB
        self.slots = jobs or len(places) or max(1, min(cores(), int(memory()[0] // assumed)))
        asked = os.environ.get("OMP_NUM_THREADS", "")
        self.threads = threads or (int(asked) if asked.isdigit() and int(asked) else max(1, cores() // self.slots))
        self._places = (places or [None] * self.slots)[: self.slots]
        self.workers: list[Worker | None] = [None] * self.slots  # each at its place
        self._set = memory_gib and memory_gib * GIB
        self._file = Path("checkpoints/memory.json")
        self._peaks = records.read_json(self._file, "delete it") if self._file.exists() else {}

    def __str__(self):
        where = f"on {len(self.gpus)} GPUs" if self.gpus else "on the CPU"
        return f"{self.slots} at a time {where}, {self.threads} thread{'s' * (self.threads > 1)} each"

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker and worker.task]

    def estimate(self, task: Task) -> float:
        """Bytes that the task should need: as set, or the most that one of its method, or any, took."""
        if self._set:
            return self._set
        return self._peaks.get("/".join(task.name)) or max(self._peaks.values(), default=MEMORY_GIB * GIB)

    def has_room(self, task: Task) -> bool:
        """Whether the task may start now; one alone always may."""
        busy = self.busy
        if len(busy) == self.slots:
            return False
        if not busy or (self.gpus and not self._set):
            return True
        to_come = sum(max(0, self.estimate(worker.task) - worker.resident()) for worker in busy)
        idle = self.workers[self._free()]
        return memory()[1] - to_come > self.estimate(task) - (idle.resident() if idle else 0)

    def _free(self) -> int:
        return next(i for i, worker in enumerate(self.workers) if not (worker and worker.task))

    def start(self, task: Task) -> None:
        place = self._free()
        task.log.parent.mkdir(parents=True, exist_ok=True)
        task.log.write_text("")  # it will be read, though the worker may end before it has the task
        if not self.workers[place] or not self.workers[place].alive:
            self.workers[place] = Worker(task.log, threads=self.threads, gpu=self._places[place])
        self.workers[place].start(task)

    def ended(self, seconds: float) -> list[tuple[Task, str]]:
        """Tasks that have ended, with their last word; waits so long for one."""
        at_work = {worker.connection: worker for worker in self.busy}
        if not at_work:
            time.sleep(seconds)
        ready = connection.wait(list(at_work), seconds) if at_work else []
        return [(at_work[one].task, self._collect(at_work[one])) for one in ready]

    def _collect(self, worker: Worker) -> str:
        key = "/".join(worker.task.name)
        why, peak = worker.collect()
        if peak > self._peaks.get(key, 0):
            self._peaks[key] = peak
            records.write_json(self._file, self._peaks)
        return why

    def stop(self, impatient) -> list[tuple[Task, str]]:
        """Interrupt what runs, kill it after a grace time or once `impatient()`, and return it; idle workers end."""
        stopped = [(worker.task, worker.process) for worker in self.busy]
        workers = [worker for worker in self.workers if worker]
        for worker in workers:
            if worker.task:
                worker.signal(signal.SIGINT)
            worker.connection.close()
        deadline = time.monotonic() + GRACE_S
        while any(worker.alive for worker in workers):
            if time.monotonic() > deadline or impatient():
                for worker in workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(0.05)
        self.workers = [None] * self.slots
        return [(task, last_word(ended.returncode, task.log.read_text(errors="replace"))) for task, ended in stopped]
