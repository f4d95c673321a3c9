"""The folder source: what it reads, how it crops, and what it refuses."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import pictures
from pipelines.data.sources import DataError, folder
from pipelines.profile.data import Data, Folder

PATTERN = Folder(path=Path(".")).pattern


def write_classes(root, classes=("A", "B"), patients=6, per_patient=2, size=(40, 30), seed=0):
    """Grey PNGs named CLASS-PATIENT-INDEX.png; patients differ between classes."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for patient in range(patients):
            for index in range(per_patient):
                pixels = rng.integers(0, 256, size[::-1], dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{name}-{100 * number + patient}-{index}.png")
    return root


def read(root, size=16, seeds=(0,), fit="crop", **settings):
    section = {"path": root, "folds": 3, "val_share": 0.25, **settings}
    data = Data(source="folder", image_size=size, fit=fit, folder=section)
    return folder.read(data, seeds, lambda shape: np.zeros(shape, np.uint8))


def test_reads_classes_in_sorted_order_and_patients_from_names(tmp_path):
    data = read(write_classes(tmp_path, classes=("NORMAL", "CNV")))
    assert data.classes == ["CNV", "NORMAL"]
    assert data.images.shape == (24, 16, 16) and data.images.dtype == np.uint8
    assert data.labels.tolist() == [0] * 12 + [1] * 12
    # CNV was written second, so its patients count from 100.
    assert sorted(set(data.patients[:12])) == [str(100 + i) for i in range(6)]


@pytest.mark.parametrize("shape", [(60, 92), (92, 60), (61, 64)])
def test_image_is_cropped_to_its_centre_square_then_resized(tmp_path, shape):
    """Against the formula in float64; the outermost two pixels may see beyond the crop's edge."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    pixels = (120 + 60 * np.sin(rows / 7) + 60 * np.cos(columns / 9)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    side = min(shape)
    top, left = (height - side) // 2, (width - side) // 2
    weights = bicubic_weights(side, 20)
    expected = weights @ pixels[top : top + side, left : left + side] @ weights.T
    difference = np.abs(pictures.load_image(tmp_path / "scan.png", 20) - expected)
    assert difference[2:-2, 2:-2].max() <= 1.01  # Pillow rounds after each of its two passes
    assert difference.max() < 8


def bicubic_weights(size, new):
    """Keys' cubic (a = -1/2), widened by the scale so that it averages: (new, size)."""
    scale = size / new
    t = np.abs((np.arange(size) + 0.5)[None] - (np.arange(new)[:, None] + 0.5) * scale) / scale
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def test_resize_averages_detail_instead_of_sampling_it(tmp_path):
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "checks.png")
    small = pictures.load_image(tmp_path / "checks.png", 8)
    assert np.abs(small.astype(int) - 127).max() <= 2  # nearest-neighbour would give 0 or 255


def test_grey_stored_as_rgb_counts_as_grey_and_one_coloured_image_makes_all_rgb(tmp_path):
    write_classes(tmp_path)
    grey = Image.open(tmp_path / "A" / "A-0-0.png")
    expected = read(tmp_path).images
    grey.convert("RGB").save(tmp_path / "A" / "A-0-0.png")
    np.testing.assert_array_equal(read(tmp_path).images, expected)
    Image.new("RGB", (20, 20), (200, 10, 60)).save(tmp_path / "B" / "B-100-0.png")
    mixed = read(tmp_path).images
    assert mixed.shape == (24, 16, 16, 3)
    np.testing.assert_array_equal(mixed[0], np.repeat(expected[0][..., None], 3, axis=2))
    assert mixed[12].reshape(-1, 3).tolist() == [[200, 10, 60]] * 256


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    found = pictures.load_image(tmp_path / "deep.png", 16).astype(float)
    assert np.abs(found - ramp / 257).max() <= 0.51  # 65535 / 255 = 257


