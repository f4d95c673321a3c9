"""Read .npz files that may be damaged. Nothing is unpickled, and member names are looked up, never used as paths."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

KINDS = {"i": "integers", "u": "unsigned integers", "f": "numbers", "U": "words"}
LIMIT = 2**30  # bytes an archive may unpack to: far above any of ours; beyond it, a small file that fills memory


class ArrayError(ValueError):
    """An array that cannot be read; the message says what was found, and leaves naming the file to the caller."""


def read_npz(path: Path, names: Iterable[str] | None = None, limit: int = LIMIT) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive: those named, or all. Of a dict {name: form} each is checked as by `check_forms`.

    Raises:
        ArrayError: no archive, damaged, a name that is not in it, something else than plain numbers or words, or more
            than `limit` bytes of them, or not of its form.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):  # of anything else numpy says how to unpickle it
                raise ArrayError("does not start as a zip archive does")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
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
    check_forms(found, names if isinstance(names, dict) else {})
    return found


def check_forms(found: dict[str, np.ndarray], forms: dict[str, str]) -> None:
    """Whether arrays are of their forms, such as "iu n 3": numpy's letters for the kinds that the values may have, then
    the sides, each a number or a name for what is one number in all.

    Raises:
        ArrayError: an array is not.
    """
    sides: dict[str, int] = {}
    for name, form in forms.items():
        (kinds, *wanted), array = form.split(), found[name]
        lengths = [int(side) if side.isdigit() else sides.setdefault(side, n) for side, n in zip(wanted, array.shape)]
        if array.dtype.kind not in kinds or array.ndim != len(wanted) or lengths != list(array.shape):
            what = " or ".join(KINDS[kind] for kind in kinds)
            raise ArrayError(f"{name} should be {what} ({', '.join(wanted)}), found {array.dtype} {array.shape}")
