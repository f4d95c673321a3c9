"""The launcher on a Ray cluster: a node lost in the middle, for real, and what nodes may send back."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from pipelines.data.prepared import read_manifest
from pipelines.files import records
from pipelines.launching.grid import Grid, Wave
from pipelines.profile import Params, ParamsError
from pipelines.runs.code import ROOT
from pipelines.runs.record import is_complete, read_record
from tests.conftest import tiny_params

ray = pytest.importorskip("ray", reason="the package ray is not installed (extra `cluster`)")

LONG = 300  # seconds, of a machine that has much else to do

from pipelines.launching import cluster  # noqa: E402 (it imports ray)


def content(**changes) -> dict:
    methods = {"full": {"family": "full"}, "head-only": {"family": "head_only"}}
    train = {**tiny_params()["train"], "epochs": 20}
    return tiny_params(**{"method": methods, "train": train, **changes})


def environment():
    return {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def profile(prepared, workdir):
    def write(**changes):
        found = content(**changes)
        (workdir / "params.yaml").write_text(yaml.safe_dump(found))
        return Params(**found)

    return write


@pytest.fixture(scope="module")
def nodes():
    """A cluster of a head without CPUs and two nodes with one each: `cluster`, `head`, `first` and `second`."""
    from ray.cluster_utils import Cluster

    up = SimpleNamespace(cluster=Cluster())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_register_timeout_seconds", str(LONG))
        try:
            small = {"object_store_memory": 80 * 2**20}
            up.head = added(up.cluster, num_cpus=0, **small)
            for name in ("first", "second"):
                # Ray unpacks the working directory anew for each node, and would delete it under another's tasks here.
                own = f"runtime_resources_{name}"
                setattr(up, name, added(up.cluster, num_cpus=1, runtime_env_dir_name=own, **small))
            yield up
        finally:
            up.cluster.shutdown()
            vars(up).clear()
            with warnings.catch_warnings():  # Ray leaves log files of nodes that did not come up to the collector
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()


def added(cluster, **options):
    """A new node; Ray gives one's agent 15 seconds to come up, which a busy machine may not have the first time."""
    for left in (2, 1, 0):
        try:
            return cluster.add_node(**options)
        except Exception as error:
            if "timed out during startup" not in str(error) or not left:
                raise


def launch(folder, address, *arguments):
    command = [sys.executable, "-m", "pipelines.launch", "--ray", address, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), **pipes)


def test_a_node_without_the_shared_data_ends_the_launch_with_one_clear_error(nodes, profile, workdir):
    profile()
    with launch(workdir, nodes.cluster.address, "--shared", "/nowhere") as process:
        out, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert err.count("\n") == 1, err
    line = err.strip()
    assert line.startswith("error: node ") and "/nowhere/data/tiny/manifest.json is not there; mount" in line
    assert not (workdir / "results").exists()


