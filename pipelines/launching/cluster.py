"""Workers on a Ray cluster: this process alone writes results; nodes send theirs back as bytes.

Ray itself carries code, parameters, data and weights: they are the working directory of its runtime environment, which
each node unpacks once. An actor holds a place on a node, and in it a worker that stays for the next task.
"""

import json
import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import ray
import yaml
from pydantic import ValidationError

from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.launching.grid import Grid, Task, Wave
from pipelines.launching.packing import portable
from pipelines.launching.processes import GRACE_S, Worker, cores
from pipelines.profile import ParamsError, load
from pipelines.runs import environment
from pipelines.runs.code import ROOT
from pipelines.runs.record import Record

LARGEST = 500 * 2**20  # bytes that Ray carries in a working directory
RETRIES = 3  # of a run that was lost with its node, or sent to one that was lost already


class NodeError(UserError):
    """A node can run no run; the message names it, what is wrong, and what to do."""


class Node:
    """An actor: one worker on a node, in Ray's copy of the project there.

    Args:
        shared: where the node finds data and checkpoints, or None if they are in the copy.
        manifest: sha256 that the manifest of the data must have.
    """

    def __init__(self, threads: int, gpu: bool, shared: str | None, manifest: str):
        self.options = {"threads": threads, "gpu": None if gpu else ""}  # Ray has set which GPU
        self.shared, self.manifest, self.worker = shared, manifest, None
        self.name = f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:12]})"

    def do(self, method: str, seed: int | None, chosen: bytes | None) -> dict:
        """Do a task, for which its method's trials may be `chosen`.

        Returns:
            {"node", "why", "log", "files": {path: bytes}}, or {"node", "unfit": why} if no task can run here.
        """
        params = load("params.yaml")
        task = Task(Wave("params.yaml", params), 0, method, seed)
        if unfit := self._unfit(params.data_dir):
            return {"node": self.name, "unfit": unfit}
        if chosen is not None:
            records.write_atomically(params.tune_file(method), lambda file: file.write(chosen))
        if self.worker is None or not self.worker.alive:
            self.worker = Worker(task.log, **self.options)
        self.worker.start(task)
        why, _ = self.worker.collect()
        files = {path.as_posix(): path.read_bytes() for path in _files(task)}
        return {"node": self.name, "why": why, "log": task.log.read_bytes(), "files": files}

    def _unfit(self, data: Path) -> str | None:
        for folder in (data, Path("checkpoints")) if self.shared else ():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # of another actor here
                folder.symlink_to(Path(self.shared) / folder)
        path = Path(self.shared or "", data, "manifest.json")
        if not path.is_file():
            return (
                f"{path} is not there; mount the shared folder on every node under the path given to --shared, "
                "or leave --shared out and Ray carries the data"
            )
        if records.sha256_file(path) != self.manifest:
            return f"{path} is not the file that the launcher has; prepare the data anew in the shared folder"
        return None

    def interrupt(self) -> None:
        """Let the task stop, as by Ctrl-C; called while `do` waits."""
        with suppress(ProcessLookupError):
            if self.worker:
                os.killpg(self.worker.process.pid, signal.SIGINT)


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
            max(1, int(node.get("CPU", 1) * self.gpu // node["GPU"])) if self.gpu else 1 for node in nodes
        )
        self.running: dict = {}  # reference -> (task, (actor, reference of its being up))
        self._idle: list = []
        self._losses: Counter = Counter()
        self._unstarted: Counter = Counter()
        self._counted = -math.inf
        if not self.slots:
            ray.shutdown()
            raise ParamsError(
                f"no node of the cluster has {self.threads} CPUs{' and a GPU' if self.gpu else ''} for a run; "
                "lower --threads, or add nodes"
            )
        memory = {"memory": int(args.memory * 2**30)} if args.memory else {}
        self._actor = ray.remote(Node).options(
            num_cpus=self.threads, num_gpus=self.gpu, max_concurrency=2, **memory
        )  # fmt: skip
        self._about = (self.threads, self.gpu > 0, args.shared, records.sha256_file(_manifest(self.params)))

    def _stage(self, folder: Path) -> None:
        """Fill the working directory that nodes get, with links."""
        weights: dict[str, Path] = {}
        content = portable(self.params, weights)
        if self.args.shared:
            links = {}
            texts = yaml.safe_dump(content, sort_keys=False)
            for inside, path in weights.items():
                texts = texts.replace(inside, str(Path(self.args.shared) / path))
        else:
            links = {self.params.data_dir.as_posix(): self.params.data_dir, **weights}
            texts = yaml.safe_dump(content, sort_keys=False)
        links |= {name: ROOT / name for name in ("pipelines", "baselines", "colora")}
        for name, path in links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path.absolute())
        (folder / "params.yaml").write_text(texts)
        (folder / ".git_archival.txt").write_text(f"node: {environment.commit()}\n")
        size = sum(p.stat().st_size for path in links.values() for p in [path, *path.rglob("*")] if p.is_file())
        if size > LARGEST:
            raise ParamsError(
                f"data and weights take {size / 2**20:.0f} MiB, of which Ray carries {LARGEST / 2**20:.0f} at most; "
                "put them into a folder that all nodes see, and name it with --shared"
            )

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

    def start(self, task: Task) -> None:
        if self._idle:
            actor, up = self._idle.pop()
        else:
            actor = self._actor.remote(*self._about)
            up = actor.__ray_ready__.remote()
        tuned = self.params.tune_file(task.method)
        chosen = tuned.read_bytes() if task.seed is not None and tuned.is_file() else None
        self.running[actor.do.remote(task.method, task.seed, chosen)] = task, (actor, up)

    def ended(self, seconds: float) -> list[tuple[Task, str | None]]:
        """Tasks that have ended and whose results are written, with their last word, None where they are to start
        again; waits so long for one.

        Raises:
            NodeError: a node has not what it needs, so that no task can run there.
        """
        if len(self.running) + len(self._idle) > self.slots:  # a lost place, for which some actor may wait
            self._release()
        ray.wait(list(self.running), num_returns=1, timeout=seconds) if self.running else time.sleep(seconds)
        done = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)[0] if self.running else []
        return [(self.running[reference][0], self._collect(reference)) for reference in done if self._ran(reference)]

    def _ran(self, reference) -> bool:
        """Whether a task's actor was ever up, or has died too often before; else the task is sent out again.

        Ray takes seconds to learn that a node is lost, and until then may put new actors there.
        """
        task, (_, up) = self.running[reference]
        try:
            ray.get(up, timeout=0)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            self._unstarted[task] += 1
            if self._unstarted[task] <= RETRIES:
                del self.running[reference]
                self.start(task)
                return False
        return True

    def _collect(self, reference) -> str | None:
        task, (actor, up) = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._release()  # some may be on the same node
            self._counted = -math.inf
            self._losses[task] += 1
            lost = f"lost with its node or process: {str(error).splitlines()[0]}"
            return None if self._losses[task] <= RETRIES else lost
        except ray.exceptions.RayTaskError as error:
            ray.kill(actor)
            return f"{type(error.cause).__name__}: {error.cause}"
        if "unfit" in result:
            raise NodeError(f"node {result['node']}: {result['unfit']}")
        self._idle.append((actor, up))
        where = f"node {result['node']}\n".encode()
        records.write_atomically(task.log, lambda file: file.write(where + result["log"]))
        return store(task, result) or f"{result['why']} (on node {result['node']})"

    def _release(self) -> None:
        """Give idle actors' places back."""
        for actor, _ in self._idle:
            ray.kill(actor)
        self._idle = []

    def stop(self, impatient) -> list[tuple[Task, str | None]]:
        """Interrupt what runs, kill it after a grace time or once `impatient()`, return it, and leave the cluster."""
        for _, (actor, _) in self.running.values():
            actor.interrupt.remote()
        deadline, left = time.monotonic() + GRACE_S, list(self.running)
        while left and time.monotonic() < deadline and not impatient():
            _, left = ray.wait(left, num_returns=len(left), timeout=0.2)
        stopped = [
            (task, "" if reference in left else self._collect(reference))
            for reference, (task, _) in list(self.running.items())
        ]
        for _, (actor, _) in self.running.values():
            ray.kill(actor)  # the kernel kills its worker with it
        self._release()
        self.running = {}
        ray.shutdown()
        return stopped


