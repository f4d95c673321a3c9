"""What a launch does before any process starts, what comes next, and how each task ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from pipelines import launch
from pipelines.data import sources
from pipelines.data.prepared import read_manifest
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.files.locks import locked
from pipelines.launching import launcher, processes
from pipelines.launching.grid import Grid, Wave
from pipelines.profile import Params, ParamsError
from pipelines.runs.code import ROOT
from pipelines.runs.record import Record, write_record
from pipelines.training import runner
from tests.test_launch import content, environment


@pytest.fixture
def profile(prepared, workdir):
    def write(**changes):
        found = content(**changes)
        (workdir / "params.yaml").write_text(yaml.safe_dump(found))
        return Params(**found)

    return write


def grid_of(params, methods=None, seeds=None):
    return Grid([Wave("params.yaml", params, methods, seeds)])


def finish(params, task, seconds=10.0, **changes):
    """Leave the record that a run's process would leave."""
    folder, settings = params.run_dir(task.method, task.seed), params.settings(task.method)
    scores = {"acc": 0.5, "balanced_acc": 0.5, "auc": 0.5, "loss": 1.0}
    record = {
        "profile": params.profile, "method": task.method, "seed": task.seed, "status": "complete", "failure": None,
        "fingerprint": runner.identity(params, task.method, settings, task.seed), "settings": settings,
        "metrics": {"best_epoch": 1, "val": scores, "test": scores},
        "parameters": {"trainable": 1, "total": 1, "flops": 1},
        "data": {"train": 1, "val": 1, "test": 1, "classes": read_manifest(params.data_dir).classes},
        "timings": {"epoch_s": 1.0, "total_s": seconds}, "environment": {}, **changes,
    }  # fmt: skip
    if record["status"] == "complete":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "curves.csv").touch()
        (folder / "predictions.npz").touch()
    write_record(folder, Record(**record))


def untuned(*methods):
    return {"tune": None, "method": {method: {"family": "head_only"} for method in methods}}


def names(tasks):
    return [str(task) for task in tasks]


def test_a_dry_run_lists_trials_and_runs_imports_no_torch_and_starts_nothing(profile, workdir):
    profile()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pipelines import launch; code = launch.main(['--dry-run'])\n"
         "found = {'torch', 'ray', 'pandas'} & set(sys.modules); sys.exit(str(found) if found else code)"],
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
    assert launch.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_missing_data_are_one_clear_error(profile, capsys):
    profile(profile="other")
    assert launch.main([]) == 1
    assert capsys.readouterr().err == (
        "error: data/other/manifest.json: no prepared data; run `python -m pipelines.prepare` first\n"
    )


def test_a_races_trials_count_in_what_a_tuning_task_is_expected_to_take(profile):
    tune = {"lrs": [1e-3, 3e-3, 1e-2], "epochs": 1, "seeds": [0, 1]}
    sizes = {task.size for task in grid_of(profile(tune=tune)).tasks if task.seed is None}
    assert sizes == {(3 + 2) * 1 / 2}  # trials of one epoch, in runs of two


def test_data_of_other_settings_are_told_before_anything_is_planned(profile, capsys):
    """On a borrowed machine every task would otherwise fail for itself, after a start that is paid for."""
    params = profile()
    manifest = params.data_dir / "manifest.json"
    made_from = {"settings": {**sources.settings(params.data), "fit": "stretch"}, "inputs": {}}
    records.write_json(manifest, {**json.loads(manifest.read_text()), "made_from": made_from})
    assert launch.main(["--dry-run"]) == 1
    done = capsys.readouterr()
    assert done.out == "" and "data/tiny: prepared with other settings than the profile has now; run" in done.err


def test_a_method_that_cannot_be_set_up_fails_alone_and_before_anything_runs(profile):
    made = grid_of(profile(method={"good": {"family": "full"}, "bad": {"family": "full", "weights": "none.pt"}}))
    assert {task.method for task in made.in_state("failed")} == {"bad"} and len(made.in_state("failed")) == 2
    assert "'none.pt': no such file" in made.in_state("failed")[0].why
    assert names(made.queue()) == ["good tuning"]


