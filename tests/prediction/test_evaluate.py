"""`pipelines.evaluate`: scores against scikit-learn, intervals against the jackknife written out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from pipelines import evaluate
from pipelines.prediction import ensemble, images
from pipelines.profile import load
from tests.prediction.conftest import CLASSES, write_scans


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Scans of other patients: eight of CNV, five of DME, two of NORMAL."""
    root = tmp_path_factory.mktemp("other")
    for number, (name, patients) in enumerate(zip(CLASSES, (8, 5, 2))):
        write_scans(root, 100 * (number + 1), patients, classes=(name,), seed=5)
    return root


def evaluated(tmp_path, *arguments) -> pd.DataFrame:
    out = tmp_path / "evaluation.csv"
    assert evaluate.main([*map(str, arguments), "--out", str(out), "--device", "cpu"]) == 0
    return pd.read_csv(out).set_index("network")


def probabilities(method, files):
    _, each = ensemble.predict(ensemble.load(load("params.yaml"), method, None, "cpu"), files)
    return {"seed 0": each[0], "seed 1": each[1], "ensemble": (each[0] + each[1]) / 2}


def test_scores_are_scikit_learns(here, tmp_path, other, capsys):
    table = evaluated(tmp_path, "--method", "colora", "--folder", other)
    files = images.find([other])
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    assert list(table.index) == ["seed 0", "seed 1", "ensemble"] and set(table["images"]) == {30}
    assert set(table["patients"]) == {15}
    for network, found in probabilities("colora", files).items():
        row = table.loc[network]
        assert row["accuracy"] == pytest.approx(accuracy_score(labels, found.argmax(1)), abs=1e-6)
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, found.argmax(1)), abs=1e-6)
        by_class = [roc_auc_score(labels == c, found[:, c]) for c in range(len(CLASSES))]
        assert row["auc"] == pytest.approx(np.mean(by_class), abs=1e-6)
        for metric in ("accuracy", "balanced_accuracy", "auc"):
            assert row[f"{metric}_lo"] <= row[metric] <= row[f"{metric}_hi"]
    told = capsys.readouterr().out
    assert "30 images, 15 patients" in told and "ensemble" in told


def test_the_interval_is_of_patients_left_out_one_by_one(here, tmp_path, other):
    """logit(m) -+ 1.96 se / (m (1 - m)) with the jackknife's se over patients; and wider than over images alone."""
    files = images.find([other])
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    whose = np.array([file.stem.split("-")[1] for file in files])
    row = evaluated(tmp_path, "--method", "colora", "--seed", 0, "--folder", other).loc["seed 0"]
    right = probabilities("colora", files)["seed 0"].argmax(1) == labels
    assert 0 < right.mean() < 1
    without = np.array([right[whose != patient].mean() for patient in np.unique(whose)])
    se = np.sqrt(len(without) * np.mean((without - without.mean()) ** 2) * (len(without) - 1) / len(without))
    mean = right.mean()
    reach = 1.959964 * se / (mean * (1 - mean))
    expected = expit([logit(mean) - reach, logit(mean) + reach])
    np.testing.assert_allclose([row["accuracy_lo"], row["accuracy_hi"]], expected, atol=1e-5)


def test_without_patients_every_image_counts_as_one(here, tmp_path, other, capsys):
    row = evaluated(tmp_path, "--method", "full", "--seed", 0, "--folder", other, "--pattern", "").loc["seed 0"]
    assert np.isnan(row["patients"]) and "patients not known: every image counts as one" in capsys.readouterr().out
    rows = [f"{name}/{file.name},{name}" for name in CLASSES for file in sorted((other / name).iterdir())]
    listed = other / "list.csv"
    listed.write_text("\n".join(["image,label", *reversed(rows)]) + "\n")
    again = evaluated(tmp_path, "--method", "full", "--seed", 0, "--folder", listed).loc["seed 0"]
    listed.unlink()
    pd.testing.assert_series_equal(row, again)


