"""The stage as a whole: what it writes, when it keeps it, and how it ends on bad input."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines import prepare as command
from pipelines.data import preparation as stage
from pipelines.data import prepared
from pipelines.data.sources import DataError
from pipelines.profile import Params, ParamsError, load

PHANTOM = {"source": "phantom", "image_size": 16, "phantom": {"train": 12, "val": 8, "test": 8}}


def content(data=PHANTOM, seeds=(0, 1)):
    return {
        "profile": "tiny",
        "seeds": list(seeds),
        "data": data,
        "model": {},
        "train": {"epochs": 1, "batch_size": 1, "lr": 1.0},
        "method": {"full": {}},
    }


def run(data=PHANTOM, seeds=(0, 1)):
    return stage.prepare(Params(**content(data, seeds)))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scans(workplace):
    """Two classes of nine patients, two images each; patients 7 and 8 occur in both."""
    rng = np.random.default_rng(0)
    for start, name in ((0, "A"), (7, "B")):
        folder = workplace / "scans" / name
        folder.mkdir(parents=True)
        for patient in range(start, start + 9):
            for index in range(2):
                pixels = rng.integers(0, 256, (20, 24), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}-{patient}-{index}.png")
    settings = {"path": "scans", "folds": 3, "val_share": 0.25}
    return {"source": "folder", "image_size": 16, "folder": settings}


def identity(path):
    """Changes whenever the file is written anew."""
    status = Path(path).stat()
    return status.st_ino, status.st_mtime_ns


def test_writes_arrays_that_open_memory_mapped_and_a_manifest_that_describes_them():
    manifest = run()
    images = np.load("data/tiny/images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load("data/tiny/labels.npy", allow_pickle=False)
    assert isinstance(images, np.memmap) and images.dtype == np.uint8 and images.flags["C_CONTIGUOUS"]
    assert images.shape == (28, 16, 16) and labels.shape == (28,) and labels.dtype == np.int64
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert {name: splits[name].dtype for name in splits} == dict.fromkeys(("train", "val", "test"), np.int64)
        assert sorted(np.concatenate([splits[name] for name in splits]).tolist()) == list(range(28))
    assert manifest.model_dump(mode="json") == json.loads(Path("data/tiny/manifest.json").read_text())
    assert manifest.classes == ["CNV", "DME", "DRUSEN", "NORMAL"]
    assert (manifest.count, manifest.image_size, manifest.channels) == (28, 16, 1)
    assert manifest.preprocessing.size == 16
    for name, digest in manifest.files.items():
        listed = subprocess.run(["sha256sum", f"data/tiny/{name}"], capture_output=True, text=True, check=True).stdout
        assert digest == listed.split()[0]
    assert sorted(path.name for path in Path("data/tiny").iterdir()) == [
        "images.npy",
        "labels.npy",
        "manifest.json",
        "splits.npz",
        "weights.json",
    ]
    assert sorted(path.name for path in Path("results/tiny/data").iterdir()) == ["card.json", "card.md", "examples.png"]


def test_folder_gives_every_seed_its_folds_and_keeps_patients_apart(scans):
    manifest = run(scans, seeds=[0, 2, 4])
    patients = np.array(manifest.patient_of_image)
    assert manifest.folds == 3 and manifest.patients == 16 == len(set(patients))
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert list(splits) == [f"{seed}/{part}" for seed in (0, 2, 4) for part in ("train", "val", "test")]
        for seed in (0, 2, 4):
            owners = [set(patients[splits[f"{seed}/{part}"]]) for part in ("train", "val", "test")]
            assert sum(map(len, owners)) == 16
    card = json.loads(Path("results/tiny/data/card.json").read_text())
    assert all(set(facts["patients_across"].values()) == {0} for facts in card["seeds"].values())


def test_two_runs_write_the_same_bytes(scans, monkeypatch, tmp_path):
    run(scans)
    first = {path: path.read_bytes() for folder in ("data", "results") for path in Path(folder, "tiny").rglob("*.*")}
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "scans").symlink_to(tmp_path / "scans")
    monkeypatch.chdir(other)
    scans["folder"]["path"] = str(other / "scans")
    run(scans)
    assert len(first) == 10  # five of data, weights.json, the card, its page and picture, patients.csv
    for path, body in first.items():
        assert path.read_bytes() == body, path
        assert str(tmp_path).encode() not in body


def test_finished_data_is_kept():
    run()
    before = identity("data/tiny/images.npy")
    run()
    assert identity("data/tiny/images.npy") == before


def spoil_manifest(folder):
    (folder / "manifest.json").write_text('{"source": "phan')


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def flip_a_byte(folder):
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(bytes(content))


def cut_labels(folder):
    (folder / "labels.npy").write_bytes((folder / "labels.npy").read_bytes()[:-8])


def remove_splits(folder):
    (folder / "splits.npz").unlink()


@pytest.mark.parametrize("damage", [spoil_manifest, remove_manifest, flip_a_byte, cut_labels, remove_splits])
def test_half_written_or_damaged_data_is_built_again(damage):
    first = run()
    before = identity("data/tiny/images.npy")
    damage(Path("data/tiny"))
    assert run() == first
    assert identity("data/tiny/images.npy") != before


def test_all_code_that_makes_arrays_of_files_is_among_what_they_were_made_from(scans, monkeypatch):
    seen = []
    monkeypatch.setattr(stage, "code_hash", lambda files: seen.extend(path.name for path in files) or "hash")
    run(scans)
    assert {"folder.py", "labelled.py", "pictures.py", "preprocessing.py", "splits.py"} <= set(seen)


@pytest.mark.parametrize(
    "images, labels",
    [
        (np.zeros((4, 8, 8), np.float32), np.zeros(4, np.int64)),
        (np.zeros((4, 8, 8, 4), np.uint8), np.zeros(4, np.int64)),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(5, np.int64)),
        (np.zeros((4, 8, 8), np.uint8), np.zeros((4, 1), np.int64)),
    ],
)
def test_arrays_made_by_hand_of_another_form_are_refused(workdir, images, labels):
    np.save("images.npy", images)
    np.save("labels.npy", labels)
    with pytest.raises(DataError, match=r"images are .*expected uint8 \(N, H, W\)"):
        prepared.open_images(Path())


def test_changed_settings_build_again():
    first = run()
    second = run({**PHANTOM, "phantom": {**PHANTOM["phantom"], "seed": 1}})
    assert second.files["images.npy"] != first.files["images.npy"]
    third = run({**PHANTOM, "mode": "balanced", "balanced": {"per_class": 2}})
    assert third.files["images.npy"] == first.files["images.npy"]
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert len(splits["train"]) == 8


def test_seeds_matter_only_where_the_data_has_folds_and_leave_other_seeds_alone(scans):
    run(seeds=[0])
    before = identity("data/tiny/images.npy")
    run(seeds=[0, 5])
    assert identity("data/tiny/images.npy") == before
    first = run(scans, seeds=[0])
    second = run(scans, seeds=[0, 5])
    assert "5/train" in second.splits
    assert {name: second.splits[name] for name in first.splits} == first.splits


def test_shares_of_the_training_patients_are_written_and_leave_everything_else_as_it_was(scans):
    plain = run(scans, seeds=[0, 4])
    shared = run({**scans, "shares": [0.25, 0.5]}, seeds=[0, 4])
    assert {name: shared.splits[name] for name in plain.splits} == plain.splits
    assert set(shared.splits) - set(plain.splits) == {f"{s}/train@{share}" for s in (0, 4) for share in (0.25, 0.5)}
    assert all(plain.files[name] == shared.files[name] for name in ("images.npy", "labels.npy"))
    assert "shares" not in plain.made_from["settings"] and shared.made_from["settings"]["shares"] == [0.25, 0.5]
    patients = np.array(shared.patient_of_image)
    card = json.loads(Path("results/tiny/data/card.json").read_text())
    page = Path("results/tiny/data/card.md").read_text()
    assert "train@0.1 is a tenth of the training patients" in page
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        for seed in (0, 4):
            indices = splits[f"{seed}/train@0.25"]
            facts = card["seeds"][str(seed)]
            assert facts["patients"]["train@0.25"] == len(set(patients[indices])) < facts["patients"]["train"]
            assert sum(facts["counts"]["train@0.25"].values()) == len(indices)
            assert f"| {seed} | train@0.25 |" in page
            assert list(facts["patients_across"]) == ["train-val", "train-test", "val-test"]


def test_shares_of_a_source_with_one_split_have_no_seed():
    manifest = run({**PHANTOM, "shares": [0.4]})
    assert list(manifest.splits) == ["train", "train@0.4", "val", "test"]
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert len(splits["train@0.4"]) == 4 and set(splits["train@0.4"]) < set(splits["train"])
    assert "a tenth of the training images" in Path("results/tiny/data/card.md").read_text()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.5, 0.5], r"each counts once, found \[0.5, 0.5\]"),
        ([1.0], r"data\.shares\.0: Input should be less than 1"),
        ([0.0], r"data\.shares\.0: Input should be greater than 0"),
    ],
)
def test_shares_that_mean_nothing_are_refused(shares, message):
    Path("params.yaml").write_text(yaml.safe_dump(content({**PHANTOM, "shares": shares})))
    with pytest.raises(ParamsError, match=message):
        load("params.yaml")


def test_changed_folder_builds_again_and_a_vanished_one_is_an_error(scans, workplace, capsys):
    first = run(scans)
    Image.new("L", (30, 30), 7).save(workplace / "scans" / "A" / "A-3-9.png")
    assert run(scans).count == first.count + 1
    (workplace / "scans").rename(workplace / "gone")
    Path("params.yaml").write_text(yaml.safe_dump(content(scans)))
    assert command.main([]) == 1
    assert "data.folder.path: scans: expected a folder" in capsys.readouterr().err


def test_another_image_of_equal_name_size_and_time_builds_again(scans, workplace):
    """Uncompressed images are all of one size; a copying tool may keep the time of change."""
    for file in (workplace / "scans").rglob("*.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    first = run(scans)
    file = workplace / "scans" / "A" / "A-3-1.bmp"
    before = file.stat()
    Image.open(file).rotate(180).save(file)
    assert file.stat().st_size == before.st_size
    second = run(scans)
    assert second.files["images.npy"] != first.files["images.npy"]
    assert second.files["labels.npy"] == first.files["labels.npy"]


def test_an_interrupt_leaves_the_patients_known(scans, monkeypatch):
    """Without patients.csv the statistics would take every image for a patient."""
    run(scans)
    before = Path("results/tiny/data/patients.csv").read_text()
    monkeypatch.setattr(stage.card, "describe", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(scans)
    assert Path("results/tiny/data/patients.csv").read_text() == before


def test_what_an_earlier_source_named_is_gone(scans):
    run(scans)
    assert Path("results/tiny/data/patients.csv").is_file()
    run()
    assert not Path("results/tiny/data/patients.csv").exists()


def test_distilled_follows_its_entropies(workplace):
    indices = np.arange(8)
    np.savez("entropies.npz", indices=indices, entropy=np.linspace(0, 1, 8))
    data = {
        **PHANTOM,
        "mode": "distilled",
        "balanced": {"per_class": 2},
        "distilled": {"entropies": "entropies.npz", "keep": [0, 1]},
    }
    run(data)
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert splits["train"].tolist() == [0, 1, 2, 3]
    np.savez("entropies.npz", indices=indices, entropy=np.linspace(1, 0, 8))
    run(data)
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert splits["train"].tolist() == [4, 5, 6, 7]
    written = identity("data/tiny/images.npy")
    Path("entropies.npz").rename("moved.npz")
    run({**data, "distilled": {"entropies": "moved.npz", "keep": [0, 1]}})
    assert identity("data/tiny/images.npy") == written


def test_a_failed_build_keeps_what_was_there_and_leaves_no_scraps(scans, workplace):
    run(scans)
    before = {path.name: path.read_bytes() for path in Path("data/tiny").iterdir()}
    (workplace / "scans" / "B" / "B-8-1.png").write_bytes(b"")
    with pytest.raises(DataError, match="B-8-1.png: the file is empty"):
        run(scans)
    assert {path.name: path.read_bytes() for path in Path("data/tiny").iterdir()} == before


def test_old_images_stay_readable_while_new_ones_are_written():
    run()
    mapped = np.load("data/tiny/images.npy", mmap_mode="r", allow_pickle=False)
    before = np.array(mapped)
    run({**PHANTOM, "phantom": {**PHANTOM["phantom"], "seed": 1}})
    np.testing.assert_array_equal(mapped, before)


def test_what_weights_files_hold_is_told_beside_the_data_and_is_none_of_their_facts(workplace):
    for name in ("mine", "other", "weights/tiny/pretrained"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    settings = content()
    settings["model"] = {"weights": {"vgg16": "mine", "resnet18": "imagenet", "smallcnn": "weights/tiny/pretrained"}}
    settings["method"] |= {
        "own": {"weights": str(workplace / "other")},
        "later": {"weights": "not/there"},
        "odd": {"weights": 7},
    }
    manifest = stage.prepare(Params(**settings))
    told = json.loads(Path("data/tiny/weights.json").read_text())
    assert told == {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (str(workplace / "other"), "mine")
    }
    Path("mine").write_text("new content")
    assert stage.prepare(Params(**settings)) == manifest
    changed = json.loads(Path("data/tiny/weights.json").read_text())
    assert {name for name in told if told[name] != changed[name]} == {"mine"} and set(changed) == set(told)


def test_command_line_succeeds_and_then_says_that_it_kept_the_data(capsys):
    Path("params.yaml").write_text(yaml.safe_dump(content()))
    assert command.main([]) == 0
    assert "28 images written" in capsys.readouterr().out
    assert command.main(["--profile-file", "params.yaml"]) == 0
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "folder", "image_size": 16, "folder": {"path": "absent"}}, "error: data.folder.path: absent: "),
        ({"source": "folder", "image_size": 16}, "error: params.yaml: "),
    ],
)
def test_command_line_reports_errors_in_one_line_without_a_traceback(capsys, data, message):
    Path("params.yaml").write_text(yaml.safe_dump(content(data)))
    assert command.main([]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(message) and captured.err.count("\n") == 1 and captured.out == ""


def test_preparing_loads_neither_torch_nor_medmnist_nor_dvc(scans):
    """A machine that only prepares, or only trains, lacks some of them."""
    Path("params.yaml").write_text(yaml.safe_dump(content(scans)))
    code = (
        "import sys, pipelines.prepare as p\n"
        "assert p.main([]) == 0\n"
        "print('loaded:', [name for name in ('torch', 'medmnist', 'dvc') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith("loaded: []")
