"""Plan a profile's GPU hours from the step times that `python -m pipelines.cost` measured; trains nothing.

python -m pipelines.plan --profile paper --gpus 1 8 64
"""

import argparse
from pathlib import Path

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", help="a profile of conf/profile, whatever is active")
    which.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--gpus", type=_positive, nargs="+", default=[1, 8, 64], metavar="N", help="default: 1 8 64")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="also write the tables: FILE.csv, FILE_gpus.csv")
    args = parser.parse_args(argv)

    def action() -> None:
        from pipelines.costs import forecast
        from pipelines.profile import compose, load

        params = compose(args.profile) if args.profile else load(args.profile_file)
        forecast.forecast(params, gpus=args.gpus, out=args.out)

    return _cli.run(action)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
