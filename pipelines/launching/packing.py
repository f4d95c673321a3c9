"""Archives for machines without git, DVC or a network: what a profile needs there, and the results that come back."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

import yaml

from pipelines.data import prepared
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params, ParamsError, load
from pipelines.runs.code import ROOT

MODES = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}
CODE = ("baselines", "colora", "conf", "pipelines", "report", "tests")


def pack(profile_files: list[str], archive: Path, *, code: bool = True) -> None:
    """Write what profiles need elsewhere: parameter files, data, weights, the code, and results and costs so far.

    With the code all lies in one folder of the archive's name; without it, to be unpacked where the code is, in none.

    Raises:
        UserError: no name for an archive, no git checkout, or code that is not committed.
        ParamsError, FileNotFoundError: a method's settings, the prepared data or a weights file are not there.
    """
    check_name(archive)
    profiles = {Path(name).name: load(name) for name in profile_files}
    if len(profiles) < len(profile_files):
        raise UserError(f"two parameter files of one name among {', '.join(profile_files)}; rename one of them")
    for params in profiles.values():
        for seed in params.all_seeds:
            prepared.identity(params.data_dir, seed, external=params.data.external_names)
    commit = _commit()
    top = archive.name.split(".")[0] if code else ""
    with tempfile.TemporaryDirectory(prefix="colora-") as name:
        folder = Path(name)
        if code:
            with tarfile.open(fileobj=io.BytesIO(_code())) as tar:
                tar.extractall(folder, filter="data")
        stage(folder, profiles, commit)
        for params in profiles.values():
            unfinished = Path("checkpoints", params.profile, "cost")
            for made in (*(params.results_dir / part for part in ("data", "tune", "runs")), unfinished):
                if made.exists():
                    _link(folder / made, made)
        write_tar(archive, {Path(top, path.name): path for path in sorted(folder.iterdir())})


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
        UserError: no git checkout, or code that differs from the commit.
    """
    if changed := _git("status", "--porcelain", "--untracked-files=all", "--", *CODE, *_but_made()).decode():
        raise UserError(
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
        raise UserError(f"git {words[0]} in {ROOT}: {done.stderr.decode().strip()}; pack from a git checkout")
    return done.stdout


def check_name(archive: Path) -> None:
    """Raises UserError where an archive of this name could not be written, or would not be what the name says."""
    if archive.suffix not in MODES or archive.is_dir():
        found = "a folder" if archive.is_dir() else f"a name in {archive.suffix or 'nothing'}"
        raise UserError(f"{archive}: expected the name of an archive in .tar, .tar.gz or .tar.xz, found {found}")


def write_tar(archive: Path, members: dict[Path, Path]) -> None:
    """Write files and folders, by their names in the archive, atomically."""

    def write(file):
        with tarfile.open(fileobj=file, mode=MODES[archive.suffix], dereference=True) as tar:
            for name, path in members.items():
                tar.add(path, name)

    records.write_atomically(archive, write)
