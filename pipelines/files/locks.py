"""Locks between processes; the system drops one with its process, so one that died never blocks."""

import fcntl
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from pipelines.files.errors import UserError
from pipelines.files.records import writing


@contextmanager
def locked(path: Path):
    """Hold the lock of a file, which is made and stays.

    Raises:
        UserError: another process holds it.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:  # what a full disk does not take must not wait for the file to close
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{path}: {file.read().decode().strip()} is at work on the same; wait until it ends, or stop it there"
            ) from None
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


@contextmanager
def in_turn(folder: Path):
    """Hold the lock of a folder, which is made; waits while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
