"""Workers on a Ray cluster: this process alone writes results; nodes send theirs back as bytes.

Ray itself carries code, parameters, data and weights: they are the working directory of its runtime environment, which
each node unpacks once. Ray finds each task a place, and without a GPU its process stays for the next.
"""

import io
import json
import logging
import os
import signal
import socket
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import ray

from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.launching import packing, worker
from pipelines.launching.grid import Grid, Task, Wave
from pipelines.launching.processes import GRACE_S, cores, last_word, variables
from pipelines.profile import ParamsError, load
from pipelines.runs import environment
from pipelines.runs.code import ROOT

LARGEST = 500 * 2**20  # bytes that Ray carries in a working directory
RETRIES = 3  # of a run that was lost with its node, or sent to one that was lost already


def work(method: str, seed: int | None, chosen: bytes | None, shared: str | None, manifest: str) -> dict:
    """Do a task on a node, in Ray's copy of the project there.

    Args:
        chosen: the record of the method's trials, which a run needs.
        shared: where the node finds data and checkpoints, or None if they are in the copy.
        manifest: sha256 that the manifest of the data must have.

    Returns:
        {"node", "log", "files": {path: bytes}}, or {"node", "unfit": why} if no task can run there.
    """
    node = f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:12]})"
    params = load("params.yaml")
    if unfit := _unfit(params.data_dir, shared, manifest):
        return {"node": node, "unfit": unfit}
    task = Task(Wave("params.yaml", params), 0, method, seed)
    if chosen is not None:
        records.write_atomically(params.tune_file(method), lambda file: file.write(chosen))
    log = io.StringIO()
    with redirect_stdout(log), redirect_stderr(log):
        try:
            worker.do({"profile_file": "params.yaml", "method": method, "seed": seed, "command": task.command()})
        except Exception:  # told in the log, whose last line becomes what the launcher says of the task
            traceback.print_exc()
    files = {path.as_posix(): path.read_bytes() for path in _files(task)}
    return {"node": node, "log": log.getvalue(), "files": files}


def _unfit(data: Path, shared: str | None, manifest: str) -> str | None:
    for folder in (data, Path("checkpoints")) if shared else ():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # of another task here
            folder.symlink_to(Path(shared) / folder)
    path = Path(shared or "", data, "manifest.json")
    if not path.is_file():
        return (
            f"{path} is not there; mount the shared folder on every node under the path given to --shared, "
            "or leave --shared out and Ray carries the data"
        )
    if records.sha256_file(path) != manifest:
        return f"{path} is not the file that the launcher has; prepare the data anew in the shared folder"
    return None


def _files(task: Task) -> list[Path]:
    """What a task leaves."""
    if task.seed is None:
        return [path for path in [task.record_file] if path.is_file()]
    folders = (task.record_file.parent, task.params.model_dir(task.method, task.seed))
    return [path for folder in folders for path in sorted(folder.glob("[!.]*")) if path.is_file()]


