"""Train the missing and stale runs of the active profile in parallel: on this machine, or on a Ray cluster.

Methods whose learning rate is still to be chosen are tuned first. A failed run does not stop the others. Ctrl-C stops,
and the next launch continues; afterwards `dvc repro` records the runs without training. Exit status: 0 if all runs
are complete, 1 if any is not, 128 + the signal's number if stopped by one.

    python -m pipelines.launch --method full --method colora-blocks2-5 --seed 0 --seed 1
"""

import os

from pipelines import _cli
from pipelines.files.errors import UserError
from pipelines.launching import launcher
from pipelines.launching.grid import Wave
from pipelines.profile import load


@_cli.command
def main(argv=None):
    args = _parser().parse_args(argv)
    waves = [Wave(args.profile_file, load(args.profile_file), args.method, args.seed)]
    if args.dry_run:
        return launcher.dry_run(waves)
    return launcher.launch(waves, lambda grid: _pool(grid, args), minutes=args.minutes)


def _parser():
    parser = _cli.parser("launch", __doc__)
    parser.add_argument(
        "--method", action="append", help="a method (may be repeated); default: all methods of the profile"
    )
    parser.add_argument("--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    launcher.add_pool_options(parser)
    ray = parser.add_argument_group("on a Ray cluster (pip install '.[cluster]')")
    ray.add_argument("--ray", metavar="ADDRESS", help="'auto' (the cluster of this machine), HOST:PORT, or 'local'")
    ray.add_argument(
        "--shared", metavar="FOLDER", nargs="?", const=os.getcwd(),
        help="nodes read data and weights in this folder of theirs (default: this folder's path); "
        "without --shared they are sent once to each node",
    )  # fmt: skip
    return parser


def _pool(grid, args):
    if args.ray is None:
        from pipelines.launching.processes import Workers

        return Workers(jobs=args.jobs, per_gpu=args.per_gpu, threads=args.threads, memory_gib=args.memory)
    try:
        from pipelines.launching.cluster import Cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("--ray needs the package ray; `pip install '.[cluster]'`") from None
    return Cluster(grid, args)


if __name__ == "__main__":
    raise SystemExit(main())
