"""One archive with all that a profile needs elsewhere: code, parameters, prepared data, weights, results so far.

    python -m pipelines.pack oct1k.tar               # here, after `python -m pipelines.prepare`
    tar xf oct1k.tar && cd oct1k                     # there: a machine with a GPU, no git, DVC or network
    python -m pytest -W default tests/test_gpu.py    # what must hold on a GPU before its results count
    python -m pipelines.cost                         # with nothing else running; goes on where it was stopped
    python -m pipelines.launch --minutes 25          # ends after so many minutes; launched again, it goes on
    tar cf back.tar results/oct1k                    # to be unpacked here; `dvc repro` then records without training

The code is that of the last commit, which the records there will name. It needs torch, torchvision, timm, peft,
numpy, safetensors, pydantic, PyYAML and tqdm there, and pytest for the checks. What is missing can travel as wheels:

    pip download --only-binary :all: --python-version 3.12 -d wheels pydantic    # here, for that Python
    pip install --no-index -f wheels pydantic                                    # there
"""

import argparse
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

from pipelines.data import prepared
from pipelines.files import records
from pipelines.profile import Params, ParamsError, load
from pipelines.runs.code import ROOT


class PackError(RuntimeError):
    """Nothing can be packed; the message says why and what to do."""


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="the tar file to write")
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        params = load(args.profile_file)
        pack(params, args.archive)
    except (PackError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.archive}: {args.archive.stat().st_size / 2**20:.1f} MiB; unpack it and launch there")
    return 0


def pack(params: Params, archive: Path) -> None:
    """Write the archive, all of it in one folder named after the profile.

    Raises:
        PackError: no git checkout, or code that is not committed.
        ParamsError, FileNotFoundError: a method's settings, the prepared data or a weights file are not there.
    """
    code = _committed_code()
    for seed in params.all_seeds:
        prepared.identity(params.data_dir, seed, external=params.data.external_names)
    content, weights = _portable(params)

    def write(file):
        with tarfile.open(fileobj=file, mode="w") as tar, tarfile.open(fileobj=io.BytesIO(code)) as committed:
            for member in committed:
                made = member.name.startswith(("results/", "report/")) and not member.name.endswith((".py", ".yaml"))
                if not made and member.name != "params.yaml":
                    source = committed.extractfile(member) if member.isfile() else None
                    member.name = f"{params.profile}/{member.name}"
                    tar.addfile(member, source)
            text = yaml.safe_dump(content, sort_keys=False).encode()
            member = tarfile.TarInfo(f"{params.profile}/params.yaml")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
            for inside, path in weights.items():
                tar.add(path, f"{params.profile}/{inside}")
            for folder in (params.data_dir, *(params.results_dir / name for name in ("data", "tune", "runs"))):
                if folder.exists():
                    tar.add(folder, f"{params.profile}/{folder.as_posix()}")

    records.write_atomically(archive, write)


def _committed_code() -> bytes:
    """`git archive` of the last commit."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
        if done.returncode:
            raise PackError(f"git {arguments[0]} in {ROOT}: {done.stderr.decode().strip()}; pack from a git checkout")
        return done.stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "baselines", "colora", "pipelines").decode()
    if changed:
        raise PackError(
            "code that is not committed: the records could not say what made them; commit first:\n" + changed.rstrip()
        )
    return git("archive", "HEAD")


def _portable(params: Params) -> tuple[dict, dict[str, Path]]:
    """The parameters with every weights file as weights/PROFILE/NAME, and where each of those files is now.

    Raises:
        ParamsError: two weights files of one name.
        FileNotFoundError: a weights file is not there.
    """
    files: dict[str, Path] = {}

    def moved(value):
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if value in (None, "imagenet", "random"):
            return value
        path = Path(value).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"weights {value!r}: no such file")
        inside = f"weights/{params.profile}/{path.name}"
        if files.setdefault(inside, path) != path:
            raise ParamsError(f"weights {value!r} and {str(files[inside])!r} have one name; rename one of them")
        return inside

    content = params.model_dump(mode="json")
    for section in (content["model"], *content["method"].values()):
        if "weights" in section:
            section["weights"] = moved(section["weights"])
    return content, files


if __name__ == "__main__":
    sys.exit(main())
