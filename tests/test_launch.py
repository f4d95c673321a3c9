"""The launcher on this machine: a real grid stopped half-way, launched again, and recorded by DVC; then its parts."""

import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines import code, grid, launch, processes, progress, records, train, tune, worker
from pipelines.code import ROOT
from pipelines.params import Params, ParamsError
from tests.conftest import bright_quadrants, tiny_params, write_prepared

GIB = 2**30
EPOCHS = 15
LONG = 900  # seconds, of a machine that has much else to do


def content(**changes) -> dict:
    """Two seeds of an arm to be tuned and of one that cannot but diverge."""
    arms = {"full": {"family": "full"}, "wild": {"family": "transfer", "train": {"lr": 1e30}}}
    return tiny_params(
        **{"arm": arms, "tune": {"lrs": [1e-3, 3e-3], "epochs": 1}, "pretrain": None, "probe": None, **changes}
    )


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": ""}


def module(folder, name, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", name, *arguments], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, **options,
    )  # fmt: skip


def processes_in(folder) -> list[str]:
    """The command lines of the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # ended meanwhile
            continue
    return found


def wait_for(condition, seconds=LONG):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with data; launched, stopped when a cell was half trained, and launched again."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("baselines", "colora", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "report").mkdir()
    (folder / "weights/tiny").mkdir(parents=True)
    images, labels = bright_quadrants(160)
    splits = {"train": np.arange(96), "val": np.arange(96, 128), "test": np.arange(128, 160)}
    write_prepared(folder / "data" / "tiny", images, labels, splits)
    profile = content()
    profile["train"]["epochs"] = EPOCHS
    (folder / "params.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    command = [sys.executable, "-m", "pipelines.launch", "--jobs", "2", "--arm", "full", "--seed", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment(), **pipes) as first:
        try:
            wait_for(lambda: list((folder / "checkpoints").glob("tiny/launch.lock")))
            other = module(folder, "pipelines.launch")
            wait_for(lambda: list((folder / "checkpoints").glob("tiny/full/*.pt")))
            first.send_signal(signal.SIGINT)
            out, err = first.communicate(timeout=LONG)
        finally:
            first.kill()
    left = processes_in(folder)
    kept = [path.name for path in (folder / "checkpoints").glob("tiny/full/*.pt")]
    second = module(folder, "pipelines.launch", "--jobs", "2")
    return {
        "folder": folder, "params": Params(**profile), "first": (first.returncode, out, err), "pid": first.pid,
        "other": other, "left": left, "kept": kept, "second": second,
    }  # fmt: skip


def test_ctrl_c_leaves_no_process_and_keeps_checkpoints(project):
    code, out, err = project["first"]
    assert code == 128 + signal.SIGINT
    assert "launch again to continue" in err and "Traceback" not in err
    assert project["left"] == [] and project["kept"]


def test_two_launchers_on_one_profile_end_the_second_with_the_firsts_process(project):
    assert project["other"].returncode == 1
    assert f"another launcher, process {project['pid']} on" in project["other"].stderr
    assert len(project["other"].stderr.splitlines()) == 1


def test_the_next_launch_completes_the_grid_but_for_the_cells_that_fail(project):
    done = project["second"]
    assert done.returncode == 1
    assert "2 of 4 cells are complete" in done.stdout
    for seed in (0, 1):
        assert re.search(
            rf"wild seed {seed} failed: training loss is nan in epoch 1.*\n"
            rf"  log: (checkpoints/tiny/wild/\d.log)\n  rerun: python -m pipelines.train --arm wild --seed {seed}\n",
            done.stderr,
        )
    assert "seed 0: training loss is nan" in (project["folder"] / "checkpoints/tiny/wild/0.log").read_text()
    assert "\x1b" not in done.stdout


def test_parallel_and_interrupted_cells_equal_serial_ones(project, workdir):
    import torch

    threads = torch.get_num_threads()
    (workdir / "data").mkdir()
    (workdir / "data/tiny").symlink_to(project["folder"] / "data/tiny")
    try:
        torch.set_num_threads(1)
        tune.run(project["params"], "full")
        train.run(project["params"], "full", [0, 1])
    finally:
        torch.set_num_threads(threads)
    for seed in (0, 1):
        cell = project["params"].cell_dir("full", seed)
        with np.load(cell / "predictions.npz") as serial, np.load(project["folder"] / cell / "predictions.npz") as here:
            assert all(np.array_equal(serial[name], here[name]) for name in ("indices", "labels", "probabilities"))
        curves = [[line.rsplit(",", 1)[0] for line in (root / cell / "curves.csv").read_text().splitlines()]
                  for root in (workdir, project["folder"])]  # fmt: skip
        assert len(curves[0]) == EPOCHS + 1 and curves[0] == curves[1]


def test_when_the_minutes_are_up_everything_stops_and_nothing_is_counted_as_failed(prepared, workdir, capsys):
    (workdir / "params.yaml").write_text(yaml.safe_dump(content(tune=None)))
    assert launch.main(["--jobs", "1", "--arm", "full", "--minutes", "0.001"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 2 cells are complete" in out
    assert err.splitlines()[-1] == "stopped with 2 left; launch again to continue" and "failed" not in err
    assert processes_in(workdir) == [" ".join(Path("/proc/self/cmdline").read_text().split("\0"))]


def test_dvc_records_what_was_launched_without_training(project):
    before = (project["folder"] / "results/tiny/runs/full/0/record.json").read_bytes()
    for command in (
        ["pipelines.code"],
        ["dvc", "init", "-q", "--no-scm"],
        ["dvc", "repro", "-s", "tune", "train@full"],
    ):
        done = module(project["folder"], *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "full: tuned, kept" in done.stdout and done.stdout.count("complete, kept") == 2
    assert (project["folder"] / "results/tiny/runs/full/0/record.json").read_bytes() == before


def test_a_launch_with_nothing_to_do_starts_nothing(project):
    done = module(project["folder"], "pipelines.launch", "--arm", "full")
    assert done.returncode == 0 and done.stdout == "profile tiny: 2 of 2 cells are complete\n"


# What comes before any process


@functools.cache
def hashed(files):
    return code.code_hash(files)


@pytest.fixture
def profile(prepared, workdir, monkeypatch):
    monkeypatch.setattr(records, "code_hash", lambda files: hashed(tuple(files)))  # the code stays as it is

    def write(**changes):
        found = content(**changes)
        (workdir / "params.yaml").write_text(yaml.safe_dump(found))
        return Params(**found)

    return write


def finish(params, task, seconds=10.0, **changes):
    """Leave the record that a cell's process would leave."""
    folder, settings = params.cell_dir(task.arm, task.seed), params.settings(task.arm)
    record = {"status": "complete", "failure": None, "fingerprint": train.identity(params, settings, task.seed),
              "settings": settings, "timings": {"total_s": seconds}, **changes}  # fmt: skip
    if record["status"] == "complete":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "curves.csv").touch()
        (folder / "predictions.npz").touch()
    records.write_json(folder / "record.json", record)


