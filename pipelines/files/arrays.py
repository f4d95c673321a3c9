"""Read .npz files that may be damaged. Nothing is unpickled, and member names are looked up, never used as paths."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

LIMIT = 2**30  # bytes an archive may unpack to: far above any of ours; beyond it, a small file that fills memory


class ArrayError(ValueError):
    """An array that cannot be read; the message says what was found, and leaves naming the file to the caller."""


def read_npz(path: Path, names: Sequence[str] | None = None, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive: those named, or all.

    Raises:
        ArrayError: no archive, damaged, a name that is not in it, something else than plain numbers or words, or more
            than `limit` bytes of them.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := sorted(set(names or ()) - set(archive.files)):
                raise ArrayError(f"lacks {', '.join(missing)}, found {sorted(archive.files)[:20]}")
            if (total := sum(entry.file_size for entry in archive.zip.infolist())) > limit:
                raise ArrayError(f"unpacks to {total:,} bytes, expected at most {limit:,}")
            if damaged := archive.zip.testzip():  # numpy reads no further than an array's header says
                raise ArrayError(f"{damaged}: its checksum differs")
            found = {name: archive[name] for name in names or archive.files}
    except ArrayError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many types for damaged archives
        raise ArrayError(f"not a whole zip archive of arrays ({error})") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
            raise ArrayError(f"{name}: found something else than plain numbers or words")
    return found
