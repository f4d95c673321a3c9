"""Image files as formats have them, written out byte by byte: turned TIFFs, 16 bits in colour."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.data import pictures
from pipelines.data.errors import DataError
from tests.test_own_scans import noise


def tiff(pixels, orientation=1, planes=False) -> bytes:
    """Grey or RGB of 8 or 16 bits, uncompressed, written out; RGB pixel by pixel or plane by plane."""
    height, width, samples = (*pixels.shape, 1)[:3]
    body = (np.moveaxis(pixels, 2, 0) if planes else pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    first, each = 8 + len(body), len(body) // samples
    lists = first + 2 + 12 * 10 + 4  # where what takes more than four bytes stands
    three = samples == 3
    bits = (258, 3, 3, lists) if three else (258, 3, 1, 8 * pixels.itemsize)
    starts = ((273, 4, 3, lists + 6), (279, 4, 3, lists + 18)) if planes else ((273, 4, 1, 8), (279, 4, 1, len(body)))
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), bits, (259, 3, 1, 1), (262, 3, 1, 2 if three else 1), starts[0],
        (274, 3, 1, orientation), (277, 3, 1, samples), starts[1], (284, 3, 1, 2 if planes else 1),
    ]  # fmt: skip
    directory = struct.pack("<H", 10) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    after = struct.pack("<3H6I", *[8 * pixels.itemsize] * 3, *(8 + n * each for n in range(3)), *[each] * 3)
    return b"II*\0" + struct.pack("<I", first) + body + directory + after


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_uncompressed_tiff_is_turned_as_its_tag_says(tmp_path, orientation):
    """Against the eight orientations of TIFF 6.0, as turns and mirrorings of what is stored."""
    stored = noise((24, 32))
    shown = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T,
        6: stored[::-1].T, 7: stored[::-1, ::-1].T, 8: stored[:, ::-1].T,
    }[orientation]  # fmt: skip
    (tmp_path / "a.tif").write_bytes(tiff(stored, orientation))
    Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / "a.png")
    for fit in ("crop", "pad", "stretch"):
        found = pictures.load_image(tmp_path / "a.tif", 16, fit)
        np.testing.assert_array_equal(found, pictures.load_image(tmp_path / "a.png", 16, fit))


def png(pixels) -> bytes:
    """16 bits a value: grey and alpha, RGB, or RGB and alpha."""

    def part(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, samples = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.png", png(noise((20, 24, samples), 0, np.uint16, 4096))) for samples in (2, 3, 4)),
        *(("a.tif", tiff(noise((20, 24, 3), 0, np.uint16, 4096), planes=planes)) for planes in (False, True)),
    ],
    ids=["grey and alpha", "RGB", "RGBA", "TIFF", "TIFF in planes"],
)
def test_16_bits_in_colour_or_with_alpha_are_refused_since_pillow_keeps_eight(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="a.* 16 bits a value in colour or with alpha; save it as 16-bit grey or as 8"):
        pictures.survey(tmp_path / name)
    # A TIFF of 8 bits is read.
    (tmp_path / "b.tif").write_bytes(tiff(noise((20, 24, 3))))
    assert pictures.load_image(tmp_path / "b.tif", 16).shape == (16, 16, 3)
