"""What a launch does before any process starts, what comes next, and how each task ended."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from pipelines.files import records
from pipelines.launching import grid, launcher, worker
from pipelines.profile import Params
from pipelines.runs import code
from pipelines.runs.code import ROOT
from pipelines.training import runner
from tests.test_launch import content, environment


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
    """Leave the record that a run's process would leave."""
    folder, settings = params.run_dir(task.method, task.seed), params.settings(task.method)
    record = {"status": "complete", "failure": None, "fingerprint": runner.identity(params, settings, task.seed),
              "settings": settings, "timings": {"total_s": seconds}, **changes}  # fmt: skip
    if record["status"] == "complete":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "curves.csv").touch()
        (folder / "predictions.npz").touch()
    records.write_json(folder / "record.json", record)


def untuned(*methods):
    return {"tune": None, "method": {method: {"family": "head_only"} for method in methods}}


def test_a_dry_run_lists_trials_and_runs_imports_no_torch_and_starts_nothing(profile, workdir):
    profile()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pipelines import launch; code = launcher.main(['--dry-run'])\n"
         "assert not {'torch', 'numpy', 'ray', 'pandas'} & set(sys.modules); sys.exit(code)"],
        cwd=workdir, env={**environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "full tuning: would run" and "wild seed 1: would run" in lines
    assert lines[-1] == "4 runs to train, 0 complete"
    assert not (workdir / "checkpoints").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--method", "ful"], "did you mean 'full'"),
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
    assert launcher.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_missing_data_are_one_clear_error(profile, capsys):
    profile(profile="other")
    assert launcher.main([]) == 1
    assert capsys.readouterr().err == (
        "error: data/other/manifest.json: no prepared data; run `python -m pipelines.prepare` first\n"
    )


def test_an_method_that_cannot_be_set_up_fails_alone_and_before_anything_runs(profile):
    made = grid.Grid(profile(method={"good": {"family": "full"}, "bad": {"family": "full", "weights": "none.pt"}}))
    assert {task.method for task in made.in_state("failed")} == {"bad"} and len(made.in_state("failed")) == 2
    assert "'none.pt': no such file" in made.in_state("failed")[0].why
    assert [str(task) for task in made.queue()] == ["good tuning"]


def test_a_profile_locked_by_a_process_that_died_is_free(workdir):
    path = workdir / "checkpoints/tiny/launcher.lock"
    script = (
        "import os, signal, sys; from pathlib import Path; from pipelines import launch\n"
        f"with launcher._locked(Path({str(path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)})
    assert died.returncode == -signal.SIGKILL and path.read_text().startswith("process ")
    with launcher._locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(launcher.LaunchError, match=f"another launcher, process {os.getpid()} on"),
            launcher._locked(path),
        ):
            pass


# What comes next, and how it ended


def test_complete_runs_are_kept_and_stale_ones_are_not(profile):
    params = profile(**untuned("a"))
    for task in grid.Grid(params).tasks:
        finish(params, task, **({"fingerprint": "old"} if task.seed else {}))
    assert [(task.seed, task.state) for task in grid.Grid(params).tasks] == [(0, "kept"), (1, "waiting")]


def test_what_takes_longest_goes_first_and_what_is_unknown_before_it(profile):
    params = profile(**untuned("short", "long"))
    for task in grid.Grid(params).tasks:
        finish(params, task, {"short": 5.0, "long": 50.0}[task.method] + task.seed, fingerprint="old")
    made = grid.Grid(params)
    assert [str(task) for task in made.queue()] == ["long seed 1", "long seed 0", "short seed 1", "short seed 0"]
    assert made.time_left(1) == pytest.approx(50 + 51 + 5 + 6)
    assert made.time_left(2) == pytest.approx(56)
    assert made.time_left(100) == pytest.approx(51)  # no less than the longest
    params = profile(**untuned("short", "long", "new"))
    shutil.rmtree(params.run_dir("long", 0).parent)
    assert grid.Grid(params).expected(grid.Task("new", 0)) == pytest.approx(5.5)  # the median of all
    shutil.rmtree(params.run_dir("short", 0).parent)
    made = grid.Grid(params)
    assert made.time_left(1) is None and made.queue()[0].method == "short"


def test_recorded_times_count_by_the_epochs_there_are_now(profile):
    params = profile(**untuned("a"))
    for task in grid.Grid(params).tasks:
        finish(params, task, 10.0)
    longer = profile(**untuned("a"), train={**content()["train"], "epochs": 6})  # of two
    assert grid.Grid(longer).expected(grid.Task("a", 0)) == pytest.approx(30)


def test_runs_wait_for_their_methods_trials_alone(profile):
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


def test_an_method_that_cannot_be_tuned_fails_with_the_last_line_of_its_log(profile):
    made = grid.Grid(profile())
    tuning = made.next_job(1)
    made.start(tuning)
    made.settle(tuning, worker.how_it_ended(1, "a line\nerror: full: training diverged at every rate\n\n"))
    assert tuning[0].why == "full: training diverged at every rate"
    assert [task.why for task in made.in_state("failed")][1:] == ["its method could not be tuned"] * 2
    assert {task.method for task in made.queue()} == {"wild"}


def test_short_runs_of_an_method_share_a_process_while_the_others_have_enough(profile):
    params = profile(**untuned("a", "b"), seeds=[0, 1, 2, 3, 4, 5])
    for task in grid.Grid(params).tasks:
        finish(params, task, 20.0 if task.method == "a" else 2.0, fingerprint="old")
    made = grid.Grid(params)
    assert [task.seed for task in made.next_job(1)] == [0, 1, 2]  # 60 seconds of them
    assert [task.seed for task in made.next_job(6)] == [0, 1]  # 12 runs for 6 processes
    assert [task.seed for task in made.next_job(1, share=False)] == [0]
    for task in made.tasks:
        task.state = "kept" if task.method == "a" else "waiting"
    assert len(made.next_job(1)) == 6


def test_a_process_that_dies_costs_the_run_it_was_at_alone(profile):
    params = profile(**untuned("a"), seeds=[0, 1, 2])
    made = grid.Grid(params)
    job = list(made.tasks)
    made.start(job)
    finish(params, job[0])
    made.settle(job, worker.how_it_ended(-9, "loading\n"))
    assert [task.state for task in job] == ["done", "failed", "waiting"]
    assert job[1].why == "killed by SIGKILL, as the system does when memory runs out; last line: loading"


def test_a_diverged_run_fails_by_its_record_and_an_old_failure_is_not_this_runs(profile):
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


def test_a_stopped_run_has_not_failed_and_one_that_was_done_is_done(profile):
    params = profile(**untuned("a"))
    made = grid.Grid(params)
    job = list(made.tasks)
    made.start(job)
    finish(params, job[0])
    made.settle(job, "KeyboardInterrupt", stopped=True)
    assert [task.state for task in job] == ["done", "stopped"]
