"""External data: prepared as the training data are, apart from them, and part of what a run depends on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipelines.data import preparation, prepared
from pipelines.data.errors import DataError
from pipelines.data.images import Batches
from pipelines.data.prepared import identity, open_external, open_prepared
from pipelines.profile import Params

CPU = torch.device("cpu")


def scans(root: Path, first_patient: int, classes=("A", "B"), seed=0, size=(24, 20), coloured=False):
    """Six patients a class, two images each, numbered on from `first_patient`."""
    rng = np.random.default_rng([seed, first_patient])
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for patient in range(first_patient + 6 * number, first_patient + 6 * number + 6):
            for index in range(2):
                pixels = rng.integers(0, 256, (*size, 3) if coloured else size, dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{name}-{patient}-{index}.png")
    return root


@pytest.fixture
def here(workdir):
    scans(workdir / "own", 0)
    scans(workdir / "other", 100)
    return workdir


def params(*external, **data):
    return Params(
        profile="tiny",
        seeds=[0, 1],
        data={
            "source": "folder", "image_size": 16, "folder": {"path": "own", "folds": 3, "val_share": 0.25},
            "external": list(external), **data,
        },
        model={},
        train={"epochs": 1, "batch_size": 1, "lr": 1.0},
        method={"full": {"family": "full"}},
    )  # fmt: skip


OTHER = {"name": "other", "path": "other"}


def test_external_images_are_what_the_same_files_would_be_as_training_data(here):
    """Against the arrays of a profile that has the external folder as its own data."""
    preparation.prepare(params(OTHER))
    alone = params(folder={"path": "other", "folds": 3, "val_share": 0.25})
    alone = alone.model_copy(update={"profile": "alone"})
    preparation.prepare(alone)
    found = open_external(Path("data/tiny"), ["other"], CPU)["other"]
    expected = open_prepared(Path("data/alone"), 0, CPU)
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    assert found.splits["test"].tolist() == list(range(24)) and found.classes == ["A", "B"]
    batch, labels = next(Batches(found, "test", batch_size=24, input="unit", device=CPU).in_order())
    np.testing.assert_allclose(batch[:, 0], np.asarray(expected.images) / 255, rtol=1e-6)
    table = pd.read_csv("results/tiny/data/external-other.csv")
    assert list(table) == ["image", "label", "patient"] and table["image"].tolist() == list(range(24))
    assert table["label"].tolist() == labels.tolist() == [0] * 12 + [1] * 12
    assert table["patient"].tolist() == [patient for patient in range(12) for _ in range(2)]
    prepared.verify(params(OTHER))
    page = Path("results/tiny/data/card.md").read_text()
    assert "| other | folder of images (other) | 12 | 12 | 24 | 12 |" in page
    assert "3 folds by patient x 1 repeat; seed s tests on fold s mod 3 of repeat s div 3" in page


def test_a_run_depends_on_the_external_images_it_is_tested_on(here):
    data = Path("data/tiny")
    preparation.prepare(params(OTHER))
    alone, before = identity(data, 0), identity(data, 0, external=["other"])
    assert before.pop("external") and before == alone
    stamp = (data / "external/other/images.npy").stat()
    preparation.prepare(params(OTHER))
    assert (data / "external/other/images.npy").stat().st_ino == stamp.st_ino
    before = identity(data, 0, external=["other"])
    Image.new("L", (24, 20), 9).save("other/A/A-100-0.png")
    preparation.prepare(params(OTHER))
    after = identity(data, 0, external=["other"])
    assert identity(data, 0) == alone and after != before
    assert after["external"]["other"]["labels.npy"] == before["external"]["other"]["labels.npy"]
    preparation.prepare(params())
    assert not (data / "external" / "other").exists() and not Path("results/tiny/data/external-other.csv").exists()
    with pytest.raises(DataError, match="external/other/manifest.json: no prepared data"):
        identity(data, 0, external=["other"])


def test_classes_in_another_order_are_the_same_classes(here):
    """A CSV file names its labels; the order of first appearance is B, A."""
    rows = [f"B/{p.name},B" for p in sorted(Path("other/B").iterdir())]
    rows += [f"A/{p.name},A" for p in sorted(Path("other/A").iterdir())]
    Path("other/list.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    preparation.prepare(params({"name": "listed", "path": "other/list.csv"}))
    found = open_external(Path("data/tiny"), ["listed"], CPU)["listed"]
    assert found.classes == ["A", "B"] and found.labels.tolist() == [1] * 12 + [0] * 12
    # Nobody is named, so each image is a patient of its own.
    assert pd.read_csv("results/tiny/data/external-listed.csv")["patient"].tolist() == list(range(24))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("A", "C"),
            r"data\.external \(other\)\.path: .*expected the classes of the data, A, B; it lacks B and it has C",
        ),
        (("A", "B", "C"), r"it has C; rename its folders"),
    ],
)
def test_other_classes_are_refused(here, classes, message):
    scans(here / "strange", 100, classes=classes)
    with pytest.raises(DataError, match=message):
        preparation.prepare(params({"name": "other", "path": "strange"}))


def test_classes_spelled_otherwise_are_told_before_the_names_of_files(here):
    """The default pattern reads a label from a name, which is not that of the folder then."""
    scans(here / "strange", 100)
    for name in "AB":
        (here / "strange" / name).rename(here / "strange" / name.lower())
    with pytest.raises(DataError, match="it lacks A, B and it has a, b; rename its folders or labels"):
        preparation.prepare(params({"name": "other", "path": "strange"}))


def test_a_patient_of_the_training_data_is_refused(here):
    scans(here / "late", 9, seed=1)
    with pytest.raises(DataError, match=r"data\.external \(late\): 3 patients are in the training data too: 10, 11, 9"):
        preparation.prepare(params({"name": "late", "path": "late"}))
    assert not Path("data/tiny/external/late/manifest.json").exists()


def listed(header="image,label", patients=False):
    files = [file for name in "AB" for file in sorted(Path("other", name).iterdir())]
    rows = [f"{f.parent.name}/{f.name},{f.parent.name}" + (f",{f.stem.split('-')[1]}" * patients) for f in files]
    Path("other/list.csv").write_text("\n".join([header, *rows]) + "\n")
    return {"name": "other", "path": "other/list.csv"}


def test_a_pattern_reads_the_patients_of_a_list_without_them(here):
    scans(here / "other" / "late", 9, seed=1)
    pattern = r"(?P<label>.)-(?P<patient>\d+)-"
    preparation.prepare(params({**listed(), "pattern": pattern}))
    assert pd.read_csv("results/tiny/data/external-other.csv")["patient"].tolist() == [n // 2 for n in range(24)]
    Path("other/list.csv").write_text(Path("other/list.csv").read_text() + "late/A/A-9-0.png,A\n")
    with pytest.raises(DataError, match=r"1 patients are in the training data too: 9"):
        preparation.prepare(params({**OTHER, "path": "other/list.csv", "pattern": pattern}))
    with pytest.raises(DataError, match=r"data.external \(other\).pattern '\(\(\(': not a regular expression"):
        preparation.prepare(params({**listed(), "pattern": "((("}))
    with pytest.raises(DataError, match=r"data.external \(other\).pattern: other/list.csv has a column patient"):
        preparation.prepare(params({**listed("image,label,patient", True), "pattern": pattern}))
    preparation.prepare(params(listed("image,label,patient", True)))  # data.folder.pattern is of folders


def test_patients_that_cannot_be_compared_are_told(here, capsys):
    """Printed and in the card: a test set of the same patients looks better than it is."""
    told = "whether its patients are in the training data too cannot be checked: "
    preparation.prepare(params(OTHER))
    assert told not in capsys.readouterr().out
    preparation.prepare(params(listed()))
    warning = f"{told}these images name no patients; set data.external (other).pattern, or a column patient"
    assert f"warning: other: {warning}" in capsys.readouterr().out
    assert f"Warning: other: {warning}" in Path("results/tiny/data/card.md").read_text()
    preparation.prepare(params(OTHER, folder={"path": "own", "folds": 3, "val_share": 0.25, "pattern": None}))
    assert f"{told}the training data name no patients; set data.folder.pattern" in capsys.readouterr().out
    rows = [f"{f.parent.name}/{f.name},{f.parent.name},{f.stem[2:-2]}" for f in sorted(Path("own").rglob("*.png"))]
    Path("own/list.csv").write_text("\n".join(["image,label,patient", *rows]))
    section = {"path": "own/list.csv", "folds": 3, "val_share": 0.25}
    preparation.prepare(params(OTHER, source="manifest", folder=None, manifest=section))
    assert f"{told}these images name no patients" in capsys.readouterr().out


def test_classes_in_two_unicode_forms_are_the_same(here):
    Path("own/A").rename("own/O\u0308dem")
    Path("other/A").rename("other/Ödem")
    preparation.prepare(
        params(OTHER, folder={"path": "own", "folds": 3, "val_share": 0.25, "pattern": r"-(?P<patient>\d+)-"})
    )
    assert open_external(Path("data/tiny"), ["other"], CPU)["other"].classes == ["B", "Ödem"]


def test_an_image_of_the_training_data_is_refused_whatever_its_name(here):
    Image.open("own/A/A-3-1.png").save("other/B/B-107-0.png", compress_level=1)
    with pytest.raises(DataError, match=r"1 images are in the training data too \(B/B-107-0.png is A/A-3-1.png\)"):
        preparation.prepare(params(OTHER))


@pytest.mark.parametrize("own", [False, True], ids=["grey data", "coloured data"])
def test_external_images_get_the_colours_of_the_training_data(workdir, own):
    scans(workdir / "own", 0, coloured=own)
    scans(workdir / "other", 100, coloured=not own)
    preparation.prepare(params(OTHER))
    found = open_external(Path("data/tiny"), ["other"], CPU)["other"].images
    square = Image.open("other/A/A-100-0.png").resize((16, 16), Image.Resampling.BICUBIC, box=(0, 2, 20, 22))
    expected = np.asarray(square).astype(float)
    expected = np.repeat(expected[..., None], 3, axis=2) if own else expected @ [0.299, 0.587, 0.114]
    assert np.abs(found[0].numpy() - expected).max() <= 1


def test_the_patients_of_the_own_data_are_known_whatever_external_data_lack(here):
    """Without patients.csv the statistics would take every image for a patient."""
    scans(here / "late", 9, seed=1)
    with pytest.raises(DataError, match="3 patients are in the training data too"):
        preparation.prepare(params({"name": "late", "path": "late"}))
    owners = pd.read_csv("results/tiny/data/patients.csv").patient
    assert (len(owners), owners.nunique()) == (24, 12)


def test_a_plain_file_among_the_external_sets_is_left_alone(here):
    preparation.prepare(params(OTHER))
    Path("data/tiny/external/.DS_Store").touch()
    preparation.prepare(params())
    assert [path.name for path in Path("data/tiny/external").iterdir()] == [".DS_Store"]


def test_the_name_of_the_own_test_images_is_taken():
    with pytest.raises(ValueError, match="'test' is what results call the profile's own test images"):
        params({"name": "test", "path": "other"})


def test_two_sets_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"external: each name counts once, found \['other', 'other'\]"):
        params(OTHER, OTHER)


def test_what_another_machine_needs_includes_the_external_data(here):
    preparation.prepare(params(OTHER))
    names = {path.relative_to("data/tiny").as_posix() for path in prepared.files(Path("data/tiny"))}
    assert {"manifest.json", "images.npy", "external/other/images.npy", "external/other/manifest.json"} <= names
