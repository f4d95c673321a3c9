"""Measure what training and running every method costs, with nothing else running on the machine.

Writes results/<profile>/cost.csv, cost_growth.csv, cost_layers.csv and cost.json; interrupted, it goes on where it was.
Costs that are there for the same settings and code are kept, though another machine measured them.

    python -m pipelines.cost --method colora-blocks2-5
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("cost", __doc__)
    _cli.add_device(parser)
    parser.add_argument(
        "--method",
        action="append",
        help="only this method and what stands beside it (repeatable): printed, not written",
    )
    parser.add_argument("--again", action="store_true", help="measure what was measured before")
    args = parser.parse_args(argv)

    from pipelines.costs import costing
    from pipelines.profile import load

    costing.run(load(args.profile_file), args.device, args.method, again=args.again)


if __name__ == "__main__":
    raise SystemExit(main())
