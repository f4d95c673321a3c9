"""Archives for machines without git, DVC or a network: what a profile needs there, and the results that come back."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from pipelines.data import prepared
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params, ParamsError, load
from pipelines.runs.code import ROOT

CODE = ("baselines", "colora", "conf", "pipelines", "report", "tests")


class PackError(UserError):
    """Nothing can be packed; the message says why and what to do."""


def pack(profile_files: list[str], archive: Path, *, code: bool = True) -> None:
    """Write what profiles need elsewhere: parameter files, prepared data, weights, results so far, and the code.

    With the code all lies in one folder of the archive's name; without it, to be unpacked where the code is, in none.
    A name that ends in .xz or .gz is compressed so.

    Raises:
        PackError: no git checkout, or code that is not committed.
        ParamsError, FileNotFoundError: a method's settings, the prepared data or a weights file are not there.
    """
    profiles = {Path(name).name: load(name) for name in profile_files}
    if len(profiles) < len(profile_files):
        raise PackError(f"two parameter files of one name among {', '.join(profile_files)}; rename one of them")
    for params in profiles.values():
        for seed in params.all_seeds:
            prepared.identity(params.data_dir, seed, external=params.data.external_names)
    commit = _commit()
    mode, top = {".xz": "w:xz", ".gz": "w:gz"}.get(archive.suffix, "w"), archive.name.split(".")[0] if code else ""
    with tempfile.TemporaryDirectory(prefix="colora-") as name:
        folder = Path(name)
        if code:
            with tarfile.open(fileobj=io.BytesIO(_code())) as tar:
                tar.extractall(folder, filter="data")
        stage(folder, profiles, commit)
        for params in profiles.values():
            for made in (params.results_dir / part for part in ("data", "tune", "runs")):
                if made.exists():
                    _link(folder / made, made)

        def write(file):
            with tarfile.open(fileobj=file, mode=mode, dereference=True) as tar:
                for path in sorted(folder.iterdir()):
                    tar.add(path, Path(top, path.name))

        records.write_atomically(archive, write)


def stage(folder: Path, profiles: dict[str, Params], commit: str | None, shared: str | None = None) -> None:
    """Fill a folder with what profiles, by the names of their files, need elsewhere: parameters, the commit of the
    code, and links to data and weights.

    Args:
        shared: the folder where data and weights will be found there; then there are no links to them.

    Raises:
        ParamsError: two weights files of one name.
        FileNotFoundError: a weights file is not there.
    """

    def moved(value):
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if value in (None, "imagenet", "random"):
            return value
        path = Path(value).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"weights {value!r}: no such file")
        if shared:
            return str(Path(shared) / path)
        inside = Path("weights/packed", path.name)
        if (other := _link(folder / inside, path)) != path.absolute():
            raise ParamsError(f"weights {value!r} and {str(other)!r} have one name; rename one of them")
        return str(inside)

    for name, params in profiles.items():
        content = params.model_dump(mode="json")
        for section in (content["model"], *content["method"].values()):
            if "weights" in section:
                section["weights"] = moved(section["weights"])
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
        if not shared:
            _link(folder / params.data_dir, params.data_dir)
    (folder / ".git_archival.txt").write_text(f"node: {commit}\n")


def _link(place: Path, path: Path) -> Path:
    """Let a link to the path stand there unless one does; returns what it leads to."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(path.absolute())
    return place.readlink()


def _commit() -> str:
    """The last commit of this code.

    Raises:
        PackError: no git checkout, or code that differs from the commit.
    """
    if changed := _git("status", "--porcelain", "--untracked-files=all", "--", *CODE, *_but_made()).decode():
        raise PackError(
            "code that is not committed: the records could not say what made them; commit first:\n" + changed.rstrip()
        )
    return _git("rev-parse", "HEAD").decode().strip()


def _code() -> bytes:
    """All that is committed, but results and the reports made of them, as a tar archive."""
    return _git("archive", "HEAD", "--", ".", *_but_made())


def _but_made() -> list[str]:
    profiles = sorted(path.stem for path in (ROOT / "conf" / "profile").glob("*.yaml"))
    return [f":(exclude){made}" for made in ("results", *(f"report/{profile}" for profile in profiles))]


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True)
    if done.returncode:
        raise PackError(f"git {words[0]} in {ROOT}: {done.stderr.decode().strip()}; pack from a git checkout")
    return done.stdout


class Parcels:
    """Files as they appear, in archives results-001.tar.gz, results-002.tar.gz, ... of a limited size. A file that
    changes is packed again, into a later one.

    checkpoints/packed.json says what they hold and how many there were, so that a later process goes on where this one
    was killed, and no number comes twice, though archives are moved away.

    Args:
        size: bytes that the files of an archive may have.
    """

    def __init__(self, out: Path, *, size: int):
        self.out, self.size = out, size
        self._file = Path("checkpoints/packed.json")
        there = records.read_json(self._file, "delete it") if self._file.exists() else {"archives": 0, "files": {}}
        self._count, self._seen = there["archives"], there["files"]

    def ignore(self, paths: Iterable[Path]) -> None:
        """Leave these files out unless they change; not where an earlier process has packed some of them."""
        if not self._file.exists():
            self._save({str(path): _stamp(path) for path in paths})

    def update(self, paths: Iterable[Path]) -> None:
        """Pack those of the files that are new or have changed."""
        together, total = [], 0
        for path in paths:
            size, _ = stamp = _stamp(path)
            if self._seen.get(str(path)) == stamp:
                continue
            if size > self.size:
                self._seen[str(path)] = stamp  # told once
                print(f"warning: {path} is too large for an archive of {self.size:,} bytes; left out", flush=True)
                continue
            if total + size > self.size:
                self._write(together)
                together, total = [], 0
            together.append(path)
            total += size
        if together:
            self._write(together)

    def _write(self, paths: list[Path]) -> None:
        stamps = {str(path): _stamp(path) for path in paths}  # one that changes meanwhile is packed again

        def write(file):
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as tar:
                for path in paths:
                    tar.add(path)

        self._count += 1
        records.write_atomically(self.out / f"results-{self._count:03}.tar.gz", write)
        self._save(stamps)

    def _save(self, stamps: dict[str, list]) -> None:
        self._seen |= stamps
        records.write_json(self._file, {"archives": self._count, "files": self._seen})


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
