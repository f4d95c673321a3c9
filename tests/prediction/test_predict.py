"""`pipelines.predict`: new files through the preprocessing of training, one network or several."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipelines import predict
from pipelines.data.images import Batches
from pipelines.data.prepared import open_prepared, read_files
from pipelines.files.errors import UserError
from pipelines.prediction import ensemble, images
from pipelines.profile import load
from tests.prediction.conftest import CLASSES, write_scans

CPU = torch.device("cpu")


def predicted(tmp_path, *arguments) -> pd.DataFrame:
    out = tmp_path / "predictions.csv"
    assert predict.main([*map(str, arguments), "--out", str(out), "--device", "cpu"]) == 0
    return pd.read_csv(out)


def columns(table) -> np.ndarray:
    return table[[f"p_{name}" for name in CLASSES]].to_numpy()


@pytest.mark.parametrize("method", ["full", "colora"])
@pytest.mark.parametrize("merged", ["--merged", "--no-merged"])
def test_files_are_predicted_as_the_run_predicted_its_test_images(here, tmp_path, method, merged):
    with np.load(f"results/clinic/runs/{method}/1/predictions.npz") as stored:
        indices, expected = stored["indices"], stored["probabilities"]
    files = read_files(Path("data/clinic")).set_index("image")["file"][indices]
    found = predicted(tmp_path, "--method", method, "--seed", 1, merged, *("scans/" + files))
    assert found["file"].tolist() == ("scans/" + files).tolist() and "spread" not in found
    np.testing.assert_allclose(columns(found), expected, atol=1e-5)
    assert found["predicted"].tolist() == [CLASSES[place] for place in expected.argmax(1)]


def test_a_network_sees_the_very_tensors_of_training(here):
    networks = ensemble.load(load("params.yaml"), "full", [0], "cpu")
    names = read_files(Path("data/clinic"))["file"]
    (batch,) = images.batches([Path("scans", name) for name in names], networks.preprocessing, size=1000)
    data = open_prepared(Path("data/clinic"), 0, CPU)
    for split, indices in data.splits.items():
        trained = Batches(data, split, batch_size=1000, input=networks.recipe.input, device=CPU)
        assert torch.equal(networks.normalised(batch.images)[torch.from_numpy(indices)], next(trained.in_order())[0])


def test_several_seeds_are_averaged_and_their_spread_is_told(here, tmp_path):
    new = write_scans(tmp_path / "new", 100, patients=2)
    each = np.stack([columns(predicted(tmp_path, "--method", "colora", "--seed", seed, new)) for seed in (0, 1)])
    found = predicted(tmp_path, "--method", "colora", new)
    mean = each.sum(0) / 2
    np.testing.assert_allclose(columns(found), mean, atol=2e-6)
    top = mean.argmax(1)
    first, second = (own[np.arange(len(top)), top] for own in each)
    np.testing.assert_allclose(found["spread"], abs(first - second) / np.sqrt(2), atol=3e-6)
    assert found["predicted"].tolist() == [CLASSES[place] for place in top] and found["spread"].max() > 1e-4


def test_folders_are_searched_and_the_order_is_that_of_the_names(tmp_path):
    new = write_scans(tmp_path / "new", 0, patients=1, classes=("B", "A"))
    (new / "notes.txt").write_text("x")
    (new / ".hidden.png").write_bytes(b"x")
    files = images.find([new / "B" / "B-0-1.png", new])
    names = [file.name for file in files]
    assert names == ["B-0-1.png", "A-1-0.png", "A-1-1.png", "B-0-0.png"]  # the one named first is not read twice
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        images.find([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no image in it; expected files ending in \.bmp"):
        images.find([tmp_path / "empty"])


def test_what_is_not_searched_is_told(tmp_path, capsys, monkeypatch):
    new = write_scans(tmp_path / "new", 0, patients=1, classes=("A", "B"))
    store = write_scans(tmp_path / "store", 10, patients=1, classes=("C",))
    (new / "linked").symlink_to(store)
    (new / "A" / "scan.png").symlink_to(store / "C" / "C-10-0.png")
    (new / ".hidden").mkdir()
    (new / ".hidden" / "a.png").write_bytes(b"x")
    names = [file.name for file in images.find([new])]
    assert names == ["A-0-0.png", "A-0-1.png", "scan.png", "B-1-0.png", "B-1-1.png"]
    told = f"{new / 'linked'}: a link to a folder, not searched; name it on the command line\n"
    assert capsys.readouterr().err == told
    assert len(images.find([new, new / "linked"])) == 7
    scandir = os.scandir

    def refuse(place):  # root may read what others may not
        if Path(place).name == "B":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"new/B: cannot be searched \(Permission denied\); allow reading it"):
        images.find([new])


def test_predictions_of_nothing_leave_those_that_are_there(here, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no image")
    out = tmp_path / "p.csv"
    out.write_text("earlier")
    command = ["--method", "full", "--seed", "0", str(tmp_path / "a.png"), "--out", str(out), "--device", "cpu"]
    assert predict.main(command) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"error: none of the 1 files can be read; {out} is left as it was"
    assert out.read_text() == "earlier" and sorted(tmp_path.iterdir()) == [tmp_path / "a.png", out]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fit": "crop"', '"fit": "circle"', "fit: Input should be 'crop', 'pad' or 'stretch', found 'circle'"),
        ('"batch_size"', '"batches"', r"missing key 'batch_size' \(Images of a step\); unknown key 'batches'"),
    ],
)
def test_networks_of_another_version_are_refused(here, tmp_path, capsys, monkeypatch, old, new, message):
    for name in ("models", "params.yaml", "scans"):
        copy = shutil.copytree if Path(name).is_dir() else shutil.copy
        copy(name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    card = Path("models/clinic/full/0/model.json")
    card.write_text(card.read_text().replace(old, new))
    command = ["--method", "full", "--seed", "0", "scans/CNV/CNV-0-0.png", "--device", "cpu"]
    assert predict.main(command) == 1
    told = capsys.readouterr().err
    assert (
        re.search(f"error: {card}: {message}.*; it is of another version: train again", told) and told.count("\n") == 1
    )


def test_damaged_files_are_told_and_the_others_go_on(here, tmp_path, capsys):
    new = write_scans(tmp_path / "new", 100, patients=2)
    whole = predicted(tmp_path, "--method", "full", "--seed", 0, new)
    bad = [new / "DME" / "DME-102-0.png", new / "NORMAL" / "NORMAL-104-1.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:200])
    bad[1].write_bytes(b"")
    capsys.readouterr()
    out = tmp_path / "p.csv"
    assert predict.main(["--method", "full", "--seed", "0", str(new), "--out", str(out), "--device", "cpu"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and told[-1] == "error: 2 of 12 files could not be read"
    assert f"{bad[0]}: the image cannot be decoded" in told[0] and f"{bad[1]}: the file is empty" in told[1]
    pd.testing.assert_frame_equal(
        pd.read_csv(out), whole[~whole["file"].isin(map(str, bad))].reset_index(drop=True), atol=1e-5
    )


def test_a_place_that_cannot_be_written_is_told_before_the_networks_are_asked(tmp_path, here, capsys, monkeypatch):
    monkeypatch.setattr(ensemble, "predict", None)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "predictions.csv"
    scan = "scans/CNV/CNV-0-0.png"
    assert predict.main(["--method", "full", "--seed", "0", scan, "--out", str(out), "--device", "cpu"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_16_bit_files_far_from_the_white_of_training_are_told(tmp_path, here, capsys):
    values = np.linspace(0, 4095, 24 * 24).reshape(24, 24).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "dark.png")
    predicted(tmp_path, "--method", "full", "--seed", 0, "scans/CNV/CNV-0-0.png", tmp_path / "dark.png")
    told = capsys.readouterr().err
    assert "warning: the brightest 16-bit value is 4,095, but white is 65,535 as in the training data" in told
    predicted(tmp_path, "--method", "full", "--seed", 0, "scans/CNV/CNV-0-0.png")
    assert "warning" not in capsys.readouterr().err


def test_a_folder_in_place_of_the_table_is_told_at_once(tmp_path, here, capsys, monkeypatch):
    monkeypatch.setattr(ensemble, "predict", None)
    scan = "scans/CNV/CNV-0-0.png"
    for place in (str(tmp_path), "."):
        assert predict.main(["--method", "full", "--seed", "0", scan, "--out", place, "--device", "cpu"]) == 1
        assert f"error: {place}: expected a file to write, found a folder" in capsys.readouterr().err


def test_batches_of_any_size_hold_every_file_in_order(tmp_path, here):
    files = images.find([write_scans(tmp_path / "new", 100, patients=3)])
    files[4].write_bytes(b"no image")
    networks = ensemble.load(load("params.yaml"), "full", [0], "cpu")
    whole = next(images.batches(files, networks.preprocessing, 100))
    assert whole.places.tolist() == [place for place in range(18) if place != 4] and len(whole.damaged) == 1
    for size in (1, 5, 18):
        found = list(images.batches(files, networks.preprocessing, size))
        assert np.array_equal(np.concatenate([batch.places for batch in found]), whole.places)
        assert np.array_equal(np.concatenate([batch.images for batch in found if len(batch.places)]), whole.images)
        assert [line for batch in found for line in batch.damaged] == whole.damaged


def test_networks_that_are_not_there_or_do_not_go_together_are_refused(here, tmp_path, capsys, monkeypatch):
    scan = "scans/CNV/CNV-0-0.png"
    assert predict.main(["--method", "full", "--seed", "7", scan]) == 1
    assert "models/clinic/full/7/model.json: no trained weights" in capsys.readouterr().err
    assert predict.main(["--method", "fulll", scan]) == 1
    assert "no method 'fulll'" in capsys.readouterr().err
    for name in ("models", "params.yaml", "scans"):
        copy = shutil.copytree if Path(name).is_dir() else shutil.copy
        copy(name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    card = Path("models/clinic/full/1/model.json")
    card.write_text(card.read_text().replace('"white": 65535', '"white": 4095'))
    assert predict.main(["--method", "full", scan, "--device", "cpu"]) == 1
    assert "seeds 0 and 1 were trained on other preprocessing" in capsys.readouterr().err
    assert not Path("predictions.csv").exists()
