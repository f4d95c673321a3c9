import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines import families
from pipelines.data import prepared
from pipelines.data.errors import DataError
from pipelines.files import hashing, records
from pipelines.files.errors import UserError
from pipelines.runs import code, identity
from pipelines.runs.environment import environment
from pipelines.runs.identity import described, fingerprint
from pipelines.runs.record import is_complete, read_record
from tests.conftest import bright_quadrants, write_prepared

SETTINGS = {"family": "full", "backbone": "resnet18", "weights": "random", "train": {"lr": 0.1}}
DATA = {"images.npy": "aa"}


def test_fingerprint_covers_settings_seed_and_data():
    base = fingerprint(SETTINGS, 0, DATA)
    assert fingerprint(dict(reversed(SETTINGS.items())), 0, DATA) == base  # order is no difference
    assert fingerprint({**SETTINGS, "train": {"lr": 0.2}}, 0, DATA) != base
    assert fingerprint(SETTINGS, 1, DATA) != base
    assert fingerprint(SETTINGS, 0, {"images.npy": "bb"}) != base


def test_weights_count_by_content_not_by_place(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    one.write_bytes(b"abc")
    two.write_bytes(b"abc")
    same = [fingerprint({**SETTINGS, "weights": str(p)}, 0, DATA) for p in (one, two)]
    assert same[0] == same[1]
    two.write_bytes(b"abd")
    assert fingerprint({**SETTINGS, "weights": str(two)}, 0, DATA) != same[0]
    shown = described({**SETTINGS, "weights": str(one)})
    assert shown["weights"] == "one.safetensors" and str(tmp_path) not in json.dumps(shown)


def test_weights_are_read_once_until_they_change(tmp_path, monkeypatch):
    path, read = tmp_path / "w.safetensors", []
    monkeypatch.setattr(identity, "sha256_file", lambda path: read.append(path) or records.sha256_file(path))

    def digest(content, age):
        path.write_bytes(content)
        os.utime(path, ns=(time.time_ns() - age, time.time_ns() - age))
        return [described({**SETTINGS, "weights": str(path)})["weights_sha256"] for _ in range(3)]

    expected = [hashlib.sha256(content).hexdigest() for content in (b"abc", b"abd", b"abe")]
    assert digest(b"abc", 60 * 10**9) == [expected[0]] * 3 and len(read) == 1
    assert digest(b"abd", 50 * 10**9) == [expected[1]] * 3 and len(read) == 2
    assert digest(b"abe", 0) == [expected[2]] * 3 and len(read) == 5  # too recent to be trusted


def source(tmp_path, monkeypatch, text):
    monkeypatch.setattr(code, "ROOT", tmp_path)
    path = tmp_path / "a.py"
    path.write_text(text)
    return hashing.code_hash([path])


def test_comments_docstrings_and_layout_are_no_change_of_code(tmp_path, monkeypatch):
    base = source(tmp_path, monkeypatch, "def f(x):\n    return x + 1\n")
    assert (
        source(tmp_path, monkeypatch, '"""Doc."""\n\n\ndef f(x):  # why\n    """Doc."""\n    return (x\n      + 1)\n')
        == base
    )
    assert source(tmp_path, monkeypatch, "def f(x):\n    return x + 2\n") != base
    assert source(tmp_path, monkeypatch, "def f(x, y=None):\n    return x + 1\n") != base


def test_the_library_counts_for_colora_alone():
    assert any("colora/fused.py" in str(p) for p in code.code_files("colora"))
    assert not any("/colora/" in str(p) for p in code.code_files("full"))
    assert {"full", "head_only", "bitfit", "adapters", "conv_lora", "colora"} <= set(families())


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    for name in ("baselines", "colora", "pipelines"):
        shutil.copytree(code.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


BACKBONES = {"full", "head_only", "colora"}


@pytest.mark.parametrize(
    "name, old, new, changed",
    [
        ("colora/fused.py", '"""The convolution', '"""A convolution', set()),
        ("colora/fused.py", "[need_pointwise, need_depthwise, False]", "[True, need_depthwise, False]", {"colora"}),
        ("baselines/head_only.py", "return model", "return model.train()", {"head_only"}),
        ("baselines/backbones/nets.py", "(16, 32, 64, 96, 128)", "(16, 32, 64, 96, 160)", BACKBONES),
        ("baselines/layers/scan.py", "SEGMENT = 16", "SEGMENT = 8", {"vim"}),
        ("pipelines/runs/metrics.py", ".argmax(1) ==", ".argmin(1) ==", {*BACKBONES, "vim"}),
    ],
    ids=["docstring", "library", "family", "backbones", "layer", "shared"],
)
def test_code_counts_for_the_families_whose_numbers_it_decides(copied, monkeypatch, name, old, new, changed):
    monkeypatch.setattr(code, "ROOT", copied)
    before, text = code.hashes()["code"], (copied / name).read_text()
    assert old in text
    (copied / name).write_text(text.replace(old, new))
    after = code.hashes()["code"]
    (copied / name).write_text(text)
    assert {family for family in (*BACKBONES, "vim") if after[family] != before[family]} == changed


def test_code_that_changes_while_a_process_works_makes_no_other_run_but_an_error(copied, monkeypatch):
    """The process may have loaded it before, and would train with that."""
    monkeypatch.setattr(code, "ROOT", copied)
    before, path = fingerprint(SETTINGS, 0, DATA), copied / "baselines" / "__init__.py"
    text = path.read_text()
    (copied / "baselines" / "head_only.py").write_text("def adapt(model):\n    return None\n")
    path.write_text(f"{text}# a comment\n")
    assert fingerprint(SETTINGS, 0, DATA) == before
    path.write_text(f"{text}CHANGED = True\n")
    for family in (SETTINGS["family"], "bitfit"):  # a family not asked for yet stands on the same file
        with pytest.raises(UserError, match=f"{path}: changed while this process was at work.*; run again"):
            fingerprint({**SETTINGS, "family": family}, 0, DATA)
    path.write_text(text)
    assert fingerprint(SETTINGS, 0, DATA) == before


def a_record(**changes):
    scores = {"acc": 0.5, "balanced_acc": 0.5, "auc": 0.6, "loss": 1.0}
    return {
        "profile": "p", "method": "m", "seed": 0, "status": "complete", "failure": None, "fingerprint": "f",
        "settings": {"family": "full", "train": {"epochs": 1, "batch_size": 8, "lr": 0.001}},
        "metrics": {"best_epoch": 1, "val": scores, "test": scores, "external": {}},
        "parameters": {"trainable": 1, "total": 2, "flops": 3},
        "data": {"train": 1, "val": 1, "test": 1, "classes": ["a", "b"]},
        "timings": {"epoch_s": 0.1, "total_s": 1.0}, "environment": {}, **changes,
    }  # fmt: skip


def complete(folder):
    for name in ("curves.csv", "predictions.npz"):
        records.write_atomically(folder / name, lambda file: file.write(b"x"))
    records.write_json(folder / "record.json", a_record())


def test_a_record_of_other_types_or_without_results_is_refused_by_key(tmp_path):
    complete(tmp_path)
    for changes, words in (
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"metrics": None}, "a complete record has metrics"),
        ({"data": {**a_record()["data"], "classes": ["a", "a"]}}, "expected names that differ"),
        ({"extra": 1}, "unknown key 'extra'"),
    ):
        records.write_json(tmp_path / "record.json", a_record(**changes))
        with pytest.raises(UserError, match=words):
            read_record(tmp_path)


