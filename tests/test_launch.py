"""The launcher on this machine: a real grid stopped half-way, launched again, and recorded by DVC; then its parts."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines import launch
from pipelines.profile import Params
from pipelines.runs.code import ROOT
from pipelines.training import runner, tuning
from tests.conftest import bright_quadrants, tiny_params, write_prepared

GIB = 2**30
EPOCHS = 15
LONG = 900  # seconds, of a machine that has much else to do


def content(**changes) -> dict:
    """Two seeds of a method to be tuned and of one that cannot but diverge."""
    methods = {"full": {"family": "full"}, "wild": {"family": "head_only", "train": {"lr": 1e30}}}
    return tiny_params(
        **{"method": methods, "tune": {"lrs": [1e-3, 3e-3], "epochs": 1}, "pretrain": None, "probe": None, **changes}
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
    """A copy of the project with data; launched, stopped when a run was half trained, and launched again."""
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
    command = [sys.executable, "-m", "pipelines.launch", "--jobs", "2", "--method", "full", "--seed", "0"]
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
    assert f"launch.lock: process {project['pid']} on" in project["other"].stderr
    assert len(project["other"].stderr.splitlines()) == 1


def test_the_next_launch_completes_the_grid_but_for_the_runs_that_fail(project):
    done = project["second"]
    assert done.returncode == 1
    assert "2 of 4 runs are complete" in done.stdout
    for seed in (0, 1):
        assert re.search(
            rf"wild seed {seed} failed: training loss is nan in epoch 1.*\n"
            rf"  log: (checkpoints/tiny/wild/\d.log)\n  rerun: python -m pipelines.train --method wild --seed {seed}\n",
            done.stderr,
        )
    assert "seed 0: training loss is nan" in (project["folder"] / "checkpoints/tiny/wild/0.log").read_text()
    assert "\x1b" not in done.stdout
    record = (project["folder"] / "results/tiny/runs/full/1/record.json").read_text()
    assert '"command": "python -m pipelines.train --method full --seed 1"' in record  # what repeats the run


def test_parallel_and_interrupted_runs_equal_serial_ones(project, workdir):
    import torch

    threads = torch.get_num_threads()
    (workdir / "data").mkdir()
    (workdir / "data/tiny").symlink_to(project["folder"] / "data/tiny")
    try:
        torch.set_num_threads(1)
        tuning.tune_method(project["params"], "full")
        runner.run_method(project["params"], "full", [0, 1])
    finally:
        torch.set_num_threads(threads)
    for seed in (0, 1):
        run = project["params"].run_dir("full", seed)
        with np.load(run / "predictions.npz") as serial, np.load(project["folder"] / run / "predictions.npz") as here:
            assert all(np.array_equal(serial[name], here[name]) for name in ("indices", "labels", "probabilities"))
        curves = [[line.rsplit(",", 1)[0] for line in (root / run / "curves.csv").read_text().splitlines()]
                  for root in (workdir, project["folder"])]  # fmt: skip
        assert len(curves[0]) == EPOCHS + 1 and curves[0] == curves[1]


def test_when_the_minutes_are_up_everything_stops_and_nothing_is_counted_as_failed(prepared, workdir, capsys):
    (workdir / "params.yaml").write_text(yaml.safe_dump(content(tune=None)))
    assert launch.main(["--jobs", "1", "--method", "full", "--minutes", "0.001"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 2 runs are complete" in out
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
    done = module(project["folder"], "pipelines.launch", "--method", "full")
    assert done.returncode == 0 and done.stdout == "profile tiny: 2 of 2 runs are complete\n"
