"""Jobs as processes: how many, with how much memory, on which GPU, and what the table shows of them."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.files import records
from pipelines.launching import grid, processes, progress, worker
from pipelines.profile import ParamsError
from pipelines.runs.code import ROOT
from tests import test_launch_grid
from tests.test_launch import GIB, environment, processes_in, wait_for
from tests.test_launch_grid import untuned

profile = test_launch_grid.profile


def pool(params, monkeypatch, gpus="", cores=8, total=64 * GIB, free=64 * GIB, **options):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(processes, "memory", lambda: (total, free))
    return processes.Processes(params, "params.yaml", **options)


class Started:
    """In place of a process: what was asked for."""

    def __init__(self, command, folder, code, log, *, threads, gpu):
        self.command, self.threads, self.gpu, self.pid, self.returncode = command, threads, gpu, os.getpid(), None


def test_jobs_and_threads_follow_from_cores_memory_and_gpus(profile, monkeypatch):
    params = profile(**untuned("a"))

    def chosen(**options):
        made = pool(params, monkeypatch, **options)
        return made.slots, made.threads

    assert chosen() == (8, 1)
    assert chosen(total=7 * GIB) == (3, 2)
    assert chosen(total=1 * GIB) == (1, 8)
    assert chosen(memory_gib=20) == (3, 2)
    assert chosen(jobs=2) == (2, 4)
    assert chosen(jobs=2, threads=3) == (2, 3)
    assert chosen(gpus="0,1") == (2, 4)
    assert chosen(gpus="0,1", per_gpu=2) == (4, 2)
    assert chosen(free=1 * GIB) == (8, 1)  # what others take now does not change the numbers
    with pytest.raises(ParamsError, match="--jobs 3: there are 2 GPUs for 1 each"):
        chosen(gpus="0,1", jobs=3)


def test_every_gpu_gets_a_job_before_any_gets_two(profile, monkeypatch):
    monkeypatch.setattr(worker, "start", Started)
    params = profile(**untuned("a"), seeds=[0, 1, 2])
    made = pool(params, monkeypatch, gpus="GPU-x,GPU-y", per_gpu=2)
    for task in grid.Grid(params).tasks:
        made.start([task])
    assert [run.process.gpu for run in made.running] == ["GPU-x", "GPU-y", "GPU-x"]
    del made.running[1]
    made.start(made.running[0].job)
    assert made.running[-1].process.gpu == "GPU-y"
    assert made.running[0].process.command == [
        "pipelines.train", "--method", "a", "--seed", "0", "--profile-file", "params.yaml"
    ]  # fmt: skip


def test_a_job_starts_only_where_its_memory_and_what_the_others_will_still_take_is_free(profile, monkeypatch):
    monkeypatch.setattr(worker, "start", Started)
    monkeypatch.setattr(processes._Running, "resident", lambda self: 1 * GIB)
    params = profile(**untuned("a", "b"))
    records.write_json(Path("checkpoints/tiny/memory.json"), {"a": 4 * GIB})
    first, *_, other = grid.Grid(params).tasks
    made = pool(params, monkeypatch, free=6 * GIB)
    assert made.estimate(first) == made.estimate(other) == 4 * GIB  # b is not known: the most that is
    assert made.has_room(first)
    made.start([first])
    assert not made.has_room(other)  # 6 are free, of which 3 will go to the first
    monkeypatch.setattr(processes, "memory", lambda: (64 * GIB, 7.5 * GIB))
    assert made.has_room(other)
    made = pool(params, monkeypatch, free=0, memory_gib=2)
    assert made.has_room(first)  # one alone is tried


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


def test_peak_memory_is_measured_and_remembered(profile, monkeypatch, workdir):
    params = profile(**untuned("a"))
    made = pool(params, monkeypatch)
    task = grid.Grid(params).tasks[0]
    (workdir / "eater.py").write_text("b = bytearray(300 * 2**20)\nprint('ate')\n")
    monkeypatch.setattr(grid.Task, "command", lambda self: ["eater"])
    made.start([task])
    ((job, why),) = made.ended(60)
    assert (job, why) == ([task], "ate")
    # A child's peak starts at what its parent held when it was forked: little of the launcher, much of a test run.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 300 * 2**20 < pool(params, monkeypatch).estimate(task) < max(600 * 2**20, 1.1 * inherited)


def test_a_process_that_ignores_the_interrupt_is_killed_and_dies_with_its_parent(workdir, monkeypatch):
    (workdir / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up')\ntime.sleep(100)\n"
    )
    monkeypatch.setattr(worker, "GRACE_S", 0.2)
    deaf = worker.start(["deaf"], ".", workdir, "log", threads=1, gpu=None)
    wait_for(lambda: "up" in Path("log").read_text())
    worker.end([deaf])
    assert deaf.returncode == -signal.SIGKILL
    script = (
        "import os, signal, time; from pathlib import Path; from pipelines import worker\n"
        f"worker.start(['deaf'], '.', {str(workdir)!r}, 'second', threads=1, gpu=None)\n"
        "while 'up' not in Path('second').read_text(): time.sleep(0.05)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)})
    assert parent.returncode == -signal.SIGKILL
    wait_for(lambda: not any("deaf" in command for command in processes_in(workdir)))


# What is shown


def test_the_table_shows_methods_at_work_first_and_fits_the_terminal(profile, monkeypatch):
    made = grid.Grid(profile(**untuned("a", "b", "c", "d")))
    shown = progress.Progress(made)
    for task in made.tasks:
        task.state = "kept" if task.method == "a" else "waiting"
    made.start([made.tasks[5]])
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in shown.table(10)]
    assert [line[0] for line in lines] == [" ", "c", "b", "d", "a"]
    assert lines[1].split() == ["c", "waiting", "0", "s"] and lines[4].split() == ["a", "kept", "kept"]
    assert [line.split()[0] for line in shown.table(4)] == ["0", "\x1b" and "c", "b", "and"]
    assert shown.table(4)[-1] == "and 2 more methods"
    assert shown.summary(1) == "2 of 8 runs done, 1 running, time left unknown"


def test_a_terminal_gets_its_table_redrawn_in_place(profile):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    made, terminal = grid.Grid(profile(**untuned("a"))), Terminal()
    shown = progress.Progress(made, terminal)
    shown.draw(1)
    height = terminal.getvalue().count("\n")
    shown.event("hello")
    assert f"\x1b[{height}A\x1b[J" in terminal.getvalue() and terminal.getvalue().endswith("hello\n")


@pytest.mark.parametrize("seconds, text", [(0, "0 s"), (75, "75 s"), (150, "2.5 min"), (3600 * 5.04, "5.0 h"),
                                           (3600 * 240, "10.0 days"), (None, "unknown")])  # fmt: skip
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_lines_are_cut_by_what_is_visible():
    assert progress._cut("\x1b[31mabcdef\x1b[0m", 3) == "\x1b[31mabc\x1b[0m"
    assert progress._cut("\x1b[31mabc\x1b[0m", 3) == "\x1b[31mabc\x1b[0m"
    assert json.dumps(progress._cut("ab", 3)) == '"ab"'