def store(task: Task, result: dict) -> str | None:
    """Write what a node sent of a task, its record last; returns what is wrong with it, or None.

    Nothing is written unless the record has the fingerprint that it should have here, and every file lies where the
    task's files do.
    """
    files, node, last = dict(result["files"]), result["node"], task.record_file.as_posix()
    if last not in files:
        return None
    try:
        record = json.loads(files.pop(last))
        if record["fingerprint"] != task.fingerprint():
            return f"node {node} sent a record with another fingerprint: it has other data, weights or code"
        if task.seed is not None:
            Record.model_validate(record)
            record["environment"]["dirty"] = environment.dirty()  # nodes have no Git repository
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        return f"node {node} sent a malformed record: {error!r}"
    folders = [task.record_file.parent]
    folders += [task.params.model_dir(task.method, task.seed)] if task.seed is not None else []
    if wrong := [name for name in files if Path(name).parent not in folders or ".." in Path(name).parts]:
        return f"node {node} sent a file that does not belong there: {wrong[0]!r}"
    for name, content in files.items():
        records.write_atomically(Path(name), lambda file, content=content: file.write(content))
    records.write_json(task.record_file, record)
    return None


def _manifest(params) -> Path:
    return params.data_dir / "manifest.json"


def _connect(address: str, folder: str) -> None:
    """Join the cluster at an address with a folder for its nodes, or start one of this machine alone.

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