def workers() -> list[int]:
    """The processes that train on nodes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::work"):
                cwd = str((process / "cwd").resolve())
                found += [int(process.name)] if "working_dir_files" in cwd else []
        except OSError:  # ended meanwhile
            continue
    return found


def checkpoints() -> list[Path]:
    return [path for pid in workers() for path in Path(f"/proc/{pid}/cwd/checkpoints").rglob("*.pt")]


def test_ctrl_c_ends_what_the_nodes_train(nodes, profile, workdir):
    params = profile()
    with launch(workdir, nodes.cluster.address) as process:
        try:
            deadline = time.monotonic() + LONG
            while len(workers()) < 2:
                assert process.poll() is None, "\n".join(process.communicate())  # in full
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT and "launch again to continue" in err and "Traceback" not in err
    assert not workers()
    # A run may have ended before the interrupt came; what is there is whole.
    assert all(is_complete(path.parent, read_record(path.parent).fingerprint)
               for path in (workdir / "results").rglob("record.json"))  # fmt: skip
    assert len(list((workdir / "results").rglob("record.json"))) < len(params.method) * len(params.seeds)


def test_a_grid_that_loses_a_node_completes_and_equals_a_serial_run(nodes, profile, workdir):
    params = profile()
    with launch(workdir, nodes.cluster.address) as process:
        try:
            deadline = time.monotonic() + LONG
            while len(workers()) < 2 or not checkpoints():
                assert process.poll() is None, "\n".join(process.communicate())  # in full
                assert time.monotonic() < deadline
                time.sleep(0.05)
            nodes.cluster.remove_node(nodes.first, allow_graceful=False)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, ""), out + err
    assert "4 of 4 runs are complete" in out
    lost = re.findall(r"(\S+) seed (\d) was lost with its node and will start again", out)
    assert len(lost) == 1
    for method, seed in lost:
        log = (workdir / f"checkpoints/tiny/{method}/{seed}.log").read_text()
        assert f"({nodes.second.node_id[:12]})" in log.splitlines()[0]
    serial = serial_run(params, workdir)
    for run in (params.run_dir(method, seed) for method in params.method for seed in params.seeds):
        with np.load(serial / run / "predictions.npz") as a, np.load(workdir / run / "predictions.npz") as b:
            assert all(np.array_equal(a[name], b[name]) for name in ("indices", "labels", "probabilities"))
        here, there = (read_record(root / run).environment for root in (serial, workdir))
        assert there["threads"] == 1 and there["commit"] == here["commit"]


def serial_run(params, workdir):
    """The grid trained by this process, run after run, in a folder of its own, which is returned."""
    import torch

    from pipelines.training import runner

    folder, threads = workdir / "serial", torch.get_num_threads()
    folder.mkdir()
    (folder / "data").symlink_to(workdir / "data")
    try:
        os.chdir(folder)
        torch.set_num_threads(1)
        for method in params.method:
            runner.run_method(params, method, params.seeds)
    finally:
        torch.set_num_threads(threads)
        os.chdir(workdir)
    return folder


# What a node may send back


@pytest.fixture
def sent(profile):
    """A run, and what an honest node sends of it."""
    params = profile(method={"full": {"family": "full"}})
    task = Grid([Wave("params.yaml", params)]).tasks[0]
    scores = {"acc": 0.5, "balanced_acc": 0.5, "auc": 0.5, "loss": 1.0}
    record = {
        "profile": "tiny", "method": "full", "seed": 0, "status": "complete", "fingerprint": task.fingerprint(),
        "settings": {"family": "full", "train": {"epochs": 1, "batch_size": 1, "lr": 0.1}},
        "metrics": {"best_epoch": 1, "val": scores, "test": scores},
        "parameters": {"trainable": 1, "total": 1, "flops": 1},
        "data": {"train": 1, "val": 1, "test": 1, "classes": read_manifest(params.data_dir).classes},
        "timings": {"epoch_s": 1.0, "total_s": 1.0}, "environment": {"dirty": False},
    }  # fmt: skip
    folder = params.run_dir("full", 0).as_posix()
    names = {"record.json": json.dumps(record).encode(), "curves.csv": b"epoch\n", "predictions.npz": b"PK"}
    return task, {"node": "n1", "files": {f"{folder}/{name}": content for name, content in names.items()}}


def test_what_a_node_sends_is_written_with_the_record_last(sent, workdir, monkeypatch):
    task, result = sent
    model = (task.params.model_dir("full", 0) / "card.json").as_posix()
    result["files"][model] = b"{}"
    written, write = [], records.write_atomically
    monkeypatch.setattr(records, "write_atomically", lambda path, w: (written.append(path.as_posix()), write(path, w)))
    cluster.store(task, result["files"])
    assert written[-1].endswith("record.json") and set(written) == set(result["files"])
    assert task.is_complete()
    assert (task.params.run_dir("full", 0) / "predictions.npz").read_bytes() == b"PK"


def test_a_node_that_sends_no_record_leaves_the_run_as_it_was(sent, workdir):
    task, result = sent
    cluster.store(task, {"curves.csv": b""})
    assert not (workdir / "results").exists()


def test_what_ray_cannot_carry_is_refused_with_the_way_round_it(profile, monkeypatch):
    grid = Grid([Wave("params.yaml", profile())])
    monkeypatch.setattr(cluster, "LARGEST", 1000)
    with pytest.raises(ParamsError, match="a folder that all nodes see, and name it with --shared"):
        cluster.Cluster(grid, SimpleNamespace(shared=None, ray="auto"))


@pytest.mark.parametrize("per_gpu", [1, 5, 10, 11, 13])
def test_each_gpu_takes_as_many_runs_as_asked_for(profile, monkeypatch, per_gpu):
    monkeypatch.setattr(cluster, "_connect", lambda address, folder: None)
    monkeypatch.setattr(
        cluster, "_nodes", lambda: [{"CPU": 3.0 * per_gpu, "GPU": 1.0}, {"CPU": 6.0 * per_gpu, "GPU": 2.0}]
    )
    args = SimpleNamespace(shared="/data", ray="auto", per_gpu=per_gpu, threads=None, memory=None, jobs=None)
    made = cluster.Cluster(Grid([Wave("params.yaml", profile())]), args)
    assert (made.slots, made.threads) == (3 * per_gpu, 3)
