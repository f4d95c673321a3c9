"""What a run (one method with one seed) leaves behind, and how a finished one is recognised.

A run's folder `results/<profile>/runs/<method>/<seed>/` holds curves.csv, predictions.npz and, written last,
record.json. Its *fingerprint* covers everything its numbers depend on: resolved settings, seed, data, weights and
code; a folder whose record carries the right fingerprint is complete and is not trained again, wherever it was
made. Imports neither torch nor numpy, so that checking a run costs nothing.
"""

import glob
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.runs.code import ROOT, code_files, code_hash, sha256_json

LARGEST = 2**28  # bytes of a JSON file; a manifest takes about 10 an image


class RecordError(ValueError):
    """A record that cannot be read; the message names the file and how to make it again."""


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(settings: dict, seed: int, data: dict, *more_code: Path) -> str:
    """What a run's numbers depend on, in one hash.

    Args:
        settings: the method's resolved settings, `train` included.
        seed: the run's seed.
        data: checksums of the prepared data, from `data_identity`.
        more_code: source files that count beside those of the method's family.

    Raises:
        FileNotFoundError: `settings["weights"]` names a file that is not there.
    """
    settings = described(settings)
    # By content, not by name: the same weights in another place give the same run.
    if "weights_sha256" in settings:
        del settings["weights"]
    code = code_hash([*code_files(settings["family"]), *more_code])
    return sha256_json({"settings": settings, "seed": seed, "data": data, "code": code})


def described(settings: dict) -> dict:
    """Settings as they go into a record: a weights file by its name and sha256, not by its place on this machine.

    Raises:
        FileNotFoundError: `settings["weights"]` names a file that is not there.
    """
    weights = settings.get("weights")
    if not weights or weights in ("imagenet", "random"):
        return dict(settings)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"weights {weights!r}: no such file; "
            "set `model.weights` to an existing safetensors file, 'imagenet' or 'random'"
        )
    return {**settings, "weights": path.name, "weights_sha256": sha256_file(path)}


def read_record(folder: Path) -> dict | None:
    """The record in a run's folder, or None where there is none yet.

    Raises:
        RecordError: record.json is there but is not a JSON object.
    """
    path = folder / "record.json"
    return read_json(path, f"delete {folder} and train the run again") if path.exists() else None


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
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of many digits
        raise RecordError(f"{path}: not readable as JSON ({error}); {next_step}") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: expected a JSON object, found {type(content).__name__}; {next_step}")
    return content


def data_identity(folder: Path, seed: int, train_split: str = "train") -> dict:
    """Checksums of the prepared data that a seed sees: images, labels, and its own splits.

    Raises:
        FileNotFoundError: nothing is prepared there, or not for this seed.
        RecordError: the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no prepared data; run `python -m pipelines.prepare` first")
    manifest = read_json(path, "run `python -m pipelines.prepare` again")
    try:
        splits, prefix = dict(manifest["splits"]), f"{seed}/" if manifest["folds"] else ""
        arrays = {name: manifest["files"][name]["sha256"] for name in ("images.npy", "labels.npy")}
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: not a manifest ({error!r}); run `python -m pipelines.prepare` again") from None
    missing = [prefix + name for name in (train_split, "val", "test") if prefix + name not in splits]
    if missing:
        raise FileNotFoundError(
            f"{path}: no split {missing[0]!r}; run `python -m pipelines.prepare` again, with its seed in "
            "`seeds` and a share of the training patients in `data.shares`"
        )
    own = {"train": train_split, "val": "val", "test": "test"}
    return {**arrays, **{name: splits[prefix + split] for name, split in own.items()}}


def is_complete(folder: Path, fingerprint: str, *more_files: str) -> bool:
    """Whether the folder holds the finished run with this fingerprint, all files present, `more_files` too."""
    record = read_record(folder)
    return (
        record is not None
        and record.get("status") == "complete"
        and record.get("fingerprint") == fingerprint
        and all((folder / name).is_file() for name in ("curves.csv", "predictions.npz", *more_files))
    )


def write_json(path: Path, value) -> None:
    """Write atomically: a reader sees the old file or the whole new one, never half of it."""
    write_atomically(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))


def write_arrays(path: Path, **arrays) -> None:
    """Write named arrays as a compressed archive, atomically."""
    import numpy as np

    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def write_atomically(path: Path, write) -> None:
    """Call `write(file)` on a temporary binary file beside `path`, then rename it into place.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; `path` is then what it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Remove what processes that were killed while writing this file left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
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
        advice = "it was left as it was; make room on the disk or allow writing there, and run again"
        raise OSError(error.errno, f"cannot be written ({error.strerror or error}); {advice}", str(path)) from error


def environment(family: str) -> dict:
    """Versions, machine and commit of this process, for the record; `dirty` when the code that decides a method's numbers
    differs from the commit. Imports torch.
    """
    import datetime
    from importlib import metadata

    import torch
    import torchvision

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    gpu = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **{name: version(name) for name in ("timm", "peft", "mamba-ssm")},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if gpu else None,
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "--", *map(str, code_files(family)))),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def commit() -> str | None:
    """The commit of this code: the one that `git archive` wrote where this is an archive, else git's; None without."""
    template = ROOT / ".git_archival.txt"
    archived = template.read_text().removeprefix("node: ").strip() if template.is_file() else ""
    return archived if re.fullmatch("[0-9a-f]{40,64}", archived) else _git("rev-parse", "HEAD")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git(*args) -> str | None:
    return _output("git", "-C", str(ROOT), *args)


def _output(*command) -> str | None:
    """What a command prints, or None where it is not there or fails (an unpacked archive is a fine place to run)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
