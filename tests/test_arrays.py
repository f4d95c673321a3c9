"""Files that promise terabytes, unpack without end or name other places: refused from their headers, by all readers."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import colora
from baselines.backbones.weights import WeightsError, load_into
from pipelines.data import labelled
from pipelines.data.sources import DataError, folder
from pipelines.files import arrays
from pipelines.files.records import RecordError
from pipelines.profile import ParamsError, loading
from pipelines.runs.record import read_record
from tests.conftest import tiny_params

TERA = 2**40


def npy(shape, dtype="|u1", fortran=False, data=b"x" * 100) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return stream.getvalue() + data


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.fixture
def small_memory():
    """The test may take 64 MiB at its peak, of what Python and numpy take."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
    content = {
        "a": np.arange(5), "b": np.asfortranarray(np.random.default_rng(0).random((3, 4))), "c": np.zeros((0, 3)),
        "d": np.float32(2), "e": np.array(["x", "yz"]), "f": np.array([True, False]),
    }  # fmt: skip
    save(tmp_path / "a.npz", **content)
    found = arrays.read_npz(tmp_path / "a.npz")
    assert list(found) == list(content)
    for name, array in content.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert list(arrays.read_npz(tmp_path / "a.npz", ["d", "a"])) == ["d", "a"]
    with pytest.raises(arrays.ArrayError, match=r"lacks x, found \['a', 'b'"):
        arrays.read_npz(tmp_path / "a.npz", ["a", "x"])


HEADERS = {
    "terabytes": npy((TERA,)),
    "beyond integers": npy((2**70, 2**70)),
    "objects": npy((1,), "|O"),
    "fields": npy((1,), [("a", "<i4")]),
    "negative": npy((-1, -100)),
    "longer": npy((2**10,)),
    "no header": b"\x93NUMPY\x01\x00\xff\xff{",
    "deep header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
    "pickle": b"\x80\x04\x95.",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_arrays(tmp_path, kind):
    with pytest.raises(arrays.ArrayError, match="not a whole zip archive of arrays|expected|plain numbers"):
        arrays.read_npz(archive(tmp_path / "a.npz", a=HEADERS[kind]))


@pytest.mark.parametrize("content", [b"", b"x", b"PK", b"damaged" * 9, npy((100,))])
def test_what_is_no_archive_is_told_without_advice_to_unpickle_it(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(arrays.ArrayError, match="does not start as a zip archive does"):
        arrays.read_npz(tmp_path / "a.npz")


def test_a_member_that_claims_terabytes(tmp_path, small_memory):
    """In its own header and in the archive's, consistently."""
    path = archive(tmp_path / "a.npz", a=npy((100,)))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(bytes(content))
    with pytest.raises(arrays.ArrayError, match="unpacks to 4,294,967,294 bytes"):
        arrays.read_npz(path)


def test_a_bomb_is_not_unpacked(tmp_path, small_memory):
    """Zeros by the thousand in a byte, whole and correct; the limit is lowered to be reached in less time."""
    size, limit = 2**26, 2**26 - 1
    packer, checksum, packed, block = zlib.compressobj(9, zlib.DEFLATED, -15), 0, io.BytesIO(), bytes(2**20)
    head = npy((size,), data=b"")
    pieces = [head] + [block] * (size // len(block)) + [bytes(size % len(block))]
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
        packed.write(packer.compress(piece))
    packed.write(packer.flush())
    body, name, total = packed.getvalue(), b"a.npy", len(head) + size
    facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, checksum, len(body), total, len(name), 0)
    central = b"PK\x01\x02" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    start = 30 + len(name) + len(body)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), start, 0)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + facts + name + body + central + end)
    assert zipfile.ZipFile(tmp_path / "a.npz").infolist()[0].file_size == total
    assert (tmp_path / "a.npz").stat().st_size < size / 900
    with pytest.raises(arrays.ArrayError, match="unpacks to 67,108,9.. bytes, expected at most 67,108,863"):
        arrays.read_npz(tmp_path / "a.npz", limit=limit)


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "..\\a", "a/../../b", "C:\\a"])
def test_names_in_an_archive_are_no_places(tmp_path, name):
    (tmp_path / "inside").mkdir()
    path = archive(tmp_path / "inside" / "a.npz", **{name: npy((100,))})
    before = sorted(tmp_path.rglob("*"))
    assert sum(array.size for array in arrays.read_npz(path).values()) == 100
    assert sorted(tmp_path.rglob("*")) == before


