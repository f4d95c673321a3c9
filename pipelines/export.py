"""Export the trained network of one run as a file that runs without this suite; CoLoRA's branches are merged.

torch: a program that `torch.export.load(FILE).module()` runs. onnx: checked against ONNX Runtime before it is written.
Both take float32 images (B, 3, H, W), RGB in 0..1, and give class probabilities.

    python -m pipelines.export --method colora --seed 0 --format onnx --out colora.onnx
"""

from pathlib import Path

from pipelines import _cli


@_cli.command
def main(argv=None):
    parser = _cli.parser("export", __doc__)
    parser.add_argument("--method", required=True, help="a method of the profile")
    parser.add_argument("--seed", type=int, required=True, help="of the run")
    parser.add_argument("--format", choices=("torch", "onnx"), required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to")
    args = parser.parse_args(argv)

    from pipelines.prediction import exporting
    from pipelines.profile import load

    exporting.export(load(args.profile_file), args.method, args.seed, args.format, args.out)


if __name__ == "__main__":
    raise SystemExit(main())
