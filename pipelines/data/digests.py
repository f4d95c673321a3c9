"""Digests of files by their content, remembered by name, size and time of change, so that asking again is quick."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.files import records

CACHE = Path("data") / ".digests"
RACE = 2 * 10**9  # ns: a file changed this lately may change once more without another time


def each(root: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each of `files`, which lie in `root`."""
    store = CACHE / f"{of_bytes(str(root.resolve()).encode())[:16]}.json"
    try:
        known = records.read_json(store, "") if store.is_file() else {}
    except records.RecordError:
        known = {}  # damaged: read the files
    now, fresh, found = time.time_ns(), {}, {}
    for name, path in files.items():
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        found[name] = known[name][2] if known.get(name, [])[:2] == stamp else records.sha256_file(path)
        if now - status.st_mtime_ns > RACE:
            fresh[name] = [*stamp, found[name]]
    if fresh != known:
        records.write_json(store, fresh)
    return found


def of_files(root: Path, files: Mapping[str, Path]) -> str:
    """One SHA-256 over the names and contents of `files`, which lie in `root`."""
    return of_bytes("".join(f"{name}\0{digest}\n" for name, digest in each(root, files).items()).encode())


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