def untuned(*arms):
    return {"tune": None, "arm": {arm: {"family": "transfer"} for arm in arms}}


def test_a_dry_run_lists_trials_and_cells_imports_no_torch_and_starts_nothing(profile, workdir):
    profile()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pipelines import launch; code = launch.main(['--dry-run'])\n"
         "assert not {'torch', 'numpy', 'ray', 'pandas'} & set(sys.modules); sys.exit(code)"],
        cwd=workdir, env={**environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "full tuning: would run" and "wild seed 1: would run" in lines
    assert lines[-1] == "4 cells to train, 0 complete"
    assert not (workdir / "checkpoints").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--arm", "ful"], "did you mean 'full'"),
        (["--seed", "7"], "seed 7 is not one of profile 'tiny': [0, 1]"),
        (["--profile-file", "none.yaml"], "none.yaml: no such file"),
        (["--ray", "ray://there:1"], "expected 'auto', HOST:PORT or 'local'"),
        (["--ray", "127.0.0.1:9"], "error: --ray 127.0.0.1:9: [Errno 111] Connection refused; `ray start --head`"),
    ],
)
def test_wrong_arguments_are_one_clear_error(profile, capsys, arguments, words):
    profile(tune=None)
    if "--ray" in arguments:
        pytest.importorskip("ray", reason="the package ray is not installed")
    assert launch.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_missing_data_are_one_clear_error(profile, capsys):
    profile(profile="other")
    assert launch.main([]) == 1
    assert capsys.readouterr().err == (
        "error: data/other/manifest.json: no prepared data; run `python -m pipelines.prepare` first\n"
    )


