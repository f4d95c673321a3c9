"""Train the small backbones of the quick profile on another phantom domain, as ImageNet weights stand to OCT images.

Writes each backbone's best-epoch state to weights/PROFILE/BACKBONE.safetensors.

    python -m pipelines.pretrain
"""

import argparse
import sys

from pipelines import _cli


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    args = parser.parse_args(argv)

    def action():
        from pipelines.profile import load
        from pipelines.training import pretraining

        pretraining.pretrain(load(args.profile_file))

    return _cli.run(action)


if __name__ == "__main__":
    sys.exit(main())
