"""Choose each method's learning rate on validation images: the same rates, epochs and seeds (`tune`) for every method.

Trials are recorded in results/PROFILE/tune/METHOD.json; a method whose trials are there already is kept.

    python -m pipelines.tune --method full
"""

import sys

from pipelines import _cli
from pipelines.files.errors import UserError


@_cli.command
def main(argv=None):
    parser = _cli.parser("tune", __doc__)
    parser.add_argument("--method", action="append", help="a method (may be repeated); default: all of the profile")
    _cli.add_device(parser)
    args = parser.parse_args(argv)

    from pipelines.profile import load
    from pipelines.training import checking, tuning

    params, failed = load(args.profile_file), 0
    methods = args.method or params.method
    if left := [method for method in methods if not tuning.is_chosen(params, method)]:
        checking.check(params, left, args.device)
    for method in methods:  # one method's failure does not cost the others their trials
        try:
            tuning.tune_method(params, method, args.device)
        except UserError as error:
            failed += 1
            print(f"error: {method}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
