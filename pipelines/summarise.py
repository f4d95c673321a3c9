"""Collect a profile's runs into results/<profile>/*.csv, summary.json, chosen.json and metrics.json.

Exactly the runs of the profile are read, by name. A run that is missing, failed or malformed is an error unless the
profile sets `allow_missing: true`; it is then a hole: its row in runs.csv says why, and the method's numbers come from
the runs that remain. pipelines/evidence/schemas.py describes every file and column.

    python -m pipelines.summarise
"""

import argparse

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.summarise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    args = parser.parse_args(argv)

    def action() -> None:
        from pipelines.evidence.summary import summarise
        from pipelines.profile import load

        summarise(load(args.profile_file))

    return _cli.run(action)


if __name__ == "__main__":
    raise SystemExit(main())