class Cluster:
    """As many tasks at a time as the nodes that are there have room for; one that is lost with its node waits again.

    Args:
        args: the options of `pipelines.launch`.

    Raises:
        ConnectionError: no cluster at the address.
        ParamsError: no node has room for one run, or Ray cannot carry so much.
    """

    def __init__(self, grid: Grid, args):
        self.params, self.args = grid.tasks[0].params, args
        with tempfile.TemporaryDirectory(prefix="colora-") as folder:
            self._stage(Path(folder))
            _connect(args.ray, folder)
        nodes = [node for node in _nodes() if node.get("GPU")] or _nodes()
        self.gpu = 1 / args.per_gpu if any(node.get("GPU") for node in nodes) else 0  # of one, for each run
        self.threads = args.threads or min(
            max(1, int(node.get("CPU", 1) // (node["GPU"] * args.per_gpu))) if self.gpu else 1 for node in nodes
        )
        self.running: dict = {}  # reference -> task
        self._losses: Counter = Counter()
        if not self.slots:
            ray.shutdown()
            raise ParamsError(
                f"no node of the cluster has {self.threads} CPUs{' and a GPU' if self.gpu else ''} for a run; "
                "lower --threads, or add nodes"
            )
        memory = {"memory": int(args.memory * 2**30)} if args.memory else {}
        # Without retries of its own: Ray would repeat for ever what the memory of a node cannot hold.
        hidden = {} if self.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        self._work = ray.remote(
            num_cpus=self.threads, num_gpus=self.gpu, max_retries=0, **memory,
            runtime_env={"env_vars": variables(self.threads) | hidden},
        )(work)  # fmt: skip
        self._where = args.shared, records.sha256_file(self.params.data_dir / "manifest.json")

    def _stage(self, folder: Path) -> None:
        """Fill the working directory that nodes get, with links."""
        packing.stage(folder, {"params.yaml": self.params}, environment.commit(), self.args.shared)
        for name in ("pipelines", "baselines", "colora"):
            (folder / name).symlink_to(ROOT / name)
        size = sum(
            (Path(top) / name).stat().st_size for top, _, names in os.walk(folder, followlinks=True) for name in names
        )
        if size > LARGEST:
            raise ParamsError(
                f"data and weights take {size / 2**20:.0f} MiB, of which Ray carries {LARGEST / 2**20:.0f} at most; "
                "put them into a folder that all nodes see, and name it with --shared"
            )

    def __str__(self):
        nodes = len(_nodes())
        where = f"a cluster of {nodes} node{'s' * (nodes > 1)}"
        return f"{self.slots} at a time on {where}, {self.threads} thread{'s' * (self.threads > 1)} each"

    @property
    def slots(self) -> int:
        """Runs that the nodes have room for now; nodes may come and go."""
        room = 0
        for node in _nodes():
            cpus = node.get("CPU", 0) // self.threads
            room += int(min(cpus, node.get("GPU", 0) * self.args.per_gpu) if self.gpu else cpus)
        return min(room, self.args.jobs or room)

    def has_room(self, task: Task) -> bool:
        return len(self.running) < self.slots

    def start(self, task: Task) -> None:
        tuned = self.params.tune_file(task.method)
        chosen = tuned.read_bytes() if task.seed is not None and tuned.is_file() else None
        self.running[self._work.remote(task.method, task.seed, chosen, *self._where)] = task

    def ended(self, seconds: float) -> list[tuple[Task, str | None]]:
        """Tasks that have ended and whose results are written, with their last word, None where they are to start
        again; waits so long for one.

        Raises:
            UserError: a node has not what it needs, so that no task can run there.
        """
        if not self.running:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(list(self.running), timeout=seconds)
        return [(self.running[reference], self._collect(reference)) for reference in done]

    def _collect(self, reference) -> str | None:
        task = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            return ""
        except ray.exceptions.RayTaskError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except ray.exceptions.RayError as error:
            self._losses[task] += 1
            lost = f"lost with its node or process: {str(error).splitlines()[0]}"
            return None if self._losses[task] <= RETRIES else lost
        if "unfit" in result:
            raise UserError(f"node {result['node']}: {result['unfit']}")
        log = f"node {result['node']}\n{result['log']}"
        records.write_atomically(task.log, lambda file: file.write(log.encode()))
        store(task, result["files"])
        return f"{last_word(0, result['log'])} (on node {result['node']})"

    def stop(self, impatient) -> list[tuple[Task, str | None]]:
        """Interrupt what runs, kill it after a grace time or once `impatient()`, return it, and leave the cluster."""
        for reference in self.running:
            ray.cancel(reference)
        deadline, left = time.monotonic() + GRACE_S, list(self.running)
        while left and time.monotonic() < deadline and not impatient():
            _, left = ray.wait(left, num_returns=len(left), timeout=0.2)
        for reference in left:
            ray.cancel(reference, force=True)
        stopped = [
            (task, "" if reference in left else self._collect(reference))
            for reference, task in list(self.running.items())
        ]
        ray.shutdown()
        return stopped


def store(task: Task, files: dict[str, bytes]) -> None:
    """Write what a node sent of a task, its record last, if there is one; the grid finds out whether it is right."""
    last = task.record_file.as_posix()
    if last not in files:
        return
    if task.seed is not None:
        record = json.loads(files[last])
        record["environment"]["dirty"] = environment.dirty()  # nodes have no Git repository
        files[last] = json.dumps(record, indent=1).encode() + b"\n"
    for name in sorted(files, key=lambda name: name == last):
        records.write_atomically(Path(name), lambda file, name=name: file.write(files[name]))


def _connect(address: str, folder: str) -> None:
    """Join the cluster at an address with a folder for its nodes, or start one of this machine alone.

    Raises:
        ConnectionError: there is none, or it could not be started.
    """
    if address not in ("auto", "local"):
        host, _, port = address.rpartition(":")
        try:  # Ray itself would try for minutes
            socket.create_connection((host, port), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ConnectionError(
                f"--ray {address}: {error}; `ray start --head` prints the right address; expected 'auto', HOST:PORT "
                "or 'local', on a node of the cluster"
            ) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ours = signal.getsignal(signal.SIGTERM)
    alone = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    carried = {"working_dir": folder, "excludes": ["**/__pycache__"]}
    try:
        ray.init(address=address, runtime_env=carried, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except Exception as error:  # Ray raises plain ones too
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(f"--ray {address}: {reason}") from error
    signal.signal(signal.SIGTERM, ours)  # Ray sets its own, which would end this process anywhere


def _nodes() -> list[dict]:
    """The resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
