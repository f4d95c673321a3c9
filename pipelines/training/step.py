"""What one step of training is made of: device, random numbers, precision, loss, optimizer and schedule."""

import os

import numpy as np
import torch
from torch.nn import functional as F

from pipelines.profile import Train


def pick_device(name: str | None, *, deterministic: bool) -> torch.device:
    """The torch device to train on; `deterministic` also switches torch to its reproducible kernels there."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # by default every new tensor is filled with NaN
        torch.backends.cudnn.benchmark = not deterministic
    return device


def seed_everything(seed: int, *more: int) -> torch.Generator:
    """Seed torch's global generators and return a CPU generator of its own, both from (seed, *more)."""
    words = np.random.SeedSequence([seed, *more]).generate_state(2, dtype=np.uint64)
    torch.manual_seed(int(words[0]))
    return torch.Generator().manual_seed(int(words[1]))


def autocast(recipe: Train, device: torch.device) -> torch.autocast:
    """bfloat16 autocast where the recipe asks for it, on a CPU too."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


class Loss:
    """Mean loss of float32 logits (N, C) and labels (N,) as the recipe has it.

    Args:
        counts: training images of each class, (C,) on the device; needed for `class_weights: balanced` alone.

    With class weights w the mean is weighted, sum_n w_n l_n / sum_n w_n, as in torch's cross_entropy.
    """

    def __init__(self, recipe: Train, counts: torch.Tensor | None = None):
        self.recipe, self.weight = recipe, None
        if recipe.class_weights == "balanced":
            self.weight = counts.sum() / (len(counts) * counts.clamp(min=1).float())
        elif recipe.class_weights is not None:
            self.weight = torch.tensor(recipe.class_weights)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weight = None if self.weight is None else self.weight.to(logits)
        smoothing = self.recipe.label_smoothing
        if self.recipe.loss == "cross-entropy":
            return F.cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
        classes = logits.shape[1]
        targets = F.one_hot(labels, classes).to(logits.dtype) * (1 - smoothing) + smoothing / classes
        if weight is None:
            return F.binary_cross_entropy_with_logits(logits, targets)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        return (each * weight[labels]).sum() / weight[labels].sum()


def make_optimizer(model: torch.nn.Module, recipe: Train, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer of the network's trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": device.type == "cuda"}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, **options)
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer](parameters, **options)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Train, steps: int):
    """The recipe's learning-rate schedule over so many steps; None for a constant rate."""
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == "constant":
        return None
    if recipe.schedule == "step":
        return schedules.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4])
    if recipe.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, T_max=steps)
    return schedules.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=steps)
