"""The data card counts what is there, and finds what should not be."""

import numpy as np
import pytest
from PIL import Image

from pipelines.data import card
from pipelines.data.prepared import Manifest
from pipelines.data.preprocessing import Preprocessing


def manifest(patients=None, classes=("A", "B"), **facts):
    return Manifest(
        origin={"source": "made up", "licence": "none", "note": "", "preparation": "none"},
        made_from={"settings": {"source": "test", "mode": "full"}},
        classes=list(classes),
        count=10,
        image_size=8,
        channels=1,
        preprocessing=Preprocessing(size=8),
        patients=None if patients is None else len(set(patients)),
        patient_of_image=patients,
        files={"images.npy": "0" * 64},
        splits={},
        **facts,
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)


LABELS = np.array([0, 1] * 5)
SPLITS = {"train": np.arange(6), "val": np.array([6, 7]), "test": np.array([8, 9])}


def test_counts_classes_and_splits(images):
    described = card.describe(images, LABELS, SPLITS, manifest())
    assert described["per_class"] == {"A": 5, "B": 5}
    assert described["seeds"]["all"]["counts"] == {
        "train": {"A": 3, "B": 3},
        "val": {"A": 1, "B": 1},
        "test": {"A": 1, "B": 1},
    }
    assert described["exact_duplicates"] == {"images": 0, "with_another_label": 0}
    assert described["seeds"]["all"]["patients_across"] is None


def test_finds_exact_duplicates_within_and_across_splits(images):
    images[1] = images[0]  # within train, another label
    images[8] = images[2]  # test repeats train, same label
    images[9] = images[2]  # and once more, another label
    images[7] = images[6] ^ 1  # nearly the same is not the same
    described = card.describe(images, LABELS, SPLITS, manifest())
    assert described["exact_duplicates"] == {"images": 3, "with_another_label": 2}
    assert described["seeds"]["all"]["duplicates_across"] == {"train-val": 0, "train-test": 2, "val-test": 0}


def test_images_that_no_split_uses_do_not_count_as_shared(images):
    images[8] = images[0]
    splits = {**SPLITS, "train": np.arange(1, 6)}
    described = card.describe(images, LABELS, splits, manifest())
    assert described["exact_duplicates"]["images"] == 1
    assert described["seeds"]["all"]["duplicates_across"]["train-test"] == 0


def test_finds_patients_across_splits_of_each_seed(images):
    patients = [0, 0, 1, 1, 2, 2, 2, 3, 3, 4]
    splits = {f"0/{part}": indices for part, indices in SPLITS.items()}
    splits |= {"7/train": np.arange(4), "7/val": np.array([4, 5, 6]), "7/test": np.array([7, 8, 9])}
    described = card.describe(images, LABELS, splits, manifest(patients))
    assert described["seeds"]["0"]["patients_across"] == {"train-val": 1, "train-test": 0, "val-test": 1}
    assert described["seeds"]["7"]["patients_across"] == {"train-val": 0, "train-test": 0, "val-test": 0}
    assert described["seeds"]["7"]["patients"] == {"train": 2, "val": 1, "test": 2}


def test_page_holds_the_numbers_of_the_card(images):
    images[8] = images[2]
    page = card.as_markdown(card.describe(images, LABELS, SPLITS, manifest([0, 0, 1, 1, 2, 2, 2, 3, 3, 4])))
    assert "| Seed | Split | A | B | All | Patients |" in page
    assert "| all | train | 3 | 3 | 6 | 3 |" in page
    assert "| all | train-val | 0 | 1 |" in page and "| all | train-test | 1 | 0 |" in page
    without = card.as_markdown(card.describe(images, LABELS, SPLITS, manifest()))
    assert "| all | train | 3 | 3 | 6 |\n" in without and "| all | train-test | 1 | not known |" in without


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_shows_training_images_in_a_row_a_class(tmp_path, channels):
    """Class 0 is dark, class 1 bright, validation and test mid-grey: the picture must hold the first two only."""
    shape = (10, 8, 8) if channels == 1 else (10, 8, 8, 3)
    images = np.full(shape, 128, np.uint8)
    images[:6:2], images[1:6:2] = 40, 210
    path = tmp_path / "examples.png"
    card.draw_examples(images, LABELS, SPLITS, ["A", "a class with a rather long name"], path)
    picture = np.asarray(Image.open(path).convert("L"))
    upper, lower = np.array_split(picture[:, picture.shape[1] // 5 :], 2)
    assert (upper == 40).mean() > 0.2 and (lower == 210).mean() > 0.2
    assert (upper == 210).mean() < 0.01 and (lower == 40).mean() < 0.01 and (picture == 128).mean() < 0.01
    assert list(tmp_path.iterdir()) == [path]


def test_patients_are_listed_by_image_where_they_are_known(tmp_path):
    path = tmp_path / "patients.csv"
    card.write_numbers(path, patient=[3, 3, 0])
    assert path.read_text() == "image,patient\n0,3\n1,3\n2,0\n"
