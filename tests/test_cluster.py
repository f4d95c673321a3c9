"""The launcher on a Ray cluster: a node lost in the middle, for real, and what nodes may send back."""

import gc
import hashlib
import json
import os
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

from pipelines.files import records
from pipelines.launching import grid, worker
from pipelines.profile import Params
from pipelines.runs.code import ROOT
from pipelines.runs.record import is_complete, read_record
from tests.conftest import tiny_params

ray = pytest.importorskip("ray", reason="the package ray is not installed (extra `cluster`)")

LONG = 900  # seconds, of a machine that has much else to do

from pipelines import cluster  # noqa: E402 (it imports ray


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
            for name, cpus in (("head", 0), ("first", 1), ("second", 1)):
                setattr(up, name, added(up.cluster, num_cpus=cpus, object_store_memory=80 * 2**20))
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
    command = [sys.executable, "-m", "pipelines.launch", "--ray", address, "--cache", str(folder / "cache"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), **pipes)


def test_a_node_without_the_shared_data_ends_the_launch_with_one_clear_error(nodes, profile, workdir):
    profile()
    with launch(workdir, nodes.cluster.address, "--shared", "/nowhere") as process:
        out, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("error: node ") and "/nowhere/data/tiny/manifest.json is not there; mount" in line
    assert not (workdir / "results").exists()


