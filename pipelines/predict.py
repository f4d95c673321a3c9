"""Predict the classes of new images by a method's trained networks; several seeds are an ensemble.

A file that cannot be read is told, and the others go on; the exit status is then 1.

    python -m pipelines.predict --method colora --out predictions.csv new-scans
"""

from pathlib import Path

from pipelines import _cli
from pipelines.prediction import add_options


@_cli.command
def main(argv=None):
    parser = _cli.parser("predict", __doc__)
    parser.add_argument("places", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="images, or folders of them")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="default: %(default)s"
    )
    add_options(parser)
    _cli.add_device(parser)
    args = parser.parse_args(argv)

    from pipelines.prediction import ensemble
    from pipelines.profile import load

    lost = ensemble.write_predictions(
        load(args.profile_file), args.method, args.places, args.out, seeds=args.seed, device=args.device,
        merged=args.merged,
    )  # fmt: skip
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
