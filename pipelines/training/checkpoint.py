"""Where a run stands after an epoch, on disk and back."""

import io
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipelines.files import records

SMALL = 2**24  # bytes of a file that is written after every epoch
RATE = 100e6  # bytes a second that a disk should take
_since: dict[Path | None, float] = {}  # when a run began or was last written, in monotonic seconds


@dataclass
class Fit:
    """What training leaves: a row an epoch, the state of the best one, and the seconds of earlier legs, where it was
    resumed: those that their last checkpoint had seen.
    """

    curves: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict = field(default_factory=dict)
    earlier_s: float = 0.0
    began: float = field(default_factory=lambda: time.monotonic())


def save(path: Path, identity: str, model, optimizer, schedule, state: Fit) -> None:
    """Write all that a resumed run needs, atomically; a large file only where training since the last one took longer
    than writing it should. On a fast GPU an epoch of a large network is shorter than its file takes.
    """
    if not _is_due(path, model, optimizer, state):
        return
    content = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict() if schedule else None,
        **vars(state),
        "earlier_s": state.earlier_s + time.monotonic() - state.began,
    }
    records.write_atomically(path, lambda file: torch.save(content, file))
    _since[path] = time.monotonic()


def _is_due(path: Path, model, optimizer, state: Fit) -> bool:
    moments = [v for each in optimizer.state.values() for v in each.values() if isinstance(v, torch.Tensor)]
    size = sum(t.nbytes for t in (*model.state_dict().values(), *state.best_state.values(), *moments))
    return size <= SMALL or time.monotonic() - _since.get(path, 0) > size / RATE


def resume(path: Path | None, identity: str, model, optimizer, schedule) -> Fit:
    """The state of a checkpoint of this identity, loaded into the network and its optimizer; else a fresh start."""
    _since[path] = time.monotonic()
    content = _read(path) if path and path.is_file() else None
    if content is None or content["identity"] != identity:  # of other settings, data or code: start over
        return Fit()
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    if schedule:
        schedule.load_state_dict(content["schedule"])
    return Fit(content["curves"], content["best_epoch"], content["best_state"], content.get("earlier_s", 0.0))


def _read(path: Path) -> dict | None:
    """A checkpoint every part of which has its checksum, at which torch.load does not look; a damaged one goes.

    Raises:
        OSError, MemoryError: the disk or the memory fails, which says nothing of the file; it stays.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} does not have its checksum")
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        content["identity"]  # of this kind at all
        return content
    except MemoryError:
        raise
    except Exception as error:  # zipfile and torch raise many types for damaged files
        print(f"warning: {path}: a damaged checkpoint ({error}); training starts over", file=sys.stderr)
        path.unlink(missing_ok=True)
        return None