def training(cache) -> set:
    """(method, seed) of the processes that train with code from this cache."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
            if "pipelines.train" in words and str(cache).encode() in (process / "environ").read_bytes():
                found.add((words[words.index("--method") + 1], int(words[words.index("--seed") + 1])))
        except OSError:  # ended meanwhile
            continue
    return found


def test_ctrl_c_ends_what_the_nodes_train(nodes, profile, workdir):
    params = profile()
    with launch(workdir, nodes.cluster.address) as process:
        try:
            deadline = time.monotonic() + LONG
            while len(training(workdir / "cache")) < 2:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT and "launch again to continue" in err and "Traceback" not in err
    assert not training(workdir / "cache")
    # A run may have ended before the interrupt came; what is there is whole.
    assert all(is_complete(path.parent, read_record(path.parent)["fingerprint"])
               for path in (workdir / "results").rglob("record.json"))  # fmt: skip
    assert len(list((workdir / "results").rglob("record.json"))) < len(params.method) * len(params.seeds)


def test_a_grid_that_loses_a_node_completes_and_equals_a_serial_run(nodes, profile, workdir):
    params = profile()
    with launch(workdir, nodes.cluster.address) as process:
        try:
            busy, deadline = set(), time.monotonic() + LONG
            while len(busy) < 2 or not list((workdir / "cache/checkpoints").rglob("*.pt")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
                busy = training(workdir / "cache")
            nodes.cluster.remove_node(nodes.first, allow_graceful=False)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, ""), out + err
    assert "4 of 4 runs are complete" in out
    for method, seed in busy:  # one of them was on the lost node
        assert (
            f"({nodes.second.node_id[:12]})"
            in (workdir / f"checkpoints/tiny/{method}/{seed}.log").read_text().splitlines()[0]
        )
    serial = serial_run(params, workdir)
    for run in (params.run_dir(method, seed) for method in params.method for seed in params.seeds):
        with np.load(serial / run / "predictions.npz") as a, np.load(workdir / run / "predictions.npz") as b:
            assert all(np.array_equal(a[name], b[name]) for name in ("indices", "labels", "probabilities"))
        here, there = (read_record(root / run)["environment"] for root in (serial, workdir))
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
    """The grid, a run, and what an honest node sends of it."""
    params = profile(method={"full": {"family": "full"}})
    made = grid.Grid(params)
    task = made.tasks[0]
    record = {"status": "complete", "fingerprint": made.fingerprint(task), "environment": {"commit": None}}
    files = {"record.json": json.dumps(record).encode(), "curves.csv": b"epoch\n", "predictions.npz": b"PK"}
    return made, task, {"node": "n1", "returncode": 0, "log": b"", "files": files}


def test_what_a_node_sends_is_written_with_the_record_last(sent, workdir, monkeypatch):
    made, task, result = sent
    written, write = [], records.write_atomically
    monkeypatch.setattr(records, "write_atomically", lambda path, w: (written.append(path.name), write(path, w)))
    assert cluster.store(made, task, result) is None
    assert written[-1] == "record.json" and set(written) == set(result["files"])
    assert made.is_complete(task)
    assert (made.params.run_dir("full", 0) / "predictions.npz").read_bytes() == b"PK"


@pytest.mark.parametrize(
    "name",
    ["../1/record.json", "/tmp/x.json", "..", "a/b.csv", ".hidden.json", "run.py", "record.json.tmp", "a\x00.csv"],
)
def test_a_file_that_could_lie_elsewhere_is_refused_and_nothing_is_written(sent, workdir, name):
    made, task, result = sent
    result["files"][name] = b"x"
    assert cluster.store(made, task, result) == f"node n1 sent a file that does not belong there: {name!r}"
    assert not (workdir / "results").exists()


@pytest.mark.parametrize(
    "record, words",
    [
        (b'{"fingerprint": "other"}', "another fingerprint"),
        (b"{", "malformed record"),
        (b"[1]", "malformed record"),
        (b"{}", "malformed record"),
        (b"\xff", "malformed record"),
    ],
)
def test_a_record_that_is_not_the_runs_is_refused_and_nothing_is_written(sent, workdir, record, words):
    made, task, result = sent
    result["files"]["record.json"] = record
    assert words in cluster.store(made, task, result)
    assert not (workdir / "results").exists()


def test_a_node_that_sends_no_record_leaves_the_run_as_it_was(sent, workdir):
    made, task, result = sent
    assert cluster.store(made, task, {**result, "files": {"curves.csv": b""}}) is None
    assert not (workdir / "results").exists()


# What a node keeps


def parcel(name="data/images.npy", content=b"pixels", **changes):
    pieces = [content[:3], content[3:]]
    return {"key": "abc", "files": [(name, hashlib.sha256(content).hexdigest(), pieces)], **changes}


@pytest.fixture
def fetched(monkeypatch):
    """Pieces that Ray was asked for; here a reference is the piece itself."""
    asked = []
    monkeypatch.setattr(ray, "get", lambda piece: asked.append(piece) or piece)
    return asked


def test_a_parcel_is_unpacked_once(workdir, fetched):
    assert worker.unpack(parcel(), workdir / "cache") == workdir / "cache/abc"
    assert (workdir / "cache/abc/data/images.npy").read_bytes() == b"pixels"
    worker.unpack(parcel(), workdir / "cache")
    assert fetched == [b"pix", b"els"]


def test_a_parcel_half_unpacked_by_a_process_that_died_is_unpacked_anew(workdir, fetched):
    (workdir / "cache/abc.unfinished/data").mkdir(parents=True)
    (workdir / "cache/abc.unfinished/data/old.npy").touch()
    assert [path.name for path in (worker.unpack(parcel(), workdir / "cache") / "data").iterdir()] == ["images.npy"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_parcel_cannot_leave_its_folder(workdir, fetched, name):
    with pytest.raises(ValueError, match="leaves its folder"):
        worker.unpack(parcel(name), workdir / "cache")


def test_a_damaged_parcel_is_refused_and_not_kept(workdir, fetched):
    damaged = parcel()
    damaged["files"][0][2][0] = b"pxx"
    with pytest.raises(ValueError, match="launch again"):
        worker.unpack(damaged, workdir / "cache")
    assert not (workdir / "cache/abc").exists()


def test_shared_data_must_be_the_launchers(workdir):
    (workdir / "manifest.json").write_text("{}")
    worker.check_same(workdir / "manifest.json", hashlib.sha256(b"{}").hexdigest())
    with pytest.raises(ValueError, match="not the file that the launcher has"):
        worker.check_same(workdir / "manifest.json", hashlib.sha256(b"other").hexdigest())


def test_weights_are_placed_wherever_a_profile_names_them():
    content = {"model": {"weights": {"resnet18": "a", "vgg16": "imagenet"}}, "method": {"x": {"weights": "b"}, "y": {}}}
    assert cluster._with_weights(content, lambda path: f"<{path}>") == {
        "model": {"weights": {"resnet18": "<a>", "vgg16": "<imagenet>"}},
        "method": {"x": {"weights": "<b>"}, "y": {}},
    }
