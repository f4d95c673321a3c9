"""CoLoRA: convolutional low-rank adaptation for any torch model with 2-D convolutions.

Source: M. Rivera and A. Hoyos, "CoLoRA: Parameter-Efficient Fine-Tuning for Convolutional Models", arXiv:2505.18315.
"""

from colora.config import ColoraConfig
from colora.conv import ColoraConv2d
from colora.inject import disable_adapter, inject, merge, merge_and_unload, reset, trainable_parameters, unmerge
from colora.saving import load_adapter, save_adapter

__version__ = "0.1.0"

__all__ = [
    "ColoraConfig",
    "ColoraConv2d",
    "disable_adapter",
    "inject",
    "load_adapter",
    "merge",
    "merge_and_unload",
    "reset",
    "save_adapter",
    "trainable_parameters",
    "unmerge",
]
