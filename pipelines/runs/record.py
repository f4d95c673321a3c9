"""A run's record: written last, so that a folder with one is whole."""

from pathlib import Path

from pipelines.files.records import read_json


def read_record(folder: Path) -> dict | None:
    """The record in a run's folder, or None where there is none yet.

    Raises:
        RecordError: record.json is there but is not a JSON object.
    """
    path = folder / "record.json"
    return read_json(path, f"delete {folder} and train the run again") if path.exists() else None


def is_complete(folder: Path, fingerprint: str, *more_files: str) -> bool:
    """Whether the folder holds the finished run with this fingerprint, all files present, `more_files` too."""
    record = read_record(folder)
    return (
        record is not None
        and record.get("status") == "complete"
        and record.get("fingerprint") == fingerprint
        and all((folder / name).is_file() for name in ("curves.csv", "predictions.npz", *more_files))
    )
