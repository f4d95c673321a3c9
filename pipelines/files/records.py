"""Atomic writes and checked reads of JSON and array files. Imports neither torch nor numpy at its top."""

import glob
import hashlib
import json
import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.files.errors import UserError

_HOST = socket.gethostname().replace(".", "-")
LARGEST = 2**28  # bytes of a JSON file; a manifest takes about 10 an image


class RecordError(UserError):
    """A record that cannot be read; the message names the file and how to make it again."""


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, next_step: str) -> dict:
    """The JSON object in a file.

    Raises:
        RecordError: the file is not a JSON object, or larger than any of ours; the message ends with `next_step`.
    """
    try:
        if path.exists() and not path.is_file():
            raise RecordError(f"{path}: expected a file; {next_step}")
        if (size := path.stat().st_size) > LARGEST:
            raise RecordError(f"{path}: {size:,} bytes, expected at most {LARGEST:,}; {next_step}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecordError:
        raise
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; {next_step}") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of many digits
        raise RecordError(f"{path}: not readable as JSON ({error}); {next_step}") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a JSON object, found {type(content).__name__}; {next_step}")
    return content


def write_json(path: Path, value) -> None:
    """Write atomically: a reader sees the old file or the whole new one, never half of it."""
    write_atomically(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))


def csv(frame) -> str:
    """A frame as CSV: numbers with six digits, whole ones with all of theirs."""
    return frame.to_csv(
        index=False, lineterminator="\n", float_format=lambda x: str(int(x)) if x.is_integer() else f"{x:.6g}"
    )


def write_csv(path: Path, frame) -> None:
    """Write a frame as `csv` does, atomically."""
    write_atomically(path, lambda file: file.write(csv(frame).encode()))


def write_arrays(path: Path, **arrays) -> None:
    """Write named arrays as a compressed archive, atomically."""
    import numpy as np

    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def write_atomically(path: Path, write) -> None:
    """Call `write(file)` on a temporary binary file beside `path`, then rename it into place. What is no regular file
    (a device, a pipe) is written as it stands. A link to a file is replaced: DVC may have linked it into its cache.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; `path` is then what it was.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, found a folder; name a file in it")
    if path.exists() and not path.is_file():
        with writing(path), open(path, "wb") as file:
            write(file)
        return
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(path)
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch.save puts a message of its own over the reason
                raise error.__context__ from None
            raise
        finally:
            with suppress(OSError):  # or it would hide the reason why nothing could be written
                temporary.unlink(missing_ok=True)


def _clear_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed while writing this file left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}.*.tmp"):
        try:
            os.kill(int(left.suffixes[-2][1:]), 0)  # asks whether it lives
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            pass


@contextmanager
def writing(path: Path):
    """Let an OSError of the block name what was being written (the system names no file when a disk is full) and what
    to do; its type and number stay.
    """
    try:
        yield
    except OSError as error:
        advice = "make room on the disk or allow writing there, and run again"
        raise OSError(error.errno, f"cannot be written ({error.strerror or error}); {advice}", str(path)) from error
