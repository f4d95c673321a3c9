"""What runs one training process, on this machine or on a node of a Ray cluster.

Ray sends this module to nodes that have none of this project, so it imports the standard library alone.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath

GRACE_S = 10  # from the request to stop to the end


def start(command: list[str], folder, code, log, *, threads: int, gpu: str | None) -> subprocess.Popen:
    """Start `python -m COMMAND` in a folder, with the project's code from another, and its output in a file.

    Args:
        threads: how many the process computes with.
        gpu: the CUDA_VISIBLE_DEVICES it sees; None leaves it as it is.
    """
    path = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        # A session of its own: Ctrl-C in a terminal reaches the launcher alone, which then decides.
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however that comes about (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def end(processes: list[subprocess.Popen], impatient=lambda: False) -> None:
    """Interrupt processes as Ctrl-C would, and kill those left after a grace time, or once `impatient()`."""
    for process in processes:
        _signal(process, signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline or impatient():
            for process in processes:
                _signal(process, signal.SIGKILL)
                process.wait()
        time.sleep(0.05)


def _signal(process, number) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)


def how_it_ended(returncode: int, log: str) -> str:
    """One line for a process that ended: its last words, and the signal if one killed it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}; last line: {last}"
    return last


# On a node


class NodeError(RuntimeError):
    """A node can run no run; the message names it, the path that is wrong, and what to do."""


def run_on_node(spec: dict) -> dict:
    """Run one task on this node and return what it left, as bytes.

    The process works in a folder of its own with links to the node's copy of the data, unpacked once and kept by the
    hash of its content, or to the shared folder. Checkpoints stay there too: a task that comes back continues.

    Args:
        spec: "command"; "code" (a parcel); "links" ({name: parcel or path}) and "texts" ({name: content}), to be put
            in the folder; "same" ({path: sha256 that it must have}); "folder" and "wanted" (where results appear, and
            the one that counts or None for all); "cache" (where parcels are kept); "threads"; "gpu" (whether it has
            one).

    Returns:
        {"node", "returncode", "log", "files": {name: bytes}}, or {"node", "unfit": why} if no task can run here.
    """
    node = f"{socket.gethostname()} ({_node_id()})"
    try:
        folder, code = _set_out(spec)
    except (OSError, ValueError) as error:
        return {"node": node, "unfit": str(error)}
    try:
        log = folder / "log"
        # Ray has set which GPU, if any.
        process = start(spec["command"], folder, code, log, threads=spec["threads"], gpu=None if spec["gpu"] else "")
        try:
            while process.poll() is None:  # in pieces, for Ray's cancelling to get through
                time.sleep(0.1)
        finally:
            end([process])
        results = folder / spec["folder"]
        names = [spec["wanted"]] if spec["wanted"] else os.listdir(results) if results.is_dir() else []
        names = [name for name in names if not name.startswith(".") and (results / name).is_file()]
        files = {name: (results / name).read_bytes() for name in names}
        return {"node": node, "returncode": process.returncode, "log": log.read_bytes(), "files": files}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _set_out(spec: dict) -> tuple[Path, Path]:
    """A new folder as a task needs it, and the folder with the code."""
    cache = Path(spec["cache"]).expanduser()
    code = unpack(spec["code"], cache)
    for name, checksum in spec["same"].items():
        check_same(Path(name), checksum)
    links = {"checkpoints": str(cache / "checkpoints"), **spec["links"]}
    Path(links["checkpoints"]).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="colora-"))
    for name, place in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(unpack(place, cache) if isinstance(place, dict) else place)
    for name, text in spec["texts"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder, code


def _node_id() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()[:12]


def check_same(path: Path, checksum: str) -> None:
    """Raises ValueError unless the file is there with this sha256."""
    if not path.is_file():
        raise ValueError(
            f"{path} is not there; mount the shared folder on every node under the path given to --shared, "
            "or leave --shared out and the launcher sends the data"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{path} is not the file that the launcher has; prepare the data anew in the shared folder")


def unpack(parcel: dict, cache: Path) -> Path:
    """The folder with a parcel's files, written once a node; its name is the parcel's key.

    Args:
        parcel: {"key": hash, "files": [(name, sha256, [references to pieces of its bytes])]}.

    Raises:
        ValueError: a name leaves the folder, or bytes are not those of the checksum.
    """
    import ray

    target = cache / parcel["key"]
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(cache / f"{parcel['key']}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        unfinished = cache / f"{parcel['key']}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, checksum, pieces in parcel["files"]:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"parcel {parcel['key']}: the name {name!r} leaves its folder")
            path, digest = unfinished / name, hashlib.sha256()
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                for piece in pieces:
                    content = ray.get(piece)
                    digest.update(content)
                    file.write(content)
            if digest.hexdigest() != checksum:
                raise ValueError(f"{path}: sha256 is {digest.hexdigest()}, expected {checksum}; launch again")
        unfinished.rename(target)
        return target
