"""Nothing that is read can do more than be refused: parameters, arrays, images, prepared data, damaged or made up.

A few examples of each property; `pytest tests/test_untrusted*.py --hypothesis-profile=long` tries 10,000.
"""

import contextlib
import json
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from pipelines.data import prepared
from pipelines.data.pictures import load_image
from pipelines.data.sources import DataError
from pipelines.files import arrays
from pipelines.profile import Params, ParamsError, loading
from tests.conftest import bright_quadrants, tiny_params, write_prepared
from tests.damage import ANYTHING, altered, damaged, file_like


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("untrusted")


TINY = {**tiny_params(), "tune": {"lrs": [0.1], "epochs": 1}}


def use(path: Path) -> None:
    """Load parameters, and ask what every stage asks: nothing but ParamsError may come of it."""
    try:
        loaded = loading.load(path)
    except ParamsError as error:
        assert str(path) in str(error) and len(str(error)) < 5000
        return
    assert isinstance(loaded, Params)
    for method in loaded.method:
        loaded.tuned(method)
        for place in (loaded.run_dir(method, loaded.seeds[0]), loaded.tune_file(method)):
            assert place.resolve().is_relative_to(loaded.results_dir.resolve()) and loaded.profile in place.parts
        try:
            settings = loaded.settings(method)
        except ParamsError as error:
            assert method in str(error)
            continue
        assert isinstance(settings["train"]["epochs"], int) and isinstance(settings["backbone"], str)


@given(file_like(yaml.safe_dump(TINY).encode()))
def test_any_bytes_as_parameters(here, content):
    (here / "params.yaml").write_bytes(content)
    use(here / "params.yaml")


@given(st.one_of(altered(TINY, ANYTHING), ANYTHING))
def test_any_structure_as_parameters(here, content):
    (here / "params.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    use(here / "params.yaml")


# --- arrays and images ------------------------------------------------------------------------------------------------

ARRAYS = {
    "indices": np.arange(7), "probabilities": np.random.default_rng(0).random((7, 3), np.float32),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "kinds": np.array(["a", "bc"]), "one": np.float64(3),
}  # fmt: skip


def zipped(content: dict, save=np.savez_compressed) -> bytes:
    stream = BytesIO()
    save(stream, **content)
    return stream.getvalue()


@given(file_like(zipped(ARRAYS)) | damaged(zipped(ARRAYS, np.savez)))
def test_any_bytes_as_an_archive_of_arrays(here, content):
    (here / "a.npz").write_bytes(content)
    try:
        found = arrays.read_npz(here / "a.npz")
    except arrays.ArrayError:
        return
    for name in set(found) & set(ARRAYS):  # what has its checksum is what was written
        np.testing.assert_array_equal(found[name], ARRAYS[name])


def pictures() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    grey, deep = Image.fromarray(pixels[..., 0]), Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    coloured = Image.fromarray(pixels)
    found = []
    for image, kind, options in (
        (coloured, "PNG", {}), (deep, "PNG", {}), (coloured.quantize(8), "PNG", {}), (grey, "JPEG", {}),
        (coloured, "JPEG", {"progressive": True, "exif": _turned()}), (grey, "BMP", {}), (coloured, "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}), (coloured, "TIFF", {"compression": "jpeg"}),
    ):  # fmt: skip
        stream = BytesIO()
        image.save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@given(st.sampled_from(pictures()).flatmap(file_like), st.sampled_from([".png", ".jpeg", ".tif"]))
def test_any_bytes_as_an_image(here, content, suffix):
    file = here / f"A-1-1{suffix}"
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        try:
            image = load_image(file, 8)
        except DataError as error:
            assert str(file) in str(error)
            return
    assert image.dtype == np.uint8 and image.shape in ((8, 8), (8, 8, 3))


@pytest.fixture(scope="module")
def whole_data(here):
    """Prepared data, their parameters, and the files' contents."""
    images, labels = bright_quadrants(24, size=8)
    splits = {"train": np.arange(12), "val": np.arange(12, 18), "test": np.arange(18, 24)}
    write_prepared(here / "data" / "tiny", images, labels, splits)
    return {path.name: path.read_bytes() for path in (here / "data" / "tiny").iterdir()}


@given(st.data())
def test_damaged_prepared_data_are_noticed(here, whole_data, data):
    name = data.draw(st.sampled_from(sorted(whole_data)))
    content = data.draw(damaged(whole_data[name]))
    assume(content != whole_data[name])
    path = here / "data" / "tiny" / name
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        try:
            prepared.verify(Params(**tiny_params()))
        except DataError as error:
            assert "python -m pipelines.prepare" in str(error)
        else:  # what is read of it must be as it was
            if name == "splits.npz":
                before = np.load(BytesIO(whole_data[name]))
                assert all(np.array_equal(array, before[key]) for key, array in np.load(path).items())
            else:
                before, now = json.loads(whole_data[name]), json.loads(content)
                assert all(now["files"][key] == before["files"][key] for key in ("images.npy", "labels.npy"))
                assert all(before["splits"][key] == value for key, value in now["splits"].items())
            with contextlib.suppress(DataError):  # a name that is no longer there
                prepared.identity(Path("data/tiny"), 0)
        finally:
            path.write_bytes(whole_data[name])
