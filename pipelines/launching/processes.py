"""Training processes on this machine: as many as its GPUs, or its cores and memory, allow."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from pipelines.files import records
from pipelines.launching import worker
from pipelines.launching.grid import Task
from pipelines.profile import Params, ParamsError
from pipelines.runs.code import ROOT

GIB = 2**30
MEMORY_GIB = 2.0  # of a process whose like has not been seen yet


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; asked of nvidia-smi, not of torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    done = subprocess.run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def memory(root: str | Path = "/") -> tuple[float, float]:
    """Total and available memory in bytes, within the limit of this process's control group if it has one."""
    import psutil

    root, system = Path(root), psutil.virtual_memory()
    total, free = system.total, system.available
    names = [
        line.split(":", 2)[2] for line in _lines(root / "proc/self/cgroup") if line.startswith("0::")
    ]  # version 2; a container sees its own group at the top
    for name in dict.fromkeys([*(n.strip("/") for n in names), ""]):
        group = root / "sys/fs/cgroup" / name
        limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
        if limit and used and limit[0] != "max":
            cache = sum(
                int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("inactive_file")
            )
            total, free = min(total, int(limit[0])), min(free, int(limit[0]) - int(used[0]) + cache)
    return total, free


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


class Processes:
    """At most `slots` jobs at a time, each a process; one starts only where the memory it should need is free.

    Args:
        jobs, threads, memory_gib: None to choose. What is chosen depends on the machine, not on what is left to do or
            on what else runs: the number of threads decides how sums are rounded on a CPU, and so the last digits of
            the results.
    """

    shares = True  # short runs may share a process

    def __init__(
        self,
        params: Params,
        profile_file: str,
        *,
        jobs: int | None = None,
        per_gpu: int = 1,
        threads: int | None = None,
        memory_gib: float | None = None,
    ):
        self.profile_file = profile_file
        self.gpus = gpus()
        self.places = [gpu for _ in range(per_gpu) for gpu in self.gpus]
        if self.places and jobs and jobs > len(self.places):
            raise ParamsError(
                f"--jobs {jobs}: there are {len(self.gpus)} GPUs for {per_gpu} each; raise --per-gpu, or set "
                "CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
            )
        assumed = (memory_gib or MEMORY_GIB) * GIB
        self.slots = jobs or len(self.places) or max(1, min(cores(), int(memory()[0] // assumed)))
        asked = os.environ.get("OMP_NUM_THREADS", "")
        self.threads = threads or (int(asked) if asked.isdigit() and int(asked) else max(1, cores() // self.slots))
        self.running: list[_Running] = []
        self._set = memory_gib and memory_gib * GIB
        self._file = Path("checkpoints") / params.profile / "memory.json"
        self._peaks = records.read_json(self._file, "delete it") if self._file.exists() else {}

    def __str__(self):
        where = f"on {len(self.gpus)} GPUs" if self.gpus else "on the CPU"
        return f"{self.slots} at a time {where}, {self.threads} threads each"

    def estimate(self, task: Task) -> float:
        """Bytes that a process for this task should need: as set, or the most that one for the method, or any, took."""
        if self._set:
            return self._set
        return self._peaks.get(task.method) or max(self._peaks.values(), default=MEMORY_GIB * GIB)

    def has_room(self, task: Task) -> bool:
        """Whether a job beginning with this task may start now; one alone always may."""
        if len(self.running) >= self.slots:
            return False
        if not self.running or self.gpus:
            return True
        to_come = sum(max(0, self.estimate(run.job[0]) - run.resident()) for run in self.running)
        return memory()[1] - to_come > self.estimate(task)

    def start(self, job: list[Task]) -> None:
        taken = [run.gpu for run in self.running]
        left = list(self.places)
        for gpu in taken:
            if gpu is not None:
                left.remove(gpu)
        gpu = left[0] if left else None
        command = [*job[0].command(), "--profile-file", self.profile_file]
        for task in job[1:]:
            command += ["--seed", str(task.seed)]
        process = worker.start(command, ".", ROOT, job[0].log, threads=self.threads, gpu=gpu)
        self.running.append(_Running(job, process, gpu))

    def ended(self, seconds: float) -> list[tuple[list[Task], str]]:
        """Jobs whose process has ended, with its last word; waits so long for one."""
        deadline = time.monotonic() + seconds
        while self.running:
            found = [run for run in self.running if self._has_ended(run)]
            if found or time.monotonic() > deadline:
                self.running = [run for run in self.running if run not in found]
                return [(run.job, run.last_word()) for run in found]
            time.sleep(0.05)
        return []

    def _has_ended(self, run) -> bool:
        if run.process.returncode is not None:
            return True
        pid, status, usage = os.wait4(run.process.pid, os.WNOHANG)  # not poll(), which does not say what it used
        if not pid:
            return False
        run.process.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
        method = run.job[0].method
        if peak > self._peaks.get(method, 0):
            self._peaks[method] = peak
            records.write_json(self._file, self._peaks)
        return True

    def stop(self, impatient) -> list[tuple[list[Task], str]]:
        """Interrupt what runs, kill it after a grace time or once `impatient()`, and return it."""
        worker.end([run.process for run in self.running], impatient)
        stopped, self.running = self.running, []
        return [(run.job, run.last_word()) for run in stopped]


class _Running:
    def __init__(self, job, process, gpu):
        self.job, self.process, self.gpu = job, process, gpu

    def resident(self) -> int:
        import psutil

        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return 0

    def last_word(self) -> str:
        return worker.how_it_ended(self.process.returncode, self.job[0].log.read_text(errors="replace"))
