"""Parameters and FLOPs of every method of a profile; needs no weights and computes nothing.

python -m pipelines.parameters --profile paper
"""

import argparse
import json
import sys

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.parameters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--profile", help="a profile of conf/profile, whatever is active")
    which.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=4, help="outputs of the networks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)

    def action():
        from pipelines.profile import compose, load
        from pipelines.training import counting

        counts = counting.count(compose(args.profile) if args.profile else load(args.profile_file), args.classes)
        print(json.dumps(counts, indent=1) if args.json else counting.table(counts))

    return _cli.run(action)


if __name__ == "__main__":
    sys.exit(main())
