"""Parameters and FLOPs of every method of a profile; needs no weights and computes nothing.

python -m pipelines.parameters --profile paper
"""

import json

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("parameters", __doc__, profile_file=False)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", help="a profile of conf/profile, whatever is active")
    which.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=4, help="outputs of the networks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    if args.classes < 1:
        parser.error(f"argument --classes: found {args.classes}, expected 1 or more")

    from pipelines.profile import compose, load
    from pipelines.training import counting

    counts = counting.count(compose(args.profile) if args.profile else load(args.profile_file), args.classes)
    print(json.dumps(counts, indent=1) if args.json else counting.table(counts))


if __name__ == "__main__":
    raise SystemExit(main())
