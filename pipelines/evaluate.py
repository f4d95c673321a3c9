"""Evaluate a method's trained networks on labelled images: class folders, or a CSV file with columns image,label.

Their classes must be those trained on; patients are read from names by --pattern, so that intervals are over patients.
A file that cannot be read is told, and the others go on; the exit status is then 1.

    python -m pipelines.evaluate --method colora --folder other-clinic --out evaluation.csv
"""

from pathlib import Path

from pipelines import _cli
from pipelines.prediction import add_options


@_cli.command
def main(argv=None):
    parser = _cli.parser("evaluate", __doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, metavar="PLACE", help="class folders, or a CSV file of images and labels"
    )
    parser.add_argument(
        "--pattern",
        help="a regular expression whose group `patient` is in the names (default: the profile's; '' for none)",
    )
    parser.add_argument("--follow-links", action="store_true", help="links may lead out of the folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there as CSV too")
    add_options(parser)
    _cli.add_device(parser)
    args = parser.parse_args(argv)

    from pipelines.prediction import evaluating
    from pipelines.profile import load

    lost = evaluating.evaluate(
        load(args.profile_file), args.method, args.folder, args.out, pattern=args.pattern,
        follow_links=args.follow_links, seeds=args.seed, device=args.device, merged=args.merged,
    )  # fmt: skip
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
