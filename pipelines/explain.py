"""Keep the pictures that the report shows: results/<profile>/explain.npz (Grad-CAM maps) and hard_scans.npz.

After `prepare` and `train` no other stage reads images. Run it with the runs and the prepared data in place.

    python -m pipelines.explain
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("explain", __doc__)
    args = parser.parse_args(argv)

    from pipelines.evidence.explaining import explain
    from pipelines.profile import load

    for path, shown in explain(load(args.profile_file)).items():
        print(f"{path}: {shown}")


if __name__ == "__main__":
    raise SystemExit(main())