def test_nohup_keeps_a_launcher_through_a_hang_up_and_other_signals_stop_it():
    stops, before = [], signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with launcher.on_stop(lambda number, frame: stops.append(number)):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert stops == [signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with launcher.on_stop(lambda number, frame: stops.append(number)):
            signal.raise_signal(signal.SIGHUP)
        assert stops == [signal.SIGTERM, signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_locked_by_a_process_that_died_is_free(workdir):
    path = workdir / "checkpoints/tiny/launch.lock"
    script = (
        "import os, signal, sys; from pathlib import Path; from pipelines.files.locks import locked\n"
        f"with locked(Path({str(path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", script], env={**environment(), "PYTHONPATH": str(ROOT)})
    assert died.returncode == -signal.SIGKILL and path.read_text().startswith("process ")
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(UserError, match=f"launch.lock: process {os.getpid()} on .* is at work"), locked(path):
            pass


# What comes next


def test_complete_runs_are_kept_and_stale_ones_are_not(profile):
    params = profile(**untuned("a"))
    for task in grid_of(params).tasks:
        finish(params, task, **({"fingerprint": "old"} if task.seed else {}))
    assert [(task.seed, task.state) for task in grid_of(params).tasks] == [(0, "kept"), (1, "waiting")]


def test_renamed_classes_make_a_run_stale(profile):
    """Its images are the same, but predictions and page would go on calling them by the old names."""
    params = profile(**untuned("a"))
    for task in grid_of(params).tasks:
        old = ["old", *read_manifest(params.data_dir).classes[1:]]
        finish(params, task, data={"train": 1, "val": 1, "test": 1, "classes": old})
    assert {task.state for task in grid_of(params).tasks} == {"waiting"}


def test_a_damaged_record_costs_its_own_run_alone(profile):
    params = profile(**untuned("a"))
    damaged, whole = grid_of(params).tasks
    finish(params, whole)
    damaged.record_file.parent.mkdir(parents=True, exist_ok=True)
    damaged.record_file.write_text("{")
    found = grid_of(params).tasks
    assert [task.state for task in found] == ["failed", "kept"] and "record.json" in found[0].why


def test_what_takes_longest_goes_first_and_what_is_unknown_before_it(profile):
    params = profile(**untuned("short", "long"))
    for task in grid_of(params).tasks:
        finish(params, task, {"short": 5.0, "long": 50.0}[task.method] + task.seed, fingerprint="old")
    made = grid_of(params)
    assert names(made.queue()) == ["long seed 0", "long seed 1", "short seed 0", "short seed 1"]
    assert made.time_left(1) == pytest.approx(2 * 50.5 + 2 * 5.5)
    assert made.time_left(2) == pytest.approx(56)
    assert made.time_left(100) == pytest.approx(50.5)  # no less than the longest
    params = profile(**untuned("short", "long", "new"))
    assert grid_of(params).expected(next(t for t in grid_of(params).tasks if t.method == "new")) == pytest.approx(28)
    shutil.rmtree(params.run_dir("long", 0).parent)
    shutil.rmtree(params.run_dir("short", 0).parent)
    assert grid_of(params).time_left(1) is None and grid_of(params).queue()[0].method == "short"


def test_recorded_times_count_by_the_epochs_there_are_now(profile):
    params = profile(**untuned("a"))
    for task in grid_of(params).tasks:
        finish(params, task, 10.0)
    longer = grid_of(profile(**untuned("a"), train={**content()["train"], "epochs": 6}))  # of two
    assert longer.expected(longer.tasks[0]) == pytest.approx(30)


def test_runs_wait_for_their_methods_trials_alone(profile):
    params = profile()
    made = grid_of(params)
    assert names(made.queue()) == ["full tuning", "wild seed 0", "wild seed 1"]
    tuning = made.queue()[0]
    made.start(tuning)
    assert "full seed 0" not in names(made.queue())
    records.write_json(params.tune_file("full"), {"fingerprint": tuning.fingerprint(), "chosen": 1e-3})
    made.settle(tuning, "")
    assert tuning.state == "done" and "full seed 0" in names(made.queue())


def test_a_wave_goes_before_the_next_one_and_a_run_in_two_waves_is_one(profile):
    params = profile(**untuned("a", "b"), seeds=[0, 1, 2])
    other = Params(**{**params.model_dump(), "profile": "tiny-other", "data": params.model_dump()["data"]})
    shutil.copytree(params.data_dir, other.data_dir)
    for seed in (0, 1):  # known to be long, which decides within a wave alone
        finish(params, next(t for t in grid_of(params).tasks if (t.method, t.seed) == ("b", seed)), fingerprint="old")
    made = Grid([
        Wave("params.yaml", params, ["a"], [2]), Wave("other.yaml", other, ["a"], [0]),
        Wave("params.yaml", params, ["a", "b"], [2, 0]),
    ])  # fmt: skip
    assert [f"{task.rank} {task}" for task in made.queue()] == [
        "0 tiny: a seed 2", "1 tiny-other: a seed 0", "2 tiny: a seed 0", "2 tiny: b seed 2", "2 tiny: b seed 0"
    ]  # fmt: skip
    with pytest.raises(ParamsError, match="another file has a profile 'tiny' too"):
        Grid([Wave("params.yaml", params), Wave("other.yaml", profile(**untuned("c")))])


# How it ended


def test_a_method_that_cannot_be_tuned_fails_with_the_last_line_of_its_log(profile):
    made = grid_of(profile())
    tuning = made.queue()[0]
    made.start(tuning)
    made.settle(tuning, processes.last_word(1, "a line\nerror: full: training diverged at every rate\n\n"))
    assert tuning.why == "full: training diverged at every rate"
    assert [task.why for task in made.in_state("failed")][1:] == ["its method could not be tuned"] * 2
    assert {task.method for task in made.queue()} == {"wild"}


def test_a_process_that_dies_is_named_by_its_signal():
    why = processes.last_word(-9, "loading\n")
    assert why == "killed by SIGKILL, as the system does when memory runs out; last line: loading"


def test_a_diverged_run_fails_by_its_record_and_an_old_failure_is_not_this_runs(profile):
    params = profile(**untuned("a"))
    made = grid_of(params)
    first, second = made.tasks
    finish(params, second, status="failed", failure="nan, long ago")
    for task in made.tasks:
        made.start(task)
    time.sleep(0.01)
    finish(params, first, status="failed", failure="nan in epoch 3", timings=None)
    for task in made.tasks:
        made.settle(task, "the log's last line")
    assert [(task.state, task.why) for task in made.tasks] == [
        ("failed", "nan in epoch 3"), ("failed", "the log's last line")
    ]  # fmt: skip


def test_a_stopped_run_has_not_failed_and_one_that_was_done_is_done(profile):
    params = profile(**untuned("a"))
    made = grid_of(params)
    for task in made.tasks:
        made.start(task)
    finish(params, made.tasks[0])
    for task in made.tasks:
        made.settle(task, "KeyboardInterrupt", stopped=True)
    assert [task.state for task in made.tasks] == ["done", "stopped"]


def test_a_run_stopped_after_its_stale_record_went_is_stopped_and_one_that_died_then_failed(profile):
    params = profile(**untuned("a"))
    for task in grid_of(params).tasks:
        finish(params, task, fingerprint="old")
    made = grid_of(params)
    for task in made.tasks:
        made.start(task)
        task.record_file.unlink()
    made.settle(made.tasks[0], "KeyboardInterrupt", stopped=True)
    made.settle(made.tasks[1], "killed by SIGKILL")
    assert [(task.state, task.why) for task in made.tasks] == [("stopped", ""), ("failed", "killed by SIGKILL")]
