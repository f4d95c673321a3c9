"""Scans as a clinic has them: CSV lists, given splits, 16 bits, odd shapes, colours, links, names without patients."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import labelled, pictures, preparation, prepared
from pipelines.data.errors import DataError
from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import folder, manifest, read
from pipelines.profile import Params
from pipelines.profile.data import Data


def noise(size=(20, 20), seed=0, kind=np.uint8, top=256):
    return np.random.default_rng(seed).integers(0, top, size).astype(kind)


def classes(root, parts=("",), first=0, suffix="png"):
    """Two classes of six patients, two images each, in every part; patients go on from part to part."""
    for number, part in enumerate(parts):
        for label, name in enumerate(("A", "B")):
            place = root / part / name
            place.mkdir(parents=True)
            for patient in range(6):
                for index in range(2):
                    who = first + 100 * number + 10 * label + patient
                    Image.fromarray(noise(seed=2 * who + index)).save(place / f"{name}-{who}-{index}.{suffix}")
    return root


def data(source="folder", size=16, fit="crop", **settings):
    section = {"path": "scans", "folds": 3, "val_share": 0.25, **settings}
    return Data(source=source, image_size=size, fit=fit, **{source: section})


def prepare(settings, seeds=(0,)):
    return preparation.prepare(
        Params(
            profile="tiny", seeds=list(seeds), data=settings.model_dump(mode="json"), model={},
            train={"epochs": 1, "batch_size": 1, "lr": 1.0}, method={"full": {"family": "full"}},
        )
    )  # fmt: skip


# --- lists and given splits -------------------------------------------------------------------------------------------


HEADER = "image,label,patient,split"


def table(path, rows, header=HEADER):
    Path(path).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return data("manifest", path=path)


def rows(split=True):
    found = []
    for part in ("train", "val", "test"):
        for file in sorted(Path("scans", part).rglob("*.png")):
            name = file.relative_to("scans").as_posix()
            found.append(f"{name},{file.parent.name},{file.stem.split('-')[1]}" + (f",{part}" if split else ""))
    return found


@pytest.fixture
def split_scans(workdir):
    return classes(workdir / "scans", ("train", "val", "test"))


def test_a_list_with_splits_keeps_them_in_any_order_of_lines(split_scans):
    settings = table("scans/list.csv", rows()[::-1])
    found, in_folders = read(settings, [0]), read(data(), [0])
    assert found.classes == ["A", "B"] and found.folds is None
    assert [set(np.array(found.files)[found.splits[part]]) for part in ("train", "val", "test")] == [
        {str(p.relative_to("scans")) for p in Path("scans", part).rglob("*.png")} for part in ("train", "val", "test")
    ]
    # The same images with the same labels as the folder of train, val and test gives.
    ours, theirs = ({name: (d.images[i].tobytes(), d.labels[i], d.patients[i]) for i, name in enumerate(d.files)}
                    for d in (found, in_folders))  # fmt: skip
    assert ours == theirs


def test_a_list_without_splits_gets_folds_that_no_patient_crosses(split_scans):
    found = read(table("scans/list.csv", rows(split=False), "image,label,patient"), range(6))
    assert found.folds == 3
    for seed in range(6):
        owners = [set(found.patients[found.splits[f"{seed}/{part}"]]) for part in ("train", "val", "test")]
        assert sum(map(len, owners)) == 36
    for first in (0, 3):
        tested = np.concatenate([found.splits[f"{seed}/test"] for seed in range(first, first + 3)])
        assert sorted(tested) == list(range(72))


def test_a_list_without_patients_says_so_and_splits_by_image(split_scans, capsys):
    settings = table("scans/list.csv", [row.rsplit(",", 2)[0] for row in rows()], "image,label")
    found = prepare(settings, range(3))
    assert found.patients is None and "warning: no patients are named: images are split one by one" in (
        capsys.readouterr().out
    )
    splits = prepared.open_splits(Path("data/tiny"))
    assert sorted(np.concatenate([splits[f"{seed}/test"] for seed in range(3)])) == list(range(72))
    assert "by image" in Path("results/tiny/data/card.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: ["image,class", "a.png,A"], "expected one column 'label' in the first line, found 'image', 'class'"),
        (lambda r: [HEADER, *r, r[0]], "names 1 images more than once: train/A/A-0-0.png"),
        (lambda r: [HEADER, *r, f"./{r[0]}"], "names 1 images more than once: ./train/A/A-0-0.png"),
        (lambda r: [HEADER, "none.png,A,1,train", *r], "none.png: no such file in scans"),
        (lambda r: [HEADER, "list.csv,A,1,train", *r], "list.csv: expected an image"),
        (lambda r: [HEADER, *r[:3], r[3].replace(",A,", ",,"), *r[4:]], "line 5 has no label"),
        (lambda r: [HEADER, r[0].replace(",0,", ",,"), *r[1:]], "line 2 has no patient; .*leave the"),
        (lambda r: [HEADER, *[x.replace(",val", ",dev") for x in r]], "column split holds dev, test"),
        (lambda r: [HEADER, *[x for x in r if "/A/" in x]], "at least two labels, found 1"),
        (lambda r: ["image,label", *r], "line 2 has 4 values, the first line names 2; put a value that holds"),
        (lambda r: [HEADER, *[x.replace(",110,", ",10,") for x in r]],
         "1 patients are in train and in val: 10"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_used_is_explained(split_scans, change, message):
    lines = change(rows())
    with pytest.raises(DataError, match=message):
        read(table("scans/list.csv", lines[1:], lines[0]), [0])


def test_a_list_that_is_not_there_or_not_text_is_named(workdir):
    with pytest.raises(DataError, match=r"data\.manifest\.path: scans: no such file"):
        read(data("manifest"), [0])
    Path("scans").write_bytes(b"image,label\n\xff\xfe,A\n")
    with pytest.raises(DataError, match="scans: not a CSV file in UTF-8"):
        read(data("manifest"), [0])


def test_a_list_names_images_in_its_own_folder_unless_links_are_followed(split_scans, workdir):
    Image.fromarray(noise(seed=999)).save("elsewhere.png")
    settings = table("scans/list.csv", [*rows(), "../elsewhere.png,A,777,train"])
    with pytest.raises(DataError, match="elsewhere.png: leads to .*outside scans; .*follow_links: true"):
        read(settings, [0])
    section = settings.manifest.model_copy(update={"follow_links": True})
    assert len(manifest.listing(section.path, section.follow_links).files) == 73


def test_a_changed_label_in_a_list_prepares_anew(split_scans):
    first = prepare(table("scans/list.csv", rows()))
    assert prepare(table("scans/list.csv", rows())).files == first.files
    changed = prepare(table("scans/list.csv", [rows()[0].replace(",A,", ",B,"), *rows()[1:]]))
    assert changed.files["labels.npy"] != first.files["labels.npy"]


def test_given_folders_are_kept_and_a_patient_in_two_of_them_is_refused(split_scans):
    found = read(data(), [0, 7])
    assert list(found.splits) == ["train", "val", "test"] and found.folds is None
    assert {found.files[i].split("/")[0] for i in found.splits["val"]} == {"val"}
    Path("scans/test/A/A-200-0.png").rename("scans/test/A/A-3-0.png")
    with pytest.raises(DataError, match="1 patients are in train and in test: 3; move their images"):
        read(data(), [0])


@pytest.mark.parametrize(
    ("gone", "message"), [("val", "found test, train; expected train, val and test"), ("val/B", "its classes are A")]
)
def test_given_folders_must_be_complete(split_scans, gone, message):
    Path("scans", gone).rename("aside")
    with pytest.raises(DataError, match=message):
        read(data(), [0])


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_pattern_may_match_a_part_of_the_name():
    files = [Path(f"2024_export_pat{n:03}_OD_v2.png") for n in (7, 7, 12)]
    found = labelled.patients_in(files, ["A"] * 3, r"pat(?P<patient>\d+)", "data.folder.pattern")
    assert found.tolist() == ["007", "007", "012"]


def test_a_pattern_that_would_never_end_is_stopped():
    with pytest.raises(DataError, match=r"takes more than 1 s for one name; it repeats a repetition"):
        labelled.patients_in([Path("a" * 60 + "!.png")], ["A"], r"^(?P<patient>(a|aa)+)$", "data.folder.pattern")


def test_names_that_tell_no_patient_are_split_by_image(workdir):
    classes(workdir / "scans")
    found = read(data(pattern=None), [0])
    assert found.patients is None and found.folds == 3
    assert any("no patients are named" in warning for warning in found.warnings)


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_twelve_bit_scans_keep_their_range_and_the_card_says_how(workdir):
    """The folder's brightest value is 4095: it becomes 255, and the grey levels are not thinned out."""
    classes(workdir / "scans", suffix="tif")
    deep = {}
    for number, file in enumerate(sorted(Path("scans").rglob("*.tif"))):
        deep[number] = noise((16, 16), number, np.uint16, 3000)
        deep[number][0, 0] = 4095 if number == 5 else 0
        Image.fromarray(deep[number]).save(file)
    found = prepare(data())
    images, _ = prepared.open_images(Path("data/tiny"))
    for number, values in deep.items():
        assert np.abs(images[number] - values.astype(float) * 255 / 4095).max() <= 0.51
    assert found.preprocessing.white == 4095 and len(np.unique(images)) > 180
    assert "16-bit grey up to 4,095 is shown as 0 to 255" in Path("results/tiny/data/card.md").read_text()
    # New images to predict are treated as those were.
    np.testing.assert_array_equal(found.preprocessing.load(Path("scans/A/A-0-0.tif")), images[0])


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)])
def test_white_is_zero_means_the_same_at_every_depth(tmp_path, kind, white):
    """A TIFF may store white as 0 (MINISWHITE); the picture is the negative of what is stored."""
    stored = noise((16, 16), 0, kind, white + 1)
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={262: 0})
    if kind == np.uint8:  # Pillow writes 8 bits as they should be shown
        with Image.open(tmp_path / "a.tif") as image:
            expected = np.asarray(image).astype(float)
    else:
        expected = 255 - stored.astype(float) * 255 / white
    assert np.abs(pictures.load_image(tmp_path / "a.tif", 16, white=white) - expected).max() <= 0.51


