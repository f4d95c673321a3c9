"""All a borrowed machine should do in one command: checks, costs, runs by their value; results are packed as they come.

The plan is a YAML list of waves, the most valuable first; all share the same workers, so nothing waits between two:

    - {profile_file: params.yaml, methods: [full, colora-blocks2-5], seeds: [0, 1, 2, 3, 4]}
    - {profile_file: params.yaml}                     # all that is left of it

Here, `python -m pipelines.pack data.tar.xz --without-code` packs what the code needs there, and there

    tar xf data.tar.xz
    python -m pipelines.campaign plan.yaml --out back.tar.gz --minutes 20 --per-gpu 8 --threads 2

checks that the GPU computes what a CPU does, and trains until the time is up. Every half minute, and at the end,
back.tar.gz is written anew with all that was made there. `tar xf back.tar.gz --keep-newer-files` in the project's
folder here, and the runs count. Trained weights stay in models/ there.
"""

from pathlib import Path

from pipelines import _cli
from pipelines.launching import campaign, launcher
from pipelines.launching.processes import Workers


@_cli.command
def main(argv=None):
    parser = _cli.parser("campaign", __doc__, profile_file=False)
    parser.add_argument("plan", type=Path, help="a YAML list of {profile_file, methods, seeds}")
    parser.add_argument(
        "--out", type=Path, default=Path("campaign.tar.gz"), help="archive of results: .tar, .tar.gz or .tar.xz"
    )
    parser.add_argument("--skip-checks", action="store_true", help="leave out tests/test_gpu.py")
    parser.add_argument("--cost", action="store_true", help="measure each profile's costs before its runs")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    launcher.add_pool_options(parser)
    args = parser.parse_args(argv)
    waves = campaign.read_plan(args.plan)
    if args.dry_run:
        return launcher.dry_run(waves)
    checks = {"checks": None} if args.skip_checks else {}
    return campaign.run(
        waves,
        lambda grid: Workers(jobs=args.jobs, per_gpu=args.per_gpu, threads=args.threads, memory_gib=args.memory),
        args.out, minutes=args.minutes, costs=args.cost, **checks,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
