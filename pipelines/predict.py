"""Predict the classes of new images by a method's trained networks; several seeds are an ensemble.

A file that cannot be read is told, and the others go on; the exit status is then 1.

    python -m pipelines.predict --method colora --out predictions.csv new-scans
"""

import argparse
import sys
from pathlib import Path

from pipelines import _cli
from pipelines.prediction import add_options


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="images, or folders of them")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="default: %(default)s"
    )
    add_options(parser)
    args = parser.parse_args(argv)

    def action() -> int:
        from pipelines.prediction import predicting
        from pipelines.profile import load

        lost = predicting.predict(
            load(args.profile_file), args.method, args.places, args.out, seeds=args.seed, device=args.device,
            merged=args.merged,
        )  # fmt: skip
        return 1 if lost else 0

    return _cli.run(action)


if __name__ == "__main__":
    sys.exit(main())
