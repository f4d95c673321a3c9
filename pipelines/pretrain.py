"""Train the small backbones of the quick profile on another phantom domain, in place of ImageNet weights.

Writes each backbone's best-epoch state to weights/PROFILE/BACKBONE.safetensors.

    python -m pipelines.pretrain
"""

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("pretrain", __doc__)
    args = parser.parse_args(argv)

    from pipelines.profile import load
    from pipelines.training import pretraining

    pretraining.pretrain(load(args.profile_file))


if __name__ == "__main__":
    raise SystemExit(main())
