"""Plan a profile's GPU hours from the step times that `python -m pipelines.cost` measured; trains nothing.

python -m pipelines.plan --profile paper --gpus 1 8 64
"""

from pathlib import Path

from pipelines import _cli
from pipelines.launching.launcher import positive


@_cli.command
def main(argv=None):
    parser = _cli.parser("plan", __doc__, profile_file=False)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", help="a profile of conf/profile, whatever is active")
    which.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument(
        "--gpus", type=positive(int), nargs="+", default=[1, 8, 64], metavar="N", help="default: 1 8 64"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="also write the tables: FILE.csv, FILE_gpus.csv")
    args = parser.parse_args(argv)

    from pipelines.costs import forecast
    from pipelines.profile import compose, load

    params = compose(args.profile) if args.profile else load(args.profile_file)
    forecast.forecast(params, gpus=args.gpus, out=args.out)


if __name__ == "__main__":
    raise SystemExit(main())