def test_a_pattern_reads_the_patients_of_a_list_too(here, tmp_path, other, capsys):
    """The same patients as of the folder; beside a column patient, or if it is none, it is refused."""
    files = [file for name in CLASSES for file in sorted((other / name).iterdir())]
    rows = [f"{file},{file.parent.name}" for file in files]
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(["image,label", *rows]) + "\n")
    command = ["--method", "full", "--seed", "0", "--device", "cpu", "--follow-links", "--folder", str(listed)]
    table = evaluated(tmp_path, *command, "--pattern", r"[A-Z]-(?P<patient>\d+)-")
    assert table["patients"].tolist() == [15]
    assert evaluate.main([*command, "--pattern", "(("]) == 1
    assert "error: --pattern '((': not a regular expression" in capsys.readouterr().err
    listed.write_text("\n".join(["image,label,patient", *(f"{row},1" for row in rows)]) + "\n")
    assert evaluate.main([*command, "--pattern", "(?P<patient>.+)"]) == 1
    assert f"--pattern: {listed} has a column patient" in capsys.readouterr().err


def test_other_classes_a_missing_folder_and_a_damaged_file_are_told(here, tmp_path, other, capsys):
    command = ["--method", "full", "--seed", "0", "--device", "cpu", "--folder"]
    strange = write_scans(tmp_path / "strange", 0, patients=1, classes=("CNV", "DRUSEN"))
    assert evaluate.main([*command, str(strange)]) == 1
    assert "expected the classes of the data, CNV, DME, NORMAL; it lacks DME, NORMAL and it has DRUSEN" in (
        capsys.readouterr().err
    )
    for file in (other / "DME").iterdir():  # a name may say another class than the folder does
        (tmp_path / "odd" / "DME").mkdir(parents=True, exist_ok=True)
        (tmp_path / "odd" / "DME" / file.name.replace("DME", "CNV")).write_bytes(file.read_bytes())
    for name in ("CNV", "NORMAL"):
        shutil.copytree(other / name, tmp_path / "odd" / name)
    assert evaluate.main([*command, str(tmp_path / "odd")]) == 1
    assert "its name says 'CNV' but its class is 'DME'; move it, or leave the group `label` out of --pattern" in (
        capsys.readouterr().err
    )
    assert evaluate.main([*command, "nowhere"]) == 1
    assert "--folder: nowhere: no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert evaluate.main([*command, str(tmp_path / "empty")]) == 1
    assert f"error: --folder: {tmp_path / 'empty'}: expected at least two class subfolders" in capsys.readouterr().err
    shutil.copytree(other, tmp_path / "linked")
    (tmp_path / "linked" / "CNV" / "CNV-900-0.png").symlink_to(next((other / "CNV").iterdir()).absolute())
    assert evaluate.main([*command, str(tmp_path / "linked")]) == 1
    assert "--follow-links" in capsys.readouterr().err
    assert evaluate.main([*command, str(tmp_path / "linked"), "--follow-links"]) == 0
    capsys.readouterr()
    damaged = write_scans(tmp_path / "damaged", 0, patients=2)
    Path(damaged, "DME", "DME-2-0.png").write_bytes(b"no image")
    assert evaluate.main([*command, str(damaged)]) == 1
    told = capsys.readouterr()
    assert "11 images, 6 patients" in told.out
    assert "DME-2-0.png: not a readable image" in told.err and "1 of 12 files could not be read" in told.err


def test_an_auc_of_one_has_no_interval(here, tmp_path, other, capsys, monkeypatch):
    labels = np.array([CLASSES.index(file.parent.name) for file in images.find([other])])
    monkeypatch.setattr(ensemble, "predict", lambda *_: (np.arange(30), np.eye(3)[labels][None].astype(np.float32)))
    evaluated(tmp_path, "--method", "colora", "--seed", 0, "--folder", other)
    assert "nan" not in capsys.readouterr().out
