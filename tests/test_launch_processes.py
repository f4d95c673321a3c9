"""Workers: how many, with how much memory, on which GPU, what one that dies costs, and what is shown of them."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.files import records
from pipelines.launching import processes, progress
from pipelines.profile import ParamsError
from pipelines.runs.code import ROOT
from tests import test_launch_grid
from tests.test_launch import GIB, environment, processes_in, wait_for
from tests.test_launch_grid import grid_of, untuned

profile = test_launch_grid.profile


def pool(monkeypatch, gpus=(), cores=8, total=64 * GIB, free=64 * GIB, **options):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "gpus", lambda: list(gpus))
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(processes, "memory", lambda: (total, free))
    return processes.Workers(**options)


class Started:
    """In place of a worker: what was asked for."""

    def __init__(self, log, *, threads, gpu):
        self.threads, self.gpu, self.alive, self.task = threads, gpu, True, None

    def start(self, task):
        self.task = task

    def resident(self):
        return GIB


def test_jobs_and_threads_follow_from_cores_memory_and_gpus(workdir, monkeypatch):
    def chosen(**options):
        made = pool(monkeypatch, **options)
        return made.slots, made.threads

    assert chosen() == (8, 1)
    assert chosen(total=7 * GIB) == (3, 2)
    assert chosen(total=1 * GIB) == (1, 8)
    assert chosen(memory_gib=20) == (3, 2)
    assert chosen(jobs=2) == (2, 4)
    assert chosen(jobs=2, threads=3) == (2, 3)
    assert chosen(gpus=["0", "1"]) == (2, 4)
    assert chosen(gpus=["0", "1"], per_gpu=2) == (4, 2)
    assert chosen(free=1 * GIB) == (8, 1)  # what others take now does not change the numbers
    with pytest.raises(ParamsError, match="--jobs 3: there are 2 GPUs for 1 each"):
        chosen(gpus=["0", "1"], jobs=3)


@pytest.mark.parametrize(
    "chosen, count, found",
    [(None, 2, ["0", "1"]), ("1", 1, ["1"]), ("GPU-y", 1, ["GPU-y"]), ("0,7", 1, ["0"]), ("", 0, []), ("0", 0, [])],
)
def test_gpus_are_those_that_torch_finds_by_their_names(monkeypatch, chosen, count, found):
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert processes.gpus() == found


def test_every_gpu_gets_a_task_before_any_gets_two_and_a_worker_stays_for_the_next(profile, monkeypatch):
    monkeypatch.setattr(processes, "Worker", Started)
    made = pool(monkeypatch, gpus=["GPU-x", "GPU-y"], per_gpu=2)
    tasks = grid_of(profile(**untuned("a"), seeds=[0, 1, 2])).tasks
    for task in tasks:
        made.start(task)
    first, second, third, none = made.workers
    assert [worker.gpu for worker in (first, second, third)] == ["GPU-x", "GPU-y", "GPU-x"] and none is None
    second.task = None
    made.start(tasks[1])
    assert made.workers[1] is second
    second.task, second.alive = None, False
    made.start(tasks[1])
    assert made.workers[1] is not second and made.workers[1].gpu == "GPU-y"


def test_a_task_starts_only_where_its_memory_and_what_the_others_will_still_take_is_free(profile, monkeypatch):
    monkeypatch.setattr(processes, "Worker", Started)
    params = profile(**untuned("a", "b"))
    records.write_json(Path("checkpoints/memory.json"), {"tiny/a": 4 * GIB})
    first, *_, other = grid_of(params).tasks
    made = pool(monkeypatch, free=6 * GIB)
    assert made.estimate(first) == made.estimate(other) == 4 * GIB  # b is not known: the most that is
    assert made.has_room(first)
    made.start(first)
    assert not made.has_room(other)  # 6 are free, of which 3 will go to the first
    monkeypatch.setattr(processes, "memory", lambda: (64 * GIB, 7.5 * GIB))
    assert made.has_room(other)
    made = pool(monkeypatch, free=0, memory_gib=2)
    assert made.has_room(first)  # one alone is tried
    for memory, room in ((None, True), (2, False)):  # beside a GPU's, the memory of the host counts where it is asked
        made = pool(monkeypatch, free=0, gpus=["0", "1"], memory_gib=memory)
        made.start(first)
        assert made.has_room(other) == room


def test_memory_within_a_control_group(tmp_path):
    import psutil

    total, free = processes.memory()
    assert total <= psutil.virtual_memory().total and 0 < free <= total
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (group / "memory.max").write_text(f"{GIB}\n")
    (group / "memory.current").write_text(f"{GIB // 2}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 4}\nactive_file 7\n")
    assert processes.memory(tmp_path) == (GIB, 3 * GIB // 4)
    (group / "memory.max").write_text("max\n")
    assert processes.memory(tmp_path)[0] == psutil.virtual_memory().total


# A worker and its tasks, with other work in place of training.

WORK = """
import os, signal, sys, time
from pipelines.launching import worker

