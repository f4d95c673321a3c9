"""Train the runs of a method, one a seed, at the learning rate that `pipelines.tune` chose or the profile states.

A run whose record already carries the right fingerprint is left as it is, so this is safe to repeat, and runs may come
from elsewhere. Under torchrun one run is trained on several GPUs.

    python -m pipelines.train --method colora-blocks2-5 --seed 0
"""

import contextlib
import os
import sys

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("train", __doc__)
    parser.add_argument("--method", required=True, help="a method of the profile")
    parser.add_argument(
        "--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds of the method"
    )
    _cli.add_device(parser)
    args = parser.parse_args(argv)

    from pipelines.profile import load
    from pipelines.training import checking, runner

    params = load(args.profile_file)
    checking.warn_of_slow_precision(params, [args.method], args.device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:  # torch is imported only where a run is missing
        return runner.run_method(params, args.method, args.seed, args.device)
    from pipelines.training import parallel

    with (
        parallel.group(),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere if parallel.rank() > 0 else sys.stdout),
    ):
        return runner.run_method(params, args.method, args.seed, args.device)


if __name__ == "__main__":
    raise SystemExit(main())
