"""One image file, decoded and brought to a square of one size."""

import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipelines.data.errors import DataError

SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
# Whatever the name says, Pillow would go by the content and try all it knows, one of them (EPS) by another program.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # far above any scan; above it a small file that unpacks to gigabytes is likelier
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
VOLUMES = (
    "volumes, DICOM and vendor formats are not read: "
    "export B-scans as single images first, for instance with oct-converter"
)
WHITE = np.iinfo(np.uint16).max  # of 16-bit grey, where no folder says otherwise
BITS = 258  # a TIFF tag
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # another one, which Pillow heeds for 8 bits and not for 16


def load_image(file: Path, size: int, fit: str = "crop", white: int = WHITE) -> np.ndarray:
    """One image, uint8, (size, size) when every pixel is grey and (size, size, 3) otherwise; alpha is dropped.

    Resized bicubically, with `crop` as MedMNIST prepared its sets (Yang et al., Scientific Data 10, 41, 2023).

    Raises:
        DataError: empty, not an image, damaged, several frames, of an unsupported kind, or more than MAX_PIXELS.
    """
    with _opened(file) as image:
        inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP_MODES:
            deep = np.minimum(_deep(image), white)
            deep = white - deep if inverted else deep
            image = Image.fromarray(((deep * 255 + white // 2) // white).astype(np.uint8))
        image = image.convert("L" if image.mode in GREY_MODES else "RGB")
        array = np.asarray(_square(image, size, fit))
    if array.ndim == 3 and (array == array[..., :1]).all():
        return array[..., 0]
    return array


def survey(file: Path) -> tuple[int, int, int | None]:
    """Width, height, and the highest value of a 16-bit grey image (None of another one, whose header alone is read).

    Raises:
        DataError: as `load_image`, as far as is read.
    """
    with _opened(file) as image:
        return *image.size, int(_deep(image).max()) if image.mode in DEEP_MODES else None


@contextmanager
def _opened(file: Path):
    """The open image, once its header is known to be fit; whatever then goes wrong with it is a DataError too."""
    wrong = "not a readable image"
    try:
        if not file.stat().st_size:
            raise DataError(f"{file}: the file is empty (0 bytes); fetch it again or remove it")
        with open(file, "rb") as stream:  # a name Pillow would map into memory, with the sides of a turned TIFF swapped
            # Our own, lower limit follows.
            with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
                opened = Image.open(stream, formats=FORMATS)
            wrong = "the image cannot be decoded"
            with opened as image:
                _check_header(file, image)
                yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{file}: more than {MAX_PIXELS:,} pixels; shrink it or remove it") from None
    except Exception as error:  # decoders raise many types; each means the same here
        raise DataError(f"{file}: {wrong} ({error}); fetch it again or remove it") from None


def _check_header(file: Path, image: Image.Image) -> None:
    """Raise DataError where the header, read before anything is decoded, says what is not read here."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{file}: {width} x {height} is more than {MAX_PIXELS:,} pixels; shrink it or remove it")
    if image.mode not in GREY_MODES | COLOUR_MODES | DEEP_MODES:
        raise DataError(f"{file}: pixel mode {image.mode!r} is not supported; save it as 8- or 16-bit grey or as RGB")
    # Of these Pillow keeps the upper 8 bits: next to nothing of scans of 12.
    deep = re.search(r";16[BLN]", str(image.tile)) or max(getattr(image, "tag_v2", {}).get(BITS, (8,))) > 8
    if deep and image.mode not in DEEP_MODES:
        raise DataError(f"{file}: 16 bits a value in colour or with alpha; save it as 16-bit grey or as 8-bit RGB")
    frames = getattr(image, "n_frames", 1)  # for which a TIFF is searched to its end
    if frames != 1:
        raise DataError(f"{file}: it holds {frames} frames, expected one; {VOLUMES}")


def _deep(image: Image.Image) -> np.ndarray:
    deep = np.asarray(image).astype(np.int64)
    if deep.min() < 0 or deep.max() > WHITE:
        raise ValueError(f"values from {deep.min()} to {deep.max()}, expected 16-bit grey, 0 to {WHITE}")
    return deep


def _square(image: Image.Image, size: int, fit: str) -> Image.Image:
    bicubic = Image.Resampling.BICUBIC
    if fit == "stretch":
        return image.resize((size, size), bicubic)
    if fit == "pad":
        width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
        canvas = Image.new(image.mode, (size, size))
        canvas.paste(image.resize((width, height), bicubic), ((size - width) // 2, (size - height) // 2))
        return canvas
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Taking the square as a box lets the filter read the scan beyond its edge, where there is one: without the made-up
    # border a separate crop would give, the outermost two pixels differ from one by under a grey level on average.
    return image.resize((size, size), bicubic, box=(left, top, left + side, top + side))