def do(task):
    print(task["method"], flush=True)
    if task["method"] == "eat":
        print("ate", len(bytearray(300 * 2**20)))
    elif task["method"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task["method"] == "raise":
        raise RuntimeError("the GPU is in a bad state")
    elif task["method"] == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("up", flush=True)
        time.sleep(100)
    else:
        print(os.getpid())

worker.do = do
worker.main()
"""


@pytest.fixture
def working(workdir, monkeypatch):
    """`subprocess.Popen` starts workers that do `WORK`."""
    (workdir / "work.py").write_text(WORK)
    start = subprocess.Popen

    def popen(command, **options):
        if "pipelines.launching.worker" in command:
            command = [command[0], str(workdir / "work.py"), *command[3:]]
        return start(command, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", popen)


def run(made, task):
    made.start(task)
    return next(why for _ in iter(lambda: made.busy, []) for _, why in made.ended(60))


def test_a_worker_does_task_after_task_and_its_death_costs_one(profile, monkeypatch, working):
    made = pool(monkeypatch, jobs=1)
    tasks = {task.method: task for task in grid_of(profile(**untuned("say", "die", "raise", "eat"), seeds=[0])).tasks}
    monkeypatch.setattr("pipelines.launching.grid.Task.is_complete", lambda task: False)
    first = run(made, tasks["say"])
    assert run(made, tasks["say"]) == first and first == str(made.workers[0].process.pid)
    assert Path("checkpoints/tiny/say/0.log").read_text() == f"say\n{first}\n"
    small = made.estimate(tasks["say"])
    assert run(made, tasks["eat"]).startswith("ate")
    assert 300 * 2**20 < made.estimate(tasks["eat"]) < small + 320 * 2**20
    run(made, tasks["say"])
    assert made.estimate(tasks["say"]) == pytest.approx(small, rel=0.2)  # the other task's peak is forgotten
    assert "killed by SIGKILL" in run(made, tasks["die"])
    assert run(made, tasks["say"]) not in (first, "")
    assert run(made, tasks["raise"]) == "RuntimeError: the GPU is in a bad state"
    assert run(made, tasks["say"]).isdigit()
    os.kill(made.workers[0].process.pid, signal.SIGKILL)  # while it has nothing to do
    made.workers[0].process.wait()
    assert run(made, tasks["say"]).isdigit()
    assert made.stop(lambda: False) == [] and not [c for c in processes_in(Path.cwd()) if "work.py" in c]


def test_a_task_stopped_before_its_worker_took_it_is_one_that_printed_nothing(profile, monkeypatch, working):
    made = pool(monkeypatch, jobs=1)
    first, second = grid_of(profile(**untuned("say"), seeds=[0, 1])).tasks
    run(made, first)
    os.kill(made.workers[0].process.pid, signal.SIGSTOP)
    made.start(second)
    ((task, why),) = made.stop(lambda: True)
    assert task is second and why.endswith("it printed nothing")


def test_a_worker_that_ignores_the_interrupt_is_killed_and_dies_with_its_parent(profile, monkeypatch, working, workdir):
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    made = pool(monkeypatch, jobs=1)
    (task,) = grid_of(profile(**untuned("deaf"), seeds=[0])).tasks
    made.start(task)
    wait_for(lambda: "up" in task.log.read_text())
    worker = made.workers[0]
    assert made.stop(lambda: False) == [
        (task, "killed by SIGKILL, as the system does when memory runs out; last line: up")
    ]
    assert worker.process.returncode == -signal.SIGKILL
    task.log.unlink()
    script = f"""
import os, signal, subprocess, sys, time
from multiprocessing import Pipe
mine, theirs = Pipe()
subprocess.Popen([sys.executable, "work.py", str(theirs.fileno()), str(os.getpid())], pass_fds=[theirs.fileno()],
                 start_new_session=True)
mine.send({{"method": "deaf", "log": {str(task.log.absolute())!r}}})
while not os.path.exists({str(task.log)!r}) or "up" not in open({str(task.log)!r}).read(): time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run([sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)})
    assert parent.returncode == -signal.SIGKILL
    wait_for(lambda: not any("work.py" in command for command in processes_in(workdir)))


# What is shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_what_runs_under_the_events(profile):
    made, terminal = grid_of(profile(**untuned("a", "b"))), Terminal()
    shown = progress.Progress(made, terminal)
    for task in made.tasks[:2]:
        task.state = "kept"
    made.start(made.tasks[3])
    shown.draw(1)
    shown.event("hello")
    shown.close()
    text = terminal.getvalue()
    assert "\r2 of 4 runs done, 1 running | b seed 1 00:00" in text
    assert "[00:00] hello\n" in text and "a seed 0" not in text


def test_elsewhere_an_event_is_a_plain_line(profile):
    made, stream = grid_of(profile(**untuned("a"))), io.StringIO()
    shown = progress.Progress(made, stream)
    shown.draw(1)
    made.tasks[0].state, made.tasks[0].why = "failed", "nan"
    shown.ended(made.tasks[0], 1)
    assert stream.getvalue() == "[00:00] a seed 0 failed: nan; 0 of 2 runs done, 1 failed\n"
