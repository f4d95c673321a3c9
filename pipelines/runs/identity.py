"""What a run is recognised by: one hash of all that its numbers depend on. Imports neither torch nor numpy."""

import functools
import os
import time
from pathlib import Path

from pipelines.files.errors import UserError
from pipelines.files.hashing import sha256_json
from pipelines.files.records import sha256_file
from pipelines.runs.code import code_files, running_hash

SETTLED_NS = 2_000_000_000  # after which the times of two changes differ on every file system


def fingerprint(settings: dict, seed: int, data: dict, *more_code: Path) -> str:
    """What a run's numbers depend on, in one hash.

    Args:
        settings: the method's resolved settings, `train` included.
        seed: the run's seed.
        data: checksums of the prepared data, from `pipelines.data.prepared.identity`.
        more_code: source files that count beside those of the method's family.

    Raises:
        UserError: `settings["weights"]` names a file that is not there, or the code changed under this process.
    """
    settings = described(settings)
    # By content, not by name: the same weights in another place give the same run.
    if "weights_sha256" in settings:
        del settings["weights"]
    # What is kept on disk changes no number.
    settings["train"] = {key: value for key, value in settings.get("train", {}).items() if key != "keep"}
    code = running_hash([*code_files(settings["family"]), *more_code])
    return sha256_json({"settings": settings, "seed": seed, "data": data, "code": code})


def described(settings: dict) -> dict:
    """Settings as they go into a record: a weights file by its name and sha256, not by its place on this machine.

    Raises:
        UserError: `settings["weights"]` names a file that is not there.
    """
    weights = settings.get("weights")
    if not weights or weights in ("imagenet", "random"):
        return dict(settings)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"weights {weights!r}: no such file; "
            "set `model.weights` to an existing safetensors file, 'imagenet' or 'random'"
        )
    return {**settings, "weights": path.name, "weights_sha256": _digest(path.resolve())}


def _digest(path: Path) -> str:
    """The file's SHA-256, once in a process as long as size and time of change stay: a launch asks twice for each run.

    As in git, a time of change that is too recent to tell a second change apart is not trusted.
    """
    stat = os.stat(path)
    if time.time_ns() - stat.st_mtime_ns < SETTLED_NS:
        return sha256_file(path)
    return _settled_digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _settled_digest(path: Path, _size: int, _changed: int) -> str:
    return sha256_file(path)
