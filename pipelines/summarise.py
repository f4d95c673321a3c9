"""Collect a profile's runs into results/<profile>/*.csv, summary.json, chosen.json and metrics.json.

Exactly the runs of the profile are read, by name. A run that is missing, failed or malformed is an error unless the
profile sets `allow_missing: true`; it is then a hole: its row in runs.csv says why, and the method's numbers come from
the runs that remain. pipelines/evidence/schemas.py describes every file and column.

    python -m pipelines.summarise
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("summarise", __doc__)
    args = parser.parse_args(argv)

    from pipelines.evidence.summary import summarise
    from pipelines.profile import load

    summarise(load(args.profile_file))


if __name__ == "__main__":
    raise SystemExit(main())
