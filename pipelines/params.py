"""Compose params.yaml from conf/, as `dvc exp run -S profile=NAME` does."""

import argparse

from pipelines import _cli
from pipelines.profile import write


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.params", description=__doc__)
    parser.add_argument("profile", help="a profile of conf/profile")
    args = parser.parse_args(argv)
    return _cli.run(lambda: write(args.profile))


if __name__ == "__main__":
    raise SystemExit(main())
