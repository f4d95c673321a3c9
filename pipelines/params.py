"""Compose params.yaml from conf/, as `dvc exp run -S profile=NAME` does, and build every method once without memory.

python -m pipelines.params quick
python -m pipelines.params --schema train
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("params", __doc__, profile_file=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("profile", nargs="?", help="a profile of conf/profile")
    what.add_argument(
        "--schema", nargs="?", const="", metavar="KEY", help="print keys with type, default and meaning: KEY's, or all"
    )
    what.add_argument(
        "--update", action="store_true", help="write docs/parameters.md and conf/defaults.yaml after the schema changed"
    )
    args = parser.parse_args(argv)

    if args.profile is not None:
        from pipelines.profile import load, write
        from pipelines.training import checking

        write(args.profile)
        checking.check(load())
        return
    from pipelines.profile import describing

    if args.update:
        describing.update()
    else:
        print(describing.text(args.schema))


if __name__ == "__main__":
    raise SystemExit(main())