# --- other formats ----------------------------------------------------------------------------------------------------


def safetensors_of(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


SAFETENSORS = {
    "terabytes": safetensors_of(a={"dtype": "F32", "shape": [TERA], "data_offsets": [0, 4 * TERA]}),
    "overflow": safetensors_of(a={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}) + b"abcd",
    "endless and empty": safetensors_of(a={"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}),
    "long header": struct.pack("<Q", 2**62) + b"{",
    "odd type": safetensors_of(a={"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}) + b"abc",
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_headers_of_weights_and_adapters(tmp_path, small_memory, kind):
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[kind])
    with pytest.raises(WeightsError, match="w.safetensors.*not a readable safetensors file"):
        load_into(nn.Linear(2, 2), "small", str(tmp_path / "w.safetensors"), None, ("fc.",))
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    colora.save_adapter(colora.inject(nn.Sequential(nn.Conv2d(1, 2, 3))), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(SAFETENSORS[kind])
    with pytest.raises(ValueError, match="adapter_model.safetensors is not a safetensors file"):
        colora.load_adapter(model, tmp_path)
    assert type(model[0]) is nn.Conv2d and model[0].weight.requires_grad


def test_an_adapter_larger_than_its_model_is_not_read(tmp_path, small_memory):
    torch.manual_seed(0)
    colora.save_adapter(colora.inject(nn.Sequential(nn.Conv2d(1, 2, 3))), tmp_path)
    os.truncate(tmp_path / "adapter_model.safetensors", TERA)  # a file with a hole: it takes no room
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="is 1,099,511,627,776 bytes, and at most 100,000,"):
        colora.load_adapter(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path)
    os.truncate(tmp_path / "adapter_config.json", TERA)
    with pytest.raises(ValueError, match="adapter_config.json is 1,099,511,627,776 bytes"):
        colora.load_adapter(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path)


@pytest.mark.parametrize("pattern", ["(" * 5000 + ")" * 5000, "a{99999999999999}", "(?P<a>"])
def test_odd_patterns_in_an_adapter(tmp_path, pattern):
    colora.save_adapter(colora.inject(nn.Sequential(nn.Conv2d(1, 2, 3))), tmp_path)
    record = json.loads((tmp_path / "adapter_config.json").read_text())
    record["config"]["target_modules"] = pattern
    (tmp_path / "adapter_config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="adapter_config.json: config is not valid"):
        colora.load_adapter(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a": ' * 10**5, '{"a": ' + "9" * 5000 + "}"])
def test_odd_json(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match="record.json: not readable as JSON"):
        read_record(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match="adapter_config.json is not JSON"):
        colora.load_adapter(nn.Sequential(nn.Conv2d(1, 2, 3)), tmp_path)


def test_a_record_that_is_huge_or_no_file_is_not_read(tmp_path, small_memory):
    (tmp_path / "record.json").touch()
    os.truncate(tmp_path / "record.json", TERA)
    with pytest.raises(RecordError, match="1,099,511,627,776 bytes, expected at most"):
        read_record(tmp_path)
    (tmp_path / "record.json").unlink()
    (tmp_path / "record.json").symlink_to("/dev/zero")
    with pytest.raises(RecordError, match="expected a file"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile: x\nprofile: y\n", "found 'profile' twice"),
        ("x: " + "[" * 10**3, "not valid YAML"),
        ("x: " + "9" * 5000, "not valid YAML"),
        ("x: 2001-99-99\n", "not valid YAML"),
        ("x: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("x: !!python/name:os.system\n", "not valid YAML"),
        ('x: !!int ""\n', "not valid YAML"),
        ("? [1]\n: 2\n", "not valid YAML"),
        ("x: \x07\n", "not valid YAML"),
        ("{1: 2}\n", "missing key 'profile'"),
        ("", "expected a mapping of sections, found NoneType"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_odd_yaml(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=f"params.yaml: .*{message}") as error:
        loading.load(tmp_path / "params.yaml")
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["train"].update(epochs=True), "train.epochs: .*valid integer, found True"),
        (lambda c: c["train"].update(epochs="6"), "train.epochs: .*valid integer, found '6'"),
        (lambda c: c["train"].update(lr=float("inf")), "train.lr: .*finite number"),
        (lambda c: c["train"].update(deterministic="yes"), "train.deterministic: .*valid boolean"),
        (lambda c: c.update(seeds=[2**40]), "seeds.0"),
        (lambda c: c["method"].update({"../../x": {"family": "full"}}), "method.../../x"),
        (lambda c: c["method"].update({"a/b": {"family": "full"}}), "method.a/b"),
        (lambda c: c["method"].update({"": {"family": "full"}}), "method"),
        (lambda c: c.update(profile="../x"), "profile: "),
        (lambda c: c.update(profile="x\n"), "profile: "),
    ],
)
def test_wrong_types_and_names_that_are_places(tmp_path, change, message):
    import yaml

    content = tiny_params()
    change(content)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=f"params.yaml: .*{message}"):
        loading.load(tmp_path / "params.yaml")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", b"x")


IMAGES = {
    "wide.png": png(10**5, 10**5),
    "just over.png": png(8001, 8000),
    "text.png": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 9))),
    "wide.jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65535, 65535, 1) + b"\x01\x11\x00\xff\xd9",
    "wide.bmp": b"BM" + struct.pack("<IHHIIiiHH6I", 100, 0, 0, 54, 40, 10**5, 10**5, 1, 24, *6 * [0]),
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
}  # fmt: skip
PROBE = """
import resource, sys
from pathlib import Path
from pipelines.data import pictures
from pipelines.data.errors import DataError

resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
for path in map(Path, sys.argv[1:]):
    try:
        pictures.load_image(path, 8)
    except DataError as error:
        print(error)
"""


def test_images_of_small_files_do_not_fill_the_memory(tmp_path):
    """In a process that may have one gigabyte; one of them would have an interpreter run, were its kind allowed."""
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in IMAGES]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *paths], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(IMAGES) and all(line.startswith(path) for line, path in zip(lines, paths, strict=True))
    assert "8001 x 8000 is more than 64,000,000 pixels" in lines[1] and "MemoryError" not in done.stdout
    assert "cannot identify image file" in lines[-1]


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "A-1-1.png", "nowhere"])
def test_links_and_devices_in_a_folder_of_images(tmp_path, target):
    for name in ("A", "B"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    (tmp_path / "scans" / "A" / "A-1-1.png").symlink_to(target)
    with pytest.raises(DataError, match="A-1-1.png: (leads to|expected an image file)"):
        folder.listing(tmp_path / "scans", None)
    (tmp_path / "scans" / "A" / "A-1-1.png").unlink()
    os.mkfifo(tmp_path / "scans" / "A" / "A-1-1.png")
    with pytest.raises(DataError, match="A-1-1.png: expected an image file"):
        folder.listing(tmp_path / "scans", None)


def test_a_readme_that_is_a_link_is_not_copied_into_the_card(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="README.md: leads to .*secret, outside"):
        labelled.note(tmp_path / "scans")
    (tmp_path / "scans" / "README.md").unlink()
    (tmp_path / "scans" / "README.md").write_text("line\n" * 10**6)
    assert len(labelled.note(tmp_path / "scans")) == 1000


def test_a_class_of_unprintable_name_is_refused(tmp_path):
    for name in ("A\nB", "C"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"the name 'A\\nB' is not plain text"):
        folder.listing(tmp_path, None)


@pytest.mark.parametrize(("name", "form"), [("a", "U n"), ("a", "iu m"), ("a", "iu n 1"), ("b", "f n 4"), ("b", "f n")])
def test_arrays_that_are_not_of_their_forms_are_named(name, form):
    found = {"a": np.zeros(2, int), "b": np.zeros((2, 3))}
    arrays.check_forms(found, {"a": "iu n", "b": "f n m"})
    with pytest.raises(arrays.ArrayError, match=f"^{name} should be .*, found (int64|float64) "):
        arrays.check_forms(found, {"b": "f n m", "a": "iu n", name: form})
