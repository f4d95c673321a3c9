"""Runs on a Ray cluster: this process is the head, which alone writes results; nodes send theirs back as bytes."""

import hashlib
import json
import logging
import math
import os
import re
import signal
import socket
import time
from pathlib import Path

import ray
import yaml

from pipelines.data import prepared
from pipelines.files import records
from pipelines.files.hashing import sha256_json
from pipelines.launching import node as worker
from pipelines.launching.grid import Grid, Task
from pipelines.launching.processes import cores
from pipelines.profile import ParamsError
from pipelines.runs import environment
from pipelines.runs.code import ROOT

PIECE = 64 * 2**20  # bytes of a file that are sent as one object
FILE = re.compile(r"[a-z][a-z0-9_-]*\.(json|csv|npz)")  # of a run: nothing that could lie outside its folder


class Cluster:
    """As many jobs at a time as the nodes that are there have room for; Ray starts those of a lost node on another.

    Args:
        args: the options of `pipelines.launch`.

    Raises:
        ConnectionError: no cluster at the address.
        ParamsError: no node has room for one run.
    """

    def __init__(self, grid: Grid, args):
        self.params, self.args = grid.tasks[0].params, args
        _connect(args.ray)
        ray.cloudpickle.register_pickle_by_value(worker)  # nodes need not have this project
        nodes = [node for node in _nodes() if node.get("GPU")] or _nodes()
        self.gpu = 1 / args.per_gpu if any(node.get("GPU") for node in nodes) else 0  # of one, for each run
        self.threads = args.threads or min(
            max(1, int(node.get("CPU", 1) * self.gpu // node["GPU"])) if self.gpu else 1 for node in nodes
        )
        self.running: dict = {}  # reference -> task
        self._counted = -math.inf
        if not self.slots:
            ray.shutdown()
            raise ParamsError(
                f"no node of the cluster has {self.threads} CPUs{' and a GPU' if self.gpu else ''} for a run; "
                "lower --threads, or add nodes"
            )
        memory = {"memory": int(args.memory * 2**30)} if args.memory else {}
        self._needs = {"num_cpus": self.threads, "num_gpus": self.gpu, "max_retries": args.retries, **memory}
        self._remote = ray.remote(worker.run_on_node)
        self._send()

    def __str__(self):
        return f"{self.slots} at a time on a cluster of {len(_nodes())} nodes, {self.threads} threads each"

    @property
    def slots(self) -> int:
        """Runs that the nodes have room for now; nodes may come and go."""
        if time.monotonic() - self._counted > 2:
            self._counted = time.monotonic()
            self._slots = 0
            for node in _nodes():
                room = node.get("CPU", 0) // self.threads
                self._slots += int(min(room, node.get("GPU", 0) // self.gpu) if self.gpu else room)
        return min(self._slots, self.args.jobs or self._slots)

    def has_room(self, task: Task) -> bool:
        return len(self.running) < self.slots

    # What goes out

    def _send(self) -> None:
        """Put code, data and weights where nodes fetch them from, unless they read data and weights themselves."""
        sources = [path for name in ("pipelines", "baselines", "colora") for path in (ROOT / name).rglob("*.py")]
        self._code = _parcel({path.relative_to(ROOT).as_posix(): path for path in sources})
        manifest = self.params.data_dir / "manifest.json"
        data = self.params.data_dir.as_posix()
        if self.args.shared:
            shared = Path(self.args.shared)
            self._links = {data: str(shared / data), "checkpoints": str(shared / "checkpoints")}
            self._same = {str(shared / manifest): records.sha256_file(manifest)}
        else:
            files = {p.relative_to(self.params.data_dir).as_posix(): p for p in prepared.files(self.params.data_dir)}
            self._links, self._same = {data: _parcel(files)}, {}
        self._weights = {}  # path as the profile has it -> path as nodes have it
        content = _with_weights(self.params.model_dump(mode="json"), self._place)
        self._params = yaml.safe_dump(content, sort_keys=False)

    def _place(self, weights: str) -> str:
        """Where nodes find a weights file, which is sent unless shared."""
        if weights in ("imagenet", "random"):
            return weights
        path = Path(weights).expanduser()
        if self.args.shared:
            return str(Path(self.args.shared) / path)
        if weights not in self._weights and path.is_file():  # a missing one is its method's error
            parcel = _parcel({path.name: path})
            folder = f"weights/{parcel['key']}"
            self._links[folder] = parcel
            self._weights[weights] = f"{folder}/{path.name}"
        return self._weights.get(weights, weights)

    def start(self, task: Task) -> None:
        texts = {"params.yaml": self._params}
        tuning = self.params.tune_file(task.method)
        if task.seed is None:
            folder, wanted = tuning.parent, tuning.name
        else:
            folder, wanted = self.params.run_dir(task.method, task.seed), None
            if tuning.is_file():
                texts[tuning.as_posix()] = tuning.read_text()
        spec = {
            "command": task.command().split()[2:], "folder": folder.as_posix(), "wanted": wanted, "texts": texts,
            "code": self._code, "links": self._links, "same": self._same, "cache": self.args.cache,
            "threads": self.threads, "gpu": self.gpu > 0,
        }  # fmt: skip
        self.running[self._remote.options(name=str(task), **self._needs).remote(spec)] = task

    # What comes back

    def ended(self, seconds: float) -> list[tuple[Task, str]]:
        """Jobs that have ended and whose results are written, with their last word; waits so long for one.

        Raises:
            NodeError: a node has not what it needs, so that no run can run there.
        """
        if not self.running:
            return []
        ray.wait(list(self.running), num_returns=1, timeout=seconds)
        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [(task, self._collect(reference, task)) for reference in done for task in [self.running.pop(reference)]]

    def _collect(self, reference, task: Task) -> str:
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except ray.exceptions.RayError as error:  # its retries are used up
            return f"lost with its node or process: {str(error).splitlines()[0]}"
        if "unfit" in result:
            raise worker.NodeError(f"node {result['node']}: {result['unfit']}")
        where = f"node {result['node']}\n".encode()
        records.write_atomically(task.log, lambda file: file.write(where + result["log"]))
        why = worker.how_it_ended(result["returncode"], result["log"].decode(errors="replace"))
        return store(task, result) or f"{why} (on node {result['node']})"

    def stop(self, impatient) -> list[tuple[Task, str]]:
        """Cancel what runs, by force after a grace time or once `impatient()`, return it, and leave the cluster."""
        for reference in self.running:
            ray.cancel(reference)
        deadline, left = time.monotonic() + worker.GRACE_S + 2, list(self.running)
        while left and time.monotonic() < deadline and not impatient():
            _, left = ray.wait(left, num_returns=len(left), timeout=0.2)
        for reference in left:
            ray.cancel(reference, force=True)
        stopped = [
            (task, "" if reference in left else self._collect(reference, task))
            for reference, task in self.running.items()
        ]
        self.running = {}
        ray.shutdown()
        return stopped


def store(task: Task, result: dict) -> str | None:
    """Write what a node sent of a task, its record last; returns what is wrong with it, or None.

    Nothing is written unless the record has the fingerprint that it should have here, and every name is one that lies
    in the run's folder.
    """
    files, node = dict(result["files"]), result["node"]
    path = task.record_file
    if path.name not in files:
        return None
    try:
        record = json.loads(files.pop(path.name))
        if record["fingerprint"] != task.fingerprint():
            return f"node {node} sent a record with another fingerprint: it has other data, weights or code"
        wrong = [name for name in files if task.seed is None or not FILE.fullmatch(name)]
        if wrong:
            return f"node {node} sent a file that does not belong there: {wrong[0]!r}"
        if record["environment"]["commit"] is None:  # nodes have no Git repository; the code is ours
            record["environment"] |= {"commit": environment.commit(), "dirty": environment.dirty()}
    except (ValueError, KeyError, TypeError) as error:
        return f"node {node} sent a malformed record: {error!r}"
    for name, content in files.items():
        records.write_atomically(path.parent / name, lambda file, content=content: file.write(content))
    records.write_json(path, record)
    return None


def _connect(address: str) -> None:
    """Join the cluster at an address, or start one of this machine alone.

    Raises:
        ConnectionError: there is none, or it could not be started.
    """
    if address not in ("auto", "local"):
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdigit():
            raise ParamsError(
                f"--ray {address}: expected 'auto', HOST:PORT or 'local'; launch on a node of the cluster"
            )
        try:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"--ray {address}: {error}; `ray start --head` prints the right address") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ours = signal.getsignal(signal.SIGTERM)
    alone = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except Exception as error:  # Ray raises plain ones too
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(f"--ray {address}: {reason}") from error
    signal.signal(signal.SIGTERM, ours)  # Ray sets its own, which would end this process anywhere


def _nodes() -> list[dict]:
    """The resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _parcel(files: dict[str, Path]) -> dict:
    """Put files where nodes can fetch them, in pieces; see `worker.unpack`."""
    packed = []
    for name, path in sorted(files.items()):
        digest, pieces = hashlib.sha256(), []
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                pieces.append(ray.put(piece))
        packed.append((name, digest.hexdigest(), pieces))
    return {"key": sha256_json([entry[:2] for entry in packed])[:32], "files": packed}


def _with_weights(content: dict, place) -> dict:
    """A profile's content with every weights path replaced by `place(path)`."""
    for section in [content["model"], *content["method"].values()]:
        weights = section.get("weights")
        if isinstance(weights, dict):
            section["weights"] = {backbone: place(path) for backbone, path in weights.items()}
        elif isinstance(weights, str):
            section["weights"] = place(weights)
    return content