def test_webp_is_read(tmp_path):
    pixels = np.repeat(noise((16, 16))[..., None], 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(pictures.load_image(tmp_path / "a.webp", 16), pixels[..., 0])


@pytest.mark.parametrize("shape", [(40, 80), (80, 40)])
def test_fit_decides_how_much_of_a_long_scan_is_kept(tmp_path, shape):
    """The long side is bright at its ends: cut away, kept with black beside, or squeezed."""
    long = np.full((40, 80), 100, np.uint8)
    long[:, :10] = long[:, -10:] = 200
    pixels = long if shape == (40, 80) else long.T
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    seen = {fit: pictures.load_image(tmp_path / "a.png", 40, fit) for fit in ("crop", "pad", "stretch")}
    seen = {fit: image if shape == (40, 80) else image.T for fit, image in seen.items()}
    assert (seen["crop"] == 100).all()
    assert (seen["pad"][:10] == 0).all() and (seen["pad"][-10:] == 0).all() and (seen["pad"][12:28, 7:-7] == 100).all()
    assert (seen["pad"][12:28, :3] == 200).all() and (seen["stretch"][:, :3] == 200).all()
    assert (seen["stretch"][:, 8:-8] == 100).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1000, 1), (1, 1000)])
def test_tiny_and_extreme_images_still_become_squares(tmp_path, fit, size):
    Image.new("L", size, 90).save(tmp_path / "a.png")
    image = pictures.load_image(tmp_path / "a.png", 16, fit)
    assert image.shape == (16, 16) and image.max() == 90