def test_camera_orientation_is_applied(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 250
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(pictures.load_image(tmp_path / "turned.png", 16), pixels[::-1])


def test_hidden_files_and_other_suffixes_are_left_out(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "A" / ".A-9-9.png").write_bytes(b"x")
    (tmp_path / "A" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    assert len(read(tmp_path).labels) == 24


@pytest.mark.parametrize("change", ["content", "name", "new"])
def test_the_digest_changes_with_content_and_names_alone(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    root = write_classes(tmp_path / "scans")
    data = Data(source="folder", image_size=16, folder={"path": root})
    before = folder.inputs(data)
    file = root / "A" / "A-0-0.png"
    file.touch()
    assert folder.inputs(data) == before
    if change == "content":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif change == "name":
        file.rename(root / "A" / "A-0-7.png")
    else:
        (root / "A" / "A-0-7.png").write_bytes(file.read_bytes())
    assert folder.inputs(data) != before


def test_readme_of_the_folder_becomes_the_note(tmp_path):
    write_classes(tmp_path)
    assert read(tmp_path).origin["licence"] == "not stated in the folder"
    (tmp_path / "README.md").write_text("# title\n\nScans of X,\nlicence CC BY 4.0.\n\nMore.\n")
    assert read(tmp_path).origin["note"] == "Scans of X, licence CC BY 4.0."


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.folder\.path: .*absent.*found nothing"):
        read(tmp_path / "absent")


def test_single_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least two class subfolders, found 1"):
        read(write_classes(tmp_path, classes=("A",)))


def test_empty_class_is_named(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "C").mkdir()
    with pytest.raises(DataError, match="C: the class is empty.*oct-converter"):
        read(tmp_path)


def png_with_bad_checksum(file):
    content = bytearray(file.read_bytes())
    at = content.index(b"IDAT") + 4
    content[at + 5] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(b""), "is empty \\(0 bytes\\)"),
        (lambda f: f.write_text("this is text"), "not a readable image"),
        (lambda f: f.write_bytes(f.read_bytes()[:200]), "cannot be decoded|not a readable image"),
        (png_with_bad_checksum, "cannot be decoded|not a readable image"),
    ],
    ids=["zero bytes", "text", "truncated", "bad checksum"],
)
def test_damaged_image_is_named(tmp_path, spoil, message):
    write_classes(tmp_path)
    file = tmp_path / "B" / "B-103-1.png"
    spoil(file)
    with pytest.raises(DataError, match=f"B-103-1.png: .*({message})"):
        read(tmp_path)


def test_truncated_jpeg_is_named(tmp_path):
    file = tmp_path / "cut.jpeg"
    Image.effect_noise((200, 200), 50).save(file)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cut.jpeg: the image cannot be decoded"):
        pictures.load_image(file, 32)


@pytest.mark.parametrize("side", [9000, 60000])
def test_image_that_unpacks_to_gigabytes_is_refused_by_its_header(tmp_path, side):
    """Only the header claims the size; 60000 squared is also beyond Pillow's own limit."""

    def part(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0")) + part(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"bomb.png: .*more than 64,000,000 pixels"):
        pictures.load_image(tmp_path / "bomb.png", 32)


def test_image_with_several_frames_is_refused(tmp_path):
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 100)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="stack.tif: it holds 2 frames.*oct-converter"):
        pictures.load_image(tmp_path / "stack.tif", 16)


def test_unsupported_pixel_mode_is_named(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="float.tif: pixel mode 'F'"):
        pictures.load_image(tmp_path / "float.tif", 16)


@pytest.mark.parametrize("kind", ["file", "class folder"])
def test_link_that_leaves_the_folder_is_refused(tmp_path, kind):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    write_classes(inside)
    write_classes(outside, classes=("C",))
    link, target = (inside / "A" / "A-50-0.png", "C/C-0-0.png") if kind == "file" else (inside / "C", "C")
    link.symlink_to(outside / target)
    with pytest.raises(DataError, match="leads to .*outside"):
        read(inside)


