"""What happens to files when the disk is full, a folder may not be written, or a file was damaged behind our backs."""

import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipelines import prepare, train
from pipelines.data import preparation, prepared
from pipelines.data.sources import DataError
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.runs.reading import read_runs
from pipelines.runs.record import is_complete
from pipelines.training import checkpoint as checkpoints
from pipelines.training import loop, runner
from report.__main__ import main as report
from tests.conftest import tiny_params
from tests.report import made

PAGE = 4096  # what a small file takes of a disk in memory
DISK = 4096 * PAGE


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("pipelines.data.card.draw_examples", lambda *_: None)  # they take seconds


def mounted(*command):
    done = subprocess.run(["mount", *command], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A real disk of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def read_only():
    """A function that makes a folder read-only, for root too, until the test ends."""
    folders = []

    def make(folder):
        mounted("--bind", str(folder), str(folder))
        folders.append(folder)
        mounted("-o", "remount,ro,bind", str(folder))

    yield make
    for folder in folders:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Take all but `leave` pages of a disk; returns the file to delete to give them back."""
    free = os.statvfs(disk).f_bavail - leave
    filler = disk / "filler"
    filler.write_bytes(bytes(free * PAGE))
    assert os.statvfs(disk).f_bavail == leave
    return filler


def contents(folder: Path) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "filler"}


def checkpoint(path: Path, model=None) -> None:
    model = model or torch.nn.Linear(200, 200)
    optimizer = torch.optim.Adam(model.parameters())
    checkpoints.save(path, "me", model, optimizer, None, checkpoints.Fit([{"epoch": 1}], 1, model.state_dict()))


WRITERS = {
    "record.json": lambda path: records.write_json(path, {"numbers": list(range(20_000))}),
    "curves.csv": lambda path: runner.write_curves(path, [{"epoch": n, "loss": 1 / n} for n in range(1, 4000)]),
    "predictions.npz": lambda path: records.write_arrays(path, p=np.random.default_rng(0).random(20_000)),
    "checkpoint.pt": checkpoint,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_says_so(disk, name):
    (disk / name).write_text("old")
    filler = fill(disk, leave=2)
    with pytest.raises(OSError, match=f"cannot be written .No space left on device.*make room.*{name}") as caught:
        WRITERS[name](disk / name)
    assert caught.value.errno == errno.ENOSPC
    assert contents(disk) == {name: b"old"}
    filler.unlink()
    WRITERS[name](disk / name)
    assert (disk / name).stat().st_size > 2 * PAGE


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written_is_named(tmp_path, read_only, name):
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / name).write_text("old")
    read_only(folder)
    with pytest.raises(OSError, match=f"cannot be written .Read-only file system.*allow writing there.*{name}"):
        WRITERS[name](folder / name)
    assert contents(folder) == {name: b"old"}


def test_without_the_right_to_mount_a_failing_sync_stands_for_a_full_disk(tmp_path, monkeypatch):
    records.write_json(tmp_path / "record.json", {"a": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*record.json"):
        records.write_json(tmp_path / "record.json", {"a": 2})
    assert json.loads((tmp_path / "record.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


# --- prepared data ----------------------------------------------------------------------------------------------------


def prepared_on(disk, workdir):
    """data/tiny on a disk of its own, 48 images of 1 KiB each, whole."""
    (workdir / "data").mkdir()
    (workdir / "data" / "tiny").symlink_to(disk)
    params = Params(**tiny_params(data=small(16)))
    preparation.prepare(params)
    return params


def small(train):
    return {"source": "phantom", "image_size": 32, "phantom": {"train": train, "val": 16, "test": 16}}


@pytest.mark.parametrize("leave", [3, 17, 18, 19], ids=["images", "labels", "splits", "manifest"])
def test_a_disk_full_while_preparing_leaves_what_was_there(disk, workdir, leave):
    """64 images take 17 pages with their header, so each of the four files in turn is the one that does not fit."""
    params = prepared_on(disk, workdir)
    before = contents(disk)
    filler = fill(disk, leave)
    other = Params(**tiny_params(data=small(32)))
    with pytest.raises((DataError, OSError), match="no room for 65,536 bytes|No space left on device.*make room") as e:
        preparation.prepare(other)
    assert "data/tiny" in str(e.value) and ("images.npy" in str(e.value)) == (leave < 17)
    assert contents(disk) == before
    prepared.verify(params)
    with pytest.raises(DataError, match="other settings than the profile has now; run `python -m pipelines.prepare`"):
        prepared.verify(other)
    filler.unlink()
    assert preparation.prepare(other).count == 64
    prepared.verify(other)


def test_preparing_on_a_full_disk_is_an_error_in_one_line(disk, workdir, capsys):
    prepared_on(disk, workdir)
    fill(disk)
    capsys.readouterr()
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(data=small(32))))
    assert prepare.main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: data/tiny/images.npy: no room") and error.count("\n") == 1


def test_prepared_data_in_a_read_only_folder_are_used(prepared, workdir, read_only):
    """As data on a shared disk may be."""
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(seeds=[0])))
    read_only(prepared)
    assert train.main(["--method", "head-only"]) == 0


def flip(path: Path, at: int = -1, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "splits.npz", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_data_are_an_error_until_they_are_prepared_again(workdir, capsys, name, damage):
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(seeds=[0])))
    assert prepare.main([]) == 0
    path = workdir / "data" / "tiny" / name
    whole = path.read_bytes()
    if name == "splits.npz" and damage is flip:
        flip(path, at=whole.index(b"NUMPY") + 200)  # the last byte is of a comment
    elif name == "manifest.json" and damage is flip:
        flip(path, at=0)
    else:
        damage(path)
    assert train.main(["--method", "head-only"]) == 1
    error = capsys.readouterr().err
    assert f"data/tiny/{name}" in error and "run `python -m pipelines.prepare`" in error and error.count("\n") == 1
    assert prepare.main([]) == 0 and path.read_bytes() == whole
    assert train.main(["--method", "head-only"]) == 0


# --- runs -------------------------------------------------------------------------------------------------------------


def without_times(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in ("timings", "environment")}


@pytest.mark.parametrize("place", ["results", "checkpoints"])
def test_a_disk_full_while_training_costs_no_finished_run(prepared, workdir, disk, capsys, place):
    """Seed 0 is finished when the disk fills up; with room again the method is completed, and seed 0 is not touched."""
    (workdir / place).symlink_to(disk)
    params = Params(**tiny_params())
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    assert train.main(["--method", "head-only", "--seed", "0"]) == 0
    finished = contents(params.run_dir("head-only", 0))
    filler = fill(disk)
    capsys.readouterr()
    assert train.main(["--method", "head-only"]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and place in error and error.count("\n") == 1
    assert contents(params.run_dir("head-only", 0)) == finished
    assert not is_complete(params.run_dir("head-only", 1), "any")
    filler.unlink()
    assert train.main(["--method", "head-only"]) == 0
    assert contents(params.run_dir("head-only", 0)) == finished
    assert json.loads((params.run_dir("head-only", 1) / "record.json").read_text())["status"] == "complete"


def test_results_that_may_not_be_written_are_an_error_in_one_line(prepared, workdir, read_only, capsys):
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(seeds=[0])))
    (workdir / "results").mkdir()
    read_only(workdir / "results")
    assert train.main(["--method", "head-only"]) == 1
    error = capsys.readouterr().err
    assert "Read-only file system" in error and "results/tiny/runs/head-only/0" in error and error.count("\n") == 1


@pytest.mark.parametrize("damage", [flip, cut, lambda path: flip(path, at=3000), lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_ends_in_the_unbroken_run(prepared, workdir, capsys, monkeypatch, damage):
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(seeds=[0])))
    params = Params(**tiny_params(seeds=[0]))
    record = params.run_dir("head-only", 0) / "record.json"
    assert train.main(["--method", "head-only"]) == 0
    whole = json.loads(record.read_text())
    record.unlink()
    with monkeypatch.context() as patch:  # stop after the first epoch, when there is a checkpoint
        patch.setattr(loop, "evaluate", stopped_after(1))
        assert train.main(["--method", "head-only"]) == 130
    assert not record.exists()
    stored = workdir / "checkpoints" / "tiny" / "head-only" / "0.pt"
    damage(stored)
    capsys.readouterr()
    assert train.main(["--method", "head-only"]) == 0
    assert without_times(json.loads(record.read_text())) == without_times(whole)
    assert not stored.exists()


def stopped_after(epochs: int):
    evaluate, calls = loop.evaluate, []

    def wrapped(*arguments, **options):
        if len(calls) == epochs:
            raise KeyboardInterrupt
        calls.append(1)
        return evaluate(*arguments, **options)

    return wrapped


@pytest.mark.parametrize("name", ["record.json", "predictions.npz", "curves.csv"])
def test_a_cut_file_of_a_run_is_named_with_what_mends_it(prepared, workdir, capsys, name):
    """And the advice works: followed, it gives the run that was there."""
    params = Params(**tiny_params(seeds=[0], method={"head-only": {"family": "head_only"}}))
    (workdir / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", exclude_none=True)))
    assert train.main(["--method", "head-only"]) == 0
    folder = params.run_dir("head-only", 0)
    before = read_runs(params)[0]["head-only", 0]
    cut(folder / name)
    with pytest.raises(UserError, match=f"{name}(.|\n)*delete {folder}(.|\n)*train --method head-only --seed 0"):
        read_runs(params)
    for path in folder.iterdir():
        path.unlink()
    assert train.main(["--method", "head-only"]) == 0
    after = read_runs(params)[0]["head-only", 0]
    np.testing.assert_array_equal(after["probabilities"], before["probabilities"])


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(nan(path.read_bytes()))], ids=["cut", "flipped"])
def test_damaged_weights_are_named(prepared, workdir, capsys, damage):
    """A flip that leaves a plausible number is another network: the run's fingerprint then differs."""
    from safetensors.torch import save_file

    from baselines.backbones import BACKBONES

    backbone, _ = BACKBONES["smallcnn"].make(32)
    save_file(backbone.state_dict(), workdir / "w.safetensors")
    model = {"backbone": "smallcnn", "weights": str(workdir / "w.safetensors")}
    (workdir / "params.yaml").write_text(yaml.safe_dump(tiny_params(seeds=[0], model=model)))
    assert train.main(["--method", "head-only"]) == 0
    damage(workdir / "w.safetensors")
    assert train.main(["--method", "head-only"]) == 1
    error = capsys.readouterr().err
    assert "w.safetensors" in error and ("not a readable" in error or "finite" in error) and error.count("\n") == 1


def nan(content: bytes) -> bytes:
    return content[:-4] + np.float32("nan").tobytes()


def test_a_report_on_a_full_disk_is_an_error_in_one_line(disk, workdir, capsys):
    made.write(workdir / "results" / "tiny", ("full", "bitfit"))
    (workdir / "report").symlink_to(disk)
    fill(disk, leave=2)
    assert report(["--profile", "tiny"]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and "report/tiny" in error and error.count("\n") == 1