def test_fit_is_part_of_what_prepared_data_are_made_from(workdir):
    classes(workdir / "scans")
    Image.fromarray(noise((20, 60), 3)).save("scans/A/A-0-0.png")
    digests = {fit: prepare(data(fit=fit)).files["images.npy"] for fit in ("crop", "pad", "stretch")}
    assert len(set(digests.values())) == 3


def test_the_preprocessing_of_a_manifest_makes_the_prepared_arrays(workdir):
    """Grey, coloured and 16-bit files in one folder; each alone gives what stands in images.npy."""
    classes(workdir / "scans")
    Image.fromarray(noise((20, 30, 3), 1)).save("scans/A/A-0-0.png")
    Image.fromarray(noise((30, 20), 2, np.uint16, 4096)).save("scans/B/B-10-0.png")
    found = prepare(data(fit="pad"))
    images, _ = prepared.open_images(Path("data/tiny"))
    stored = Preprocessing.model_validate_json(found.preprocessing.model_dump_json())
    for number, name in enumerate(prepared.read_files(Path("data/tiny"))["file"]):
        np.testing.assert_array_equal(stored.load(Path("scans", name)), images[number])


# --- what is told -----------------------------------------------------------------------------------------------------


def test_oddities_are_named_on_stdout_and_counted_and_numbered_in_the_card(workdir, capsys):
    """The card goes into Git, and names of files may tell who is who."""
    classes(workdir / "scans")
    Image.fromarray(noise((20, 20, 3), 1)).save("scans/A/A-0-0.png")
    Image.new("L", (1, 1), 7).save("scans/A/A-1-0.png")
    Image.fromarray(noise((300, 20), 1)).save("scans/B/B-10-0.png")
    Path("scans/B/B-11-0.png").write_bytes(Path("scans/A/A-2-0.png").read_bytes())
    Path("scans/A/notes.txt").write_text("x")
    Path("scans/A/.hidden.png").write_bytes(b"x")
    Path("scans/A/deeper").mkdir()
    Path("scans/loose.png").write_bytes(b"x")
    prepare(data())
    told, page = capsys.readouterr().out, Path("results/tiny/data/card.md").read_text()
    numbers = {name: number for number, name in enumerate(prepared.read_files(Path("data/tiny"))["file"])}
    for warning in (
        "1 of 24 images are coloured, so all are stored as RGB: {A/A-0-0.png}",
        "1 images have a side of fewer than 16 pixels: {A/A-1-0.png}",
        "1 images are more than 10 times as long as wide: {B/B-10-0.png}",
        "1 images repeat another one under another label: {A/A-2-0.png} = {B/B-11-0.png}",
    ):
        numbered = re.sub("{(.*?)}", lambda name: f"image {numbers[name[1]]}", warning)
        assert f"warning: {re.sub('[{}]', '', warning)}\n" in told and f"- Warning: {numbered}\n" in page
    for left, names in (
        ("1 hidden", "A/.hidden.png"), ("1 files ending in .txt", "A/notes.txt"),
        ("1 subfolders of classes", "A/deeper"), ("1 images outside of class folders", "loose.png"),
    ):  # fmt: skip
        assert left in page and f"{left} ({names})" in told
    for name in (*numbers, ".hidden.png", "notes.txt", "deeper", "loose.png"):
        assert name not in page and name not in Path("results/tiny/data/card.json").read_text()


