"""Keep the pictures that the report shows: results/<profile>/explain.npz (Grad-CAM maps) and hard_scans.npz.

After `prepare` and `train` no other stage reads images. Run it with the runs and the prepared data in place.

    python -m pipelines.explain
"""

import argparse

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    args = parser.parse_args(argv)

    def action() -> None:
        from pipelines.evidence.explaining import explain
        from pipelines.profile import load

        for path, shown in explain(load(args.profile_file)).items():
            print(f"{path}: {shown}")

    return _cli.run(action)


if __name__ == "__main__":
    raise SystemExit(main())
