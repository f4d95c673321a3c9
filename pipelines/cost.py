"""Measure what training and running every method costs, with nothing else running on the machine.

Writes results/<profile>/cost.csv, cost_growth.csv, cost_layers.csv and cost.json; interrupted, it goes on where it was.

    python -m pipelines.cost --method colora-blocks2-5
"""

import argparse

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: the GPU if there is one")
    parser.add_argument(
        "--method",
        action="append",
        help="only this method and what stands beside it (repeatable): printed, not written",
    )
    args = parser.parse_args(argv)

    def action() -> None:
        from pipelines.costs import costing
        from pipelines.profile import load

        costing.run(load(args.profile_file), args.device, args.method)

    return _cli.run(action)


if __name__ == "__main__":
    raise SystemExit(main())
