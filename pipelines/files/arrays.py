"""Read .npy and .npz files that may be damaged, or made to do harm.

Nothing is unpickled, and no memory is taken before the file is known to hold what its header promises: numpy itself
reserves what the header says, which may be terabytes. Member names are looked up, never used as paths.
"""

import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CHUNK = 2**24  # bytes read at a time
LIMIT = 2**30  # bytes an archive may unpack to: far above any of ours; beyond it, a small file that fills memory
DEFLATE = 1032  # the most that deflate, the only compression read here, can shrink anything


class ArrayError(ValueError):
    """An array that cannot be read; the message says what was found, and leaves naming the file to the caller."""


def read_npz(path: Path, names: Sequence[str] | None = None, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive: those named, or all.

    Raises:
        ArrayError: no archive, damaged, a name that is not in it, something else than plain numbers or words, or more
            than `limit` bytes of them.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            file.seek(0)
            # zipfile allows anything before the archive, numpy does not.
            if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
                raise ArrayError("does not start as a zip archive does")
            found = members(archive)
            if missing := sorted(set(names or ()) - set(found)):
                raise ArrayError(f"lacks {', '.join(missing)}, found {sorted(found)[:20]}")
            wanted = {name: found[name] for name in names or found}
            total = sum(entry.file_size for entry in wanted.values())
            if total > limit:
                raise ArrayError(f"unpacks to {total:,} bytes, expected at most {limit:,}")
            return {name: _member(archive, entry) for name, entry in wanted.items()}
    except ArrayError:
        raise
    except Exception as error:  # zipfile and zlib raise many types for damaged archives
        raise ArrayError(f"not a whole zip archive of arrays ({error})") from None


def members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive by the names that numpy gives them, each with a size that it can really have.

    Raises:
        ArrayError: an entry is encrypted, compressed otherwise than numpy does, or claims more than it can hold.
    """
    whole = os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]
    for entry in archive.infolist():
        most = entry.compress_size * {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE}.get(entry.compress_type, 0)
        if entry.flag_bits & 1 or entry.compress_size > whole or entry.file_size > most:
            raise ArrayError(
                f"{entry.filename}: claims {entry.file_size:,} bytes from {entry.compress_size:,}, which no archive "
                "that numpy writes can hold"
            )
    return {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        shape, dtype, fortran = header(file, entry.file_size)
        array = np.empty(shape[::-1] if fortran else shape, dtype)
        fill(file, array)
    return array.T if fortran else array


def header(file, size: int) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type, and whether in Fortran order, of an open .npy of `size` bytes; leaves `file` at its data.

    Raises:
        ArrayError: not an .npy, something else than plain numbers or words, or not as many bytes as the shape asks for.
    """
    start = file.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = reader(file)
    except Exception as error:  # the header is Python source, whose parser raises many types
        raise ArrayError(f"not a .npy array ({error})") from None
    if dtype.kind not in "biufU" or any(n < 0 for n in shape):
        raise ArrayError(f"found {dtype} {shape}, expected plain numbers or words")
    there, promised = size - (file.tell() - start), math.prod(shape) * dtype.itemsize
    if there < promised:
        raise ArrayError(f"truncated: {there:,} of the {promised:,} bytes that {dtype} {shape} takes")
    if there > promised:
        raise ArrayError(f"more data than its shape says: {there:,} bytes, {dtype} {shape} takes {promised:,}")
    return shape, dtype, fortran


def check_npy(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an .npy file in C order that is as long as these ask for; reads the header alone.

    Raises:
        ArrayError: as `header`, in Fortran order, or not readable.
    """
    try:
        with open(path, "rb") as file:
            shape, dtype, fortran = header(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ArrayError(f"not readable ({error.strerror})") from None
    if fortran and len(shape) > 1:
        raise ArrayError(f"{dtype} {shape} is in Fortran order, expected C order")
    return shape, dtype


def fill(file, target: np.ndarray) -> None:
    """Read exactly `target`, in C order, from `file`; at the end of an archive's member its CRC is compared.

    Raises:
        ArrayError: more or fewer bytes than that.
    """
    position = 0
    buffer = target.reshape(-1).view(np.uint8) if target.size else target
    while position < target.nbytes:
        count = file.readinto(buffer[position : position + CHUNK])
        if not count:
            raise ArrayError(f"truncated: {position:,} of {target.nbytes:,} bytes")
        position += count
    if file.read(1):
        raise ArrayError(f"more data than its shape says: {target.shape}")
