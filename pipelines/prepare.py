"""Prepare a profile's data: write them as plain arrays with a manifest of checksums and a data card.

python -m pipelines.prepare
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    args = _cli.parser("prepare", __doc__).parse_args(argv)

    from pipelines.data.preparation import prepare
    from pipelines.profile import load

    prepare(load(args.profile_file))


if __name__ == "__main__":
    raise SystemExit(main())