def test_link_within_the_folder_and_a_linked_root_are_fine(tmp_path):
    write_classes(tmp_path / "real")
    (tmp_path / "real" / "A" / "A-50-0.png").symlink_to(tmp_path / "real" / "A" / "A-0-0.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(read(tmp_path / "link").labels) == 25


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?P<patient>\d+)_(\d+)", "gives a patient to no file name: 'A-0-0' no match"),
        (
            r"(?P<label>A)-(?P<patient>\d+)-\d+",
            "12 of 24 file names, not to all: 'B-100-0' no match; 'B-100-1' no match; 'A-0-0' label 'A', patient '0'",
        ),
        (r"(\w+)-(\d+)-(\d+)", "has no group"),
        (r"(?P<patient>[", "not a regular expression"),
        (
            r"A-0(?P<patient>x*).*|.*-(?P<other>\d+)-.*",
            "to no file name: 'A-0-0' patient '', other None; .*'A-1-0' patient None, other '1'",
        ),
    ],
)
def test_pattern_that_gives_no_patients_is_shown(tmp_path, pattern, message):
    with pytest.raises(DataError, match=r"data\.folder\.pattern .*" + message):
        read(write_classes(tmp_path), pattern=pattern)


def test_name_that_contradicts_its_folder_is_refused(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "A" / "A-0-0.png").rename(tmp_path / "A" / "B-0-0.png")
    with pytest.raises(DataError, match="its name says 'B' but its class is 'A'"):
        read(tmp_path)
    assert read(tmp_path, pattern=r".-(?P<patient>\d+)-\d+").classes == ["A", "B"]


COMPOSED, DECOMPOSED = "Ödem", "O\u0308dem"  # one word in two Unicode forms, NFC and NFD


def test_one_patient_in_two_unicode_forms_is_one_patient(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "A" / "A-0-0.png").rename(tmp_path / "A" / f"A-{COMPOSED}-0.png")
    (tmp_path / "A" / "A-0-1.png").rename(tmp_path / "A" / f"A-{DECOMPOSED}-1.png")
    found = read(tmp_path)
    assert set(found.patients[:12]) == {COMPOSED, "1", "2", "3", "4", "5"}
    assert f"A/A-{DECOMPOSED}-1.png" in found.files  # a path stays as the disk has it
    composed = read(tmp_path, pattern=f"-(?P<patient>{COMPOSED}|[0-9]+)-").patients
    assert (composed == found.patients).all()


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    for number, part in enumerate(("train", "val", "test")):
        write_classes(tmp_path / part, ("A", COMPOSED if part == "val" else DECOMPOSED), seed=number)
    pattern = r"(?P<label>[^-]+)-(?P<patient>.+)"  # every image is a patient, but in all three parts
    with pytest.raises(DataError, match="12 patients|24 patients"):
        read(tmp_path, pattern=pattern)
    found = read(tmp_path, pattern=None)
    assert found.classes == ["A", COMPOSED] and np.bincount(found.labels).tolist() == [36, 36]
    (tmp_path / "train" / COMPOSED).mkdir()
    with pytest.raises(DataError, match=f"train: two folders are called {COMPOSED}, in two Unicode forms"):
        read(tmp_path)


def test_class_with_fewer_patients_than_folds_is_named(tmp_path):
    write_classes(tmp_path, patients=6)
    for file in (tmp_path / "B").glob("B-10[2-5]-*"):
        file.unlink()
    with pytest.raises(DataError, match=r"class 'B' has 2 patients, fewer than data\.folder\.folds = 3"):
        read(tmp_path)


def test_real_scans_of_oct1k():
    root = Path(__file__).parents[2] / "shared" / "data" / "oct1k"
    if not root.is_dir():
        pytest.skip("the oct1k images are not beside this checkout")
    found = folder.listing(root, PATTERN)
    assert found.classes == ["CNV", "DME", "DRUSEN", "NORMAL"] and len(found.files) == 1000
    assert len(set(found.patients)) == 633  # as the folder's own README counts them
    assert found.left_out == {}
    image = pictures.load_image(found.files[0], 64)
    assert image.shape == (64, 64) and 20 < image.mean() < 120
