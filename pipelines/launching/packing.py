"""Archives for machines without git, DVC or a network: what a profile needs there, and the results that come back."""

import io
import re
import subprocess
import tarfile
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
    """Nothing can be packed or unpacked; the message says why and what to do."""


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
    weights: dict[str, Path] = {}
    texts = {name: yaml.safe_dump(portable(params, weights), sort_keys=False) for name, params in profiles.items()}
    commit = _committed("rev-parse", "HEAD").decode().strip()
    texts[".git_archival.txt"] = f"node: {commit}\n"
    committed = _committed("archive", "HEAD") if code else None
    top = f"{archive.name.split('.')[0]}/" if code else ""

    def write(file):
        mode = {".xz": "w:xz", ".gz": "w:gz"}.get(archive.suffix, "w")
        with tarfile.open(fileobj=file, mode=mode) as tar:
            if committed:
                _add_code(tar, committed, top, left_out=set(texts))
            for name, text in texts.items():
                member = tarfile.TarInfo(top + name)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
            for inside, path in weights.items():
                tar.add(path, top + inside)
            for params in profiles.values():
                for folder in (params.data_dir, *(params.results_dir / name for name in ("data", "tune", "runs"))):
                    if folder.exists():
                        tar.add(folder, top + folder.as_posix())

    records.write_atomically(archive, write)


def _committed(*arguments: str) -> bytes:
    """What git says of the last commit of this code.

    Raises:
        PackError: no git checkout, or code that differs from the commit.
    """

    def git(*words):
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True)
        if done.returncode:
            raise PackError(f"git {words[0]} in {ROOT}: {done.stderr.decode().strip()}; pack from a git checkout")
        return done.stdout

    made = [f":(exclude)report/{profile.stem}" for profile in (ROOT / "conf" / "profile").glob("*.yaml")]
    changed = git("status", "--porcelain", "--untracked-files=all", "--", *CODE, *made).decode()
    if changed:
        raise PackError(
            "code that is not committed: the records could not say what made them; commit first:\n" + changed.rstrip()
        )
    return git(*arguments)


def _add_code(tar: tarfile.TarFile, committed: bytes, top: str, left_out: set[str]) -> None:
    """All that is committed, but results and the reports made of them."""
    with tarfile.open(fileobj=io.BytesIO(committed)) as source:
        profiles = [m[1] for m in (re.fullmatch(r"conf/profile/(.+)\.yaml", name) for name in source.getnames()) if m]
        made = ("results/", *(f"report/{profile}/" for profile in profiles))
        for member in source:
            if member.name not in left_out and not f"{member.name}/".startswith(made):
                content = source.extractfile(member) if member.isfile() else None
                member.name = top + member.name
                tar.addfile(member, content)


def portable(params: Params, files: dict[str, Path]) -> dict:
    """The parameters with every weights file as weights/packed/NAME; `files` gets where each of those is now.

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
        inside = f"weights/packed/{path.name}"
        if files.setdefault(inside, path) != path:
            raise ParamsError(f"weights {value!r} and {str(files[inside])!r} have one name; rename one of them")
        return inside

    content = params.model_dump(mode="json")
    for section in (content["model"], *content["method"].values()):
        if "weights" in section:
            section["weights"] = moved(section["weights"])
    return content


def unpack(archive: Path) -> None:
    """Unpack an archive here; nothing can land outside this folder. A checkout keeps its own word on its commit.

    Raises:
        PackError: it cannot be read, or a member would leave this folder.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name != ".git_archival.txt" or not (ROOT / ".git").exists():
                    tar.extract(member, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise PackError(f"{archive}: not an archive to unpack here ({error})") from error


class Parcels:
    """Files as they appear, in archives results-1.tar.gz, results-2.tar.gz, ... of a limited size.

    Every `update` leaves whole archives: new files go into the last, which is written anew, until it would be too
    large. A file that changes is packed again, into a later archive or the same one.

    Args:
        size: bytes that an archive may have.
    """

    def __init__(self, out: Path, *, size: int):
        self.out, self.size = out, size
        self._seen: dict[Path, tuple] = {}
        self._number, self._open = 1, []

    def ignore(self, paths: Iterable[Path]) -> None:
        """Leave these files out unless they change."""
        self._seen |= {path: _stamp(path) for path in paths}

    def update(self, paths: Iterable[Path]) -> None:
        """Pack those of the files that are new or have changed."""
        changed = {path: _stamp(path) for path in paths if self._seen.get(path) != _stamp(path)}
        if changed:
            self._add(list(changed))
            self._seen |= changed

    def _add(self, paths: list[Path]) -> None:
        together = list(dict.fromkeys([*self._open, *paths]))
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz", compresslevel=3) as tar:
            for path in together:
                tar.add(path, path.as_posix())
        if len(content.getbuffer()) <= self.size:
            name = self.out / f"results-{self._number}.tar.gz"
            records.write_atomically(name, lambda file: file.write(content.getbuffer()))
            self._open = together
        elif self._open:
            self._number, self._open = self._number + 1, []
            self._add(paths)
        elif len(paths) > 1:
            self._add(paths[: len(paths) // 2])
            self._add(paths[len(paths) // 2 :])
        else:
            print(f"warning: {paths[0]} is too large for an archive of {self.size:,} bytes; left out", flush=True)


def _stamp(path: Path) -> tuple:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
