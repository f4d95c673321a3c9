"""Write report/<profile>/ from a profile's result files alone: `python -m report [--profile NAME | --all]`."""

import argparse
import os
import sys
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from pipelines._cli import command


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
    options = parser.parse_args(arguments)
    from pipelines.profile import load
    from report import pages

    if options.headline:
        print(pages.headline(*(_read(name, options.profile_file) for name in options.headline)))
    elif options.all:
        with Pool(os.cpu_count()) as pool:
            names = sorted(path.parent.name for path in Path("results").glob("*/summary.json"))
            for page in pool.imap(partial(_build, profile_file=options.profile_file), names):
                print(page, flush=True)
    else:
        name = options.profile or load(options.profile_file).profile
        print(_build(name, options.profile_file))


def _build(name: str, profile_file: str) -> Path:
    from pipelines.files import records
    from report import pages

    out = Path("report") / name
    with records.writing(out):  # where a disk is full the system names no file
        return pages.build(_read(name, profile_file), out)


def _read(name: str, profile_file: str):
    """The results, about the paper if the profile says so; its parameters may not be here, or say nothing."""
    from pipelines.profile import compose, load
    from report import pages

    paper = None
    if Path(profile_file).is_file() and (active := load(profile_file)).profile == name:
        paper = active.report.paper
    elif Path(f"conf/profile/{name}.yaml").is_file():
        paper = compose(name).report.paper
    return pages.read(Path("results") / name, paper)


if __name__ == "__main__":
    sys.exit(main())
