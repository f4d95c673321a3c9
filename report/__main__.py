"""Write report/<profile>/ from a profile's result files alone: `python -m report [--profile NAME | --all]`."""

import argparse
import os
import sys
from multiprocessing import Pool
from pathlib import Path

from pipelines._cli import command

CONF = Path("conf/profile")


@command
def main(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m report",
        description="Write report/PROFILE/ (index.html, README.md, figures, tables) from results/PROFILE/.",
        epilog="example: python -m report --profile quick",
    )
    parser.add_argument(
        "--profile-file", default="params.yaml", help="parameters naming the profile (default: %(default)s)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", metavar="NAME", help="this profile, whatever the parameters name")
    which.add_argument("--all", action="store_true", help="every profile that has results")
    which.add_argument(
        "--headline", metavar="NAME", nargs="+",
        help="print what came out of a profile, a few lines of Markdown, one of each further profile among them",
    )  # fmt: skip
    _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> None:
    from report import pages

    if options.headline:
        print(pages.headline(*(_read(name, options.profile_file) for name in options.headline)))
        return
    if options.all:
        names = sorted(path.parent.name for path in Path("results").glob("*/summary.json"))
    else:
        names = [options.profile or _active(options.profile_file)]
    tasks = [(name, options.profile_file) for name in names]
    if len(tasks) == 1:
        print(_build(tasks[0]))
        return
    with Pool(os.cpu_count()) as pool:
        for page in pool.imap(_build, tasks):
            print(page, flush=True)


def _build(task: tuple[str, str]) -> Path:
    from pipelines.files import records
    from report import pages

    name, profile_file = task
    out = Path("report") / name
    with records.writing(out):  # where a disk is full the system names no file
        return pages.build(_read(name, profile_file), out)


def _read(name: str, profile_file: str):
    from report import pages

    return pages.read(Path("results") / name, _paper(name, profile_file))


def _active(profile_file: str) -> str:
    from pipelines.profile import load

    return load(profile_file).profile


def _paper(name: str, profile_file: str) -> bool | None:
    """What the profile says of `report.paper`; None where its parameters are not here, or say nothing."""
    from pipelines.profile import compose, load

    if Path(profile_file).is_file() and (active := load(profile_file)).profile == name:
        return active.report.paper
    return compose(name).report.paper if (CONF / f"{name}.yaml").is_file() else None


if __name__ == "__main__":
    sys.exit(main())
