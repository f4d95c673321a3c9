"""A campaign: checks, costs, then waves of runs in the order of their value, with results packed as they come."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.launching import launcher
from pipelines.launching.grid import Wave
from pipelines.launching.packing import check_name, write_tar
from pipelines.launching.processes import GRACE_S, cores
from pipelines.profile import ParamsError, Section, load
from pipelines.profile.base import explain
from pipelines.runs.code import ROOT

EVERY_S = 30  # seconds between two packings
KEPT = ("*.log", "cost/*.json")  # of checkpoints: with unfinished costs `pipelines.cost` goes on, on such a machine


class Entry(Section):
    """A wave as it stands in a plan: some methods and seeds of a composed parameter file, by default all."""

    profile_file: str
    methods: list[str] | None = Field(None, min_length=1)
    seeds: list[int] | None = Field(None, min_length=1)


def read_plan(path: Path) -> list[Wave]:
    """The waves of a plan: a YAML list of entries, the most valuable first.

    Raises:
        ParamsError: no such file, an entry that is no wave, or a parameter file that cannot be used.
    """
    try:
        entries = TypeAdapter(list[Entry]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; expected a YAML list of {{profile_file, methods, seeds}}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        raise ParamsError(explain(error, path, Entry)) from None
    if not entries:
        raise ParamsError(f"{path}: no wave; expected a list of {{profile_file, methods, seeds}}")
    profiles = {entry.profile_file: load(entry.profile_file) for entry in entries}
    return [Wave(entry.profile_file, profiles[entry.profile_file], entry.methods, entry.seeds) for entry in entries]


def run(
    waves: list[Wave],
    make_pool: Callable,
    archive: Path,
    *,
    minutes: float | None = None,
    checks: Path | None = ROOT / "tests" / "test_gpu.py",
    costs: bool = False,
) -> int:
    """Do all of it; returns the exit status of `launcher.launch`.

    Args:
        archive: rewritten as results come, with all that campaigns in this folder have made.
        minutes: that the whole may take; with costs, they may have half of them.
        checks: tests that must pass first, or None.
        costs: whether each profile's costs are measured before its runs.

    Raises:
        UserError: no name for an archive, a check failed, or as `launcher.launch`.
        OSError: the archive cannot be written.
    """
    check_name(archive)
    start, profiles = time.monotonic(), {wave.params.profile: wave for wave in waves}
    pack = _packing(archive)
    next_time = 0.0

    def tick(now: bool = False) -> None:
        nonlocal next_time
        if now or time.monotonic() > next_time:
            pack()
            next_time = time.monotonic() + EVERY_S

    def first() -> None:
        with launcher.on_stop(signal.default_int_handler):
            if checks and _call(_pytest(checks), minutes and 60 * minutes):
                raise UserError(f"{checks.name} failed: nothing is trained; see above what does not hold here")
            for wave in profiles.values() if costs else ():
                left = minutes and 60 * minutes / 2 - (time.monotonic() - start)
                _call(["pipelines.cost", "--again", "--profile-file", wave.profile_file], left)
                tick(now=True)

    tick(now=True)
    try:
        return launcher.launch(waves, make_pool, minutes=minutes, tick=tick, first=first)
    finally:
        tick(now=True)


def _pytest(checks: Path) -> list[str]:
    count = min(8, cores() // 2)
    workers = ["-n", str(count)] if count > 1 and importlib.util.find_spec("xdist") else []
    return ["pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *workers, str(checks)]


def _call(command: list[str], seconds: float | None) -> int:
    """Run a module to its end, or for so long; returns its exit status. What it started ends with it."""
    command = [sys.executable, "-m", *command]
    with subprocess.Popen(command, preexec_fn=_heed_interrupts, start_new_session=True) as process:
        try:
            process.wait(seconds and max(seconds, 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:  # nothing of it stays on a GPU
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def _heed_interrupts() -> None:
    """A shell starts its background jobs deaf to SIGINT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _packing(archive: Path) -> Callable[[], None]:
    """What writes the archive where anything is new: all results, logs and unfinished costs that differ from what was
    there before the first campaign in this folder, which checkpoints/campaign.json remembers.
    """
    own = archive.resolve()

    def files() -> dict[str, list[int]]:
        found = (*Path("results").rglob("[!.]*"), *(path for kind in KEPT for path in Path("checkpoints").rglob(kind)))
        return {str(path): _stamp(path) for path in found if path.is_file() and path.resolve() != own}

    memory, packed = Path("checkpoints", "campaign.json"), None
    if not memory.exists():
        records.write_json(memory, files())
    before = records.read_json(memory, "delete it")

    def pack() -> None:
        nonlocal packed
        made = {name: stamp for name, stamp in files().items() if before.get(name) != stamp}
        if made != packed:
            with suppress(FileNotFoundError):  # a run that is trained anew just lost its old record: next time
                write_tar(archive, {Path(name): Path(name) for name in made})
                packed = made

    return pack


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
