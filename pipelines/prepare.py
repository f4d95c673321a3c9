"""Prepare a profile's data: write them as plain arrays with a manifest of checksums and a data card."""

import argparse
import sys

from pipelines import _cli


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.prepare", description=__doc__, epilog="example: python -m pipelines.prepare"
    )
    parser.add_argument(
        "--profile-file", default="params.yaml", metavar="FILE", help="parameters (default: %(default)s)"
    )
    options = parser.parse_args(arguments)

    def action():
        from pipelines.data.preparation import prepare
        from pipelines.profile import load

        prepare(load(options.profile_file))

    return _cli.run(action)


if __name__ == "__main__":
    sys.exit(main())
