"""The process that does one task after another: it imports torch once, and what it dies of costs one task.

Run as `python -m pipelines.launching.worker DESCRIPTOR PARENT` by `processes.Worker`: tasks come over the socket, and
for each the most memory that it took goes back. What a task prints goes to its log, and says what became of it.
"""

import ctypes
import gc
import os
import re
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path


def serve(connection: Connection) -> None:
    """Do tasks until the other end closes. An error that is not the user's ends this process: it may have left torch or
    the GPU in a state in which no other task should run.
    """
    while True:
        try:
            task = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        with open(task["log"], "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        before = _peak(reset=True)
        do(task)
        _clean()
        connection.send(max(_peak(), before))


def do(task: dict) -> None:
    """Tune or train; a mistake of the user's is printed."""
    from pipelines.files.errors import UserError
    from pipelines.profile import load
    from pipelines.training import runner, tuning

    sys.argv = task["command"].split(" ")  # for the record
    try:
        params = load(task["profile_file"])
        if task["seed"] is None:
            tuning.tune_method(params, task["method"])
        else:
            runner.run_method(params, task["method"], [task["seed"]])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)


def _clean() -> None:
    """Give back what the task took, for the workers beside this one."""
    from pipelines.training import memory

    torch = sys.modules.get("torch")
    gc.collect()
    memory.give_back()
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _peak(reset: bool = False) -> int:
    """The most bytes that this process has held since the last reset; ever, where the system cannot forget."""
    status = Path("/proc/self/status")
    try:
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
            return 0
        return peak
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the kernel kills this process with its parent
        if os.getppid() != parent:  # which died before that
            return
    serve(Connection(descriptor))


if __name__ == "__main__":
    main()