def test_an_arm_that_cannot_be_set_up_fails_alone_and_before_anything_runs(profile):
    made = grid.Grid(profile(arm={"good": {"family": "full"}, "bad": {"family": "full", "weights": "none.pt"}}))
    assert {task.arm for task in made.in_state("failed")} == {"bad"} and len(made.in_state("failed")) == 2
    assert "'none.pt': no such file" in made.in_state("failed")[0].why
    assert [str(task) for task in made.queue()] == ["good tuning"]


def test_a_profile_locked_by_a_process_that_died_is_free(workdir):
    path = workdir / "checkpoints/tiny/launch.lock"
    script = (
        "import os, signal, sys; from pathlib import Path; from pipelines import launch\n"
        f"with launch._locked(Path({str(path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)})
    assert died.returncode == -signal.SIGKILL and path.read_text().startswith("process ")
    with launch._locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(launch.LaunchError, match=f"another launcher, process {os.getpid()} on"),
            launch._locked(path),
        ):
            pass


# What comes next, and how it ended


def test_complete_cells_are_kept_and_stale_ones_are_not(profile):
    params = profile(**untuned("a"))
    for task in grid.Grid(params).tasks:
        finish(params, task, **({"fingerprint": "old"} if task.seed else {}))
    assert [(task.seed, task.state) for task in grid.Grid(params).tasks] == [(0, "kept"), (1, "waiting")]


def test_what_takes_longest_goes_first_and_what_is_unknown_before_it(profile):
    params = profile(**untuned("short", "long"))
    for task in grid.Grid(params).tasks:
        finish(params, task, {"short": 5.0, "long": 50.0}[task.arm] + task.seed, fingerprint="old")
    made = grid.Grid(params)
    assert [str(task) for task in made.queue()] == ["long seed 1", "long seed 0", "short seed 1", "short seed 0"]
    assert made.time_left(1) == pytest.approx(50 + 51 + 5 + 6)
    assert made.time_left(2) == pytest.approx(56)
    assert made.time_left(100) == pytest.approx(51)  # no less than the longest
    params = profile(**untuned("short", "long", "new"))
    shutil.rmtree(params.cell_dir("long", 0).parent)
    assert grid.Grid(params).expected(grid.Task("new", 0)) == pytest.approx(5.5)  # the median of all
    shutil.rmtree(params.cell_dir("short", 0).parent)
    made = grid.Grid(params)
    assert made.time_left(1) is None and made.queue()[0].arm == "short"


def test_recorded_times_count_by_the_epochs_there_are_now(profile):
    params = profile(**untuned("a"))
    for task in grid.Grid(params).tasks:
        finish(params, task, 10.0)
    longer = profile(**untuned("a"), train={**content()["train"], "epochs": 6})  # of two
    assert grid.Grid(longer).expected(grid.Task("a", 0)) == pytest.approx(30)


def test_cells_wait_for_their_arms_trials_alone(profile):
    params = profile()
    made = grid.Grid(params)
    assert [str(task) for task in made.queue()] == ["full tuning", "wild seed 0", "wild seed 1"]
    tuning = made.next_job(2)
    made.start(tuning)
    assert "full seed 0" not in map(str, made.queue())
    trials = {"fingerprint": made.fingerprint(tuning[0]), "chosen": 1e-3}
    records.write_json(params.tune_file("full"), trials)
    made.settle(tuning, "")
    assert tuning[0].state == "done" and "full seed 0" in map(str, made.queue())


