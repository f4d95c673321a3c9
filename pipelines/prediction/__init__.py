"""What one does with trained networks: predict new images, evaluate on labelled ones, export."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which networks. Loads nothing."""
    parser.add_argument("--method", required=True, help="a method of the profile")
    parser.add_argument(
        "--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds of the method"
    )
    parser.add_argument(
        "--merged", action=argparse.BooleanOptionalAction, default=True,
        help="CoLoRA's branches merged into the kernels (default), or beside them as in training",
    )  # fmt: skip
