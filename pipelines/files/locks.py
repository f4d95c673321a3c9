"""Locks between processes; the system drops one with its process, so one that died never blocks."""

import fcntl
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from pipelines.files.errors import UserError


@contextmanager
def locked(path: Path):
    """Hold the lock of a file, which is made and stays.

    Raises:
        UserError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{path}: {file.read().strip()} is at work on the same; wait until it ends, or stop it there"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