def test_what_was_left_out_is_what_is_left_out_now(workdir, capsys):
    classes(workdir / "scans")
    Path("scans/A/.first.png").write_bytes(b"x")
    before = prepare(data())
    assert "left out: 1 hidden (A/.first.png)" in capsys.readouterr().out
    Path("scans/A/.first.png").rename("scans/A/.second.png")
    assert prepare(data()).files == before.files
    assert "left out: 1 hidden (A/.second.png)" in capsys.readouterr().out
    Path("scans/A/.second.png").unlink()
    prepare(data())
    assert "left out" not in capsys.readouterr().out


def test_files_csv_says_which_file_an_image_is(workdir):
    classes(workdir / "scans")
    prepare(data())
    images, labels = prepared.open_images(Path("data/tiny"))
    listed = prepared.read_files(Path("data/tiny"))
    assert list(listed) == ["image", "file", "patient"] and listed["image"].tolist() == list(range(24))
    for number, file, patient in listed.itertuples(index=False):
        np.testing.assert_array_equal(pictures.load_image(Path("scans", file), 16), images[number])
        assert file.startswith("AB"[labels[number]]) and file.split("-")[1] == patient
    Path("data/tiny/files.csv").unlink()
    prepare(data())
    assert Path("data/tiny/files.csv").is_file()


def test_links_out_of_the_folder_are_followed_where_that_is_asked_for(workdir):
    classes(workdir / "scans")
    classes(workdir / "store", first=500)
    os.symlink(workdir / "store" / "A" / "A-500-0.png", "scans/A/A-500-0.png")
    with pytest.raises(DataError, match="leads to .*outside scans; .*follow_links: true"):
        read(data(), [0])
    assert len(folder.listing(Path("scans"), None, follow_links=True).files) == 25