def test_an_arm_that_cannot_be_tuned_fails_with_the_last_line_of_its_log(profile):
    made = grid.Grid(profile())
    tuning = made.next_job(1)
    made.start(tuning)
    made.settle(tuning, worker.how_it_ended(1, "a line\nerror: full: training diverged at every rate\n\n"))
    assert tuning[0].why == "full: training diverged at every rate"
    assert [task.why for task in made.in_state("failed")][1:] == ["its arm could not be tuned"] * 2
    assert {task.arm for task in made.queue()} == {"wild"}


def test_short_cells_of_an_arm_share_a_process_while_the_others_have_enough(profile):
    params = profile(**untuned("a", "b"), seeds=[0, 1, 2, 3, 4, 5])
    for task in grid.Grid(params).tasks:
        finish(params, task, 20.0 if task.arm == "a" else 2.0, fingerprint="old")
    made = grid.Grid(params)
    assert [task.seed for task in made.next_job(1)] == [0, 1, 2]  # 60 seconds of them
    assert [task.seed for task in made.next_job(6)] == [0, 1]  # 12 cells for 6 processes
    assert [task.seed for task in made.next_job(1, share=False)] == [0]
    for task in made.tasks:
        task.state = "kept" if task.arm == "a" else "waiting"
    assert len(made.next_job(1)) == 6


def test_a_process_that_dies_costs_the_cell_it_was_at_alone(profile):
    params = profile(**untuned("a"), seeds=[0, 1, 2])
    made = grid.Grid(params)
    job = list(made.tasks)
    made.start(job)
    finish(params, job[0])
    made.settle(job, worker.how_it_ended(-9, "loading\n"))
    assert [task.state for task in job] == ["done", "failed", "waiting"]
    assert job[1].why == "killed by SIGKILL, as the system does when memory runs out; last line: loading"


def test_a_diverged_cell_fails_by_its_record_and_an_old_failure_is_not_this_runs(profile):
    params = profile(**untuned("a"))
    made = grid.Grid(params)
    job = list(made.tasks)
    finish(params, job[1], status="failed", failure="nan, long ago")
    made.start(job)
    time.sleep(0.01)
    finish(params, job[0], status="failed", failure="nan in epoch 3", timings=None)
    made.settle(job, "the log's last line")
    assert (job[0].state, job[0].why) == ("failed", "nan in epoch 3")
    assert (job[1].state, job[1].why) == ("failed", "the log's last line")


def test_a_stopped_cell_has_not_failed_and_one_that_was_done_is_done(profile):
    params = profile(**untuned("a"))
    made = grid.Grid(params)
    job = list(made.tasks)
    made.start(job)
    finish(params, job[0])
    made.settle(job, "KeyboardInterrupt", stopped=True)
    assert [task.state for task in job] == ["done", "stopped"]


# Processes


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
        "pipelines.train", "--arm", "a", "--seed", "0", "--profile-file", "params.yaml"
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


def test_the_table_shows_arms_at_work_first_and_fits_the_terminal(profile, monkeypatch):
    made = grid.Grid(profile(**untuned("a", "b", "c", "d")))
    shown = progress.Progress(made)
    for task in made.tasks:
        task.state = "kept" if task.arm == "a" else "waiting"
    made.start([made.tasks[5]])
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in shown.table(10)]
    assert [line[0] for line in lines] == [" ", "c", "b", "d", "a"]
    assert lines[1].split() == ["c", "waiting", "0", "s"] and lines[4].split() == ["a", "kept", "kept"]
    assert [line.split()[0] for line in shown.table(4)] == ["0", "\x1b" and "c", "b", "and"]
    assert shown.table(4)[-1] == "and 2 more arms"
    assert shown.summary(1) == "2 of 8 cells done, 1 running, time left unknown"


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