def test_a_run_is_complete_only_with_every_file_and_the_right_fingerprint(tmp_path):
    folder = tmp_path / "run"
    assert not is_complete(folder, "f")
    complete(folder)
    assert is_complete(folder, "f") and not is_complete(folder, "g")
    (folder / "predictions.npz").unlink()
    assert not is_complete(folder, "f")


def test_a_failed_run_is_not_complete(tmp_path):
    records.write_json(tmp_path / "c" / "record.json", a_record(status="failed", metrics=None, timings=None))
    assert not is_complete(tmp_path / "c", "f")


def test_a_write_that_breaks_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "record.json"
    records.write_json(path, {"a": 1})

    def breaks(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        records.write_atomically(path, breaks)
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_devices_and_pipes_stay_what_they_are_and_a_linked_file_keeps_its_content(tmp_path):
    (tmp_path / "cached.json").write_text("in DVC's cache")
    (tmp_path / "link.json").symlink_to("cached.json")
    records.write_json(tmp_path / "link.json", {"a": 1})
    assert json.loads((tmp_path / "link.json").read_text()) == {"a": 1}
    assert (tmp_path / "cached.json").read_text() == "in DVC's cache"
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        records.write_json(tmp_path / "pipe", {"a": 3})
        assert json.loads(reader.communicate()[0]) == {"a": 3}
    (tmp_path / "null").symlink_to("/dev/null")
    records.write_json(tmp_path / "null", {})
    assert (tmp_path / "pipe").is_fifo() and Path("/dev/null").is_char_device() and (tmp_path / "null").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cached.json", "link.json", "null", "pipe"]


def test_json_of_the_wrong_kind_is_refused(tmp_path):
    (tmp_path / "record.json").write_text("[1]")
    with pytest.raises(records.RecordError, match="expected a JSON object, found list"):
        read_record(tmp_path)


def test_looking_at_a_run_needs_neither_torch_nor_dvc():
    """Complete runs must cost nothing: `--help` and the fingerprint import no heavy package."""
    heavy = "('torch', 'numpy', 'dvc', 'medmnist')"
    probe = f"import sys, pipelines.train, pipelines.tune; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=code.ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_a_seeds_data_are_its_own_splits(tmp_path):
    """So that adding a seed to a profile makes no finished run stale."""
    images, labels = bright_quadrants(12)
    splits = {f"{s}/{name}": np.array([s, s + 4]) for s in (0, 1) for name in ("train", "val", "test")}
    write_prepared(tmp_path / "two", images, labels, splits)
    only = {name: indices for name, indices in splits.items() if name.startswith("0/")}
    write_prepared(tmp_path / "one", images, labels, only)
    assert prepared.identity(tmp_path / "one", 0) == prepared.identity(tmp_path / "two", 0)
    assert prepared.identity(tmp_path / "two", 1) != prepared.identity(tmp_path / "two", 0)
    with pytest.raises(DataError, match="no split '1/train'"):
        prepared.identity(tmp_path / "one", 1)


def test_the_hash_of_code_does_not_depend_on_the_version_of_python(tmp_path, monkeypatch):
    """Runs may come from a machine with another Python; this value was the same on 3.11, 3.12 and 3.13."""
    text = 'class A:\n    def f(self, x=None, *a, **k):\n        return f"{x!r:>{k}} and {a}", lambda: ...\n'
    assert source(tmp_path, monkeypatch, text) == ("d7875842e5eb4a585405f844e56b339ed6c35013d58612bab4c4bfd2c7d55863")


def test_a_family_that_imports_nothing_still_depends_on_what_it_adapts(tmp_path, monkeypatch):
    """Such as the README's example: its backbones decide its numbers."""
    (tmp_path / "baselines" / "backbones").mkdir(parents=True)
    (tmp_path / "baselines" / "backbones" / "__init__.py").write_text("from baselines.backbones.nets import NETS\n")
    (tmp_path / "baselines" / "backbones" / "nets.py").write_text("NETS = {}\n")
    (tmp_path / "baselines" / "lastblock.py").write_text("def adapt(model):\n    return model\n")
    (tmp_path / "baselines" / "own.py").write_text("def network():\n    from baselines import lastblock\n")
    (tmp_path / "baselines" / "relative.py").write_text("from . import own\n\n\ndef network():\n    pass\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert {name: f.kind for name, f in families(tmp_path / "baselines").items()} == {
        "lastblock": "adapt",
        "own": "network",
        "relative": "network",
    }
    found = {p.relative_to(tmp_path).as_posix() for p in code.code_files("lastblock")} - set(code.SHARED)
    assert found == {f"baselines/{name}.py" for name in ("lastblock", "backbones/__init__", "backbones/nets")}
    found = {p.relative_to(tmp_path).as_posix() for p in code.code_files("own")} - set(code.SHARED)
    assert found == {"baselines/own.py", "baselines/lastblock.py"}
    with pytest.raises(ValueError, match="relative.py, line 1: found a relative import"):
        code.code_files("relative")


def test_a_module_that_is_moved_or_renamed_has_the_same_hash_and_a_changed_expression_another(tmp_path):
    text = '"""What it does."""\n\nimport math\n\n\ndef area(r):\n    """Of a circle."""\n    return math.pi * r**2\n'
    here, there = tmp_path / "circle.py", tmp_path / "shapes" / "disc.py"
    there.parent.mkdir()
    here.write_text(text)
    there.write_text(text.replace("import math\n", "import math\nfrom os import path\n"))
    assert hashing.code_hash([here]) == code.code_hash([there])
    there.write_text(text.replace("r**2", "r**3"))
    assert hashing.code_hash([here]) != code.code_hash([there])


def test_what_a_dead_process_left_goes_unless_it_is_another_machines(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(records, "_HOST", "here")
    names = [f".a.json.here.{dead.pid}.tmp", f".a.json.there.{dead.pid}.tmp", f".b.json.here.{dead.pid}.tmp"]
    for name in names:
        (tmp_path / name).touch()
    records.write_json(tmp_path / "a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "a.json"])


def test_the_recorded_command_names_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/me/pipelines/cost.py", "--profile-file", "/data/mine.yaml", "x/y"])
    assert environment("cpu")["command"] == "cost.py --profile-file mine.yaml x/y"


def test_the_driver_of_several_gpus_is_named_once(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(
        "pipelines.runs.environment._output", lambda *command: "550.1\n550.1" if "nvidia-smi" in command else None
    )
    assert environment("cuda:0")["driver"] == "550.1"
    monkeypatch.setattr("pipelines.runs.environment._output", lambda *command: None)
    assert environment("cuda:0")["driver"] is None


def test_csv_keeps_whole_numbers_whole():
    frame = pd.DataFrame({"n": [14_846_532.0, np.nan], "x": [0.123456789, np.inf], "word": ["a", "b"]})
    assert records.csv(frame) == "n,x,word\n14846532,0.123457,a\n,inf,b\n"
