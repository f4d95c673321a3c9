"""Where and with what a run was made: versions, machine, commit."""

import functools
import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipelines.runs.code import ROOT


def environment(device: str | None = None) -> dict:
    """Versions, machine and commit of this process, for the record; `dirty` when the code differs from the commit. A
    GPU is named where `device` ("cpu", "cuda", "cuda:1"; None: the GPU if there is one) is one. Of absolute paths in
    the command the last part alone is recorded. Imports torch.
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

    gpu = torch.cuda.is_available() and not str(device).startswith("cpu")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **{name: version(name) for name in ("timm", "peft", "mamba-ssm")},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "driver": _driver() if gpu else None,
        "commit": commit(),
        "dirty": dirty(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv),
    }


def commit() -> str | None:
    """The commit of this code: git's, which is asked once a process, or without a checkout the one that `git archive`
    wrote, if any.
    """
    template = ROOT / ".git_archival.txt"
    archived = template.read_text().removeprefix("node: ").strip() if template.is_file() else ""
    return _git("rev-parse", "HEAD") or (archived if re.fullmatch("[0-9a-f]{40,64}", archived) else None)


def dirty() -> bool | None:
    """Whether the code that can decide a number differs from the commit; None without a checkout."""
    changed = _git("status", "--porcelain", "--", "colora", "baselines", "pipelines")
    return None if changed is None else bool(changed)


def _cpu_name() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor()


def _driver() -> str | None:
    """Of the GPUs, which share one; nvidia-smi has a line for each."""
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found and found.splitlines()[0]


def _git(*args) -> str | None:
    """What git says of this code; None where it is in no checkout of its own, though another may lie around it."""
    top = _output("git", "-C", str(ROOT), "rev-parse", "--show-toplevel")
    return _output("git", "-C", str(ROOT), *args) if top and Path(top).resolve() == ROOT else None


@functools.cache
def _output(*command) -> str | None:
    """What a command prints, or None where it is not there or fails (an unpacked archive is a fine place to run)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
