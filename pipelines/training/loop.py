"""The training loop: one network, one split, one seed; best epoch by validation; resumes from its last epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.data.images import Batches, Features
from pipelines.files.errors import UserError
from pipelines.profile import Train
from pipelines.runs.metrics import accuracy, balanced_accuracy, macro_auc
from pipelines.training import checkpoint as checkpoints
from pipelines.training import parallel
from pipelines.training.checkpoint import Fit
from pipelines.training.loaders import Loaders
from pipelines.training.step import Loss, autocast, make_optimizer, make_schedule, seed_everything


class Diverged(UserError):
    """The loss is no longer a number; the message says in which epoch."""


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split in its own order: labels (N,), softmax probabilities (N, C), and their mean loss."""

    labels: np.ndarray
    probabilities: np.ndarray
    loss: float

    def scores(self) -> dict[str, float]:
        return {
            "acc": float(accuracy(self.labels, self.probabilities)),
            "balanced_acc": float(balanced_accuracy(self.labels, self.probabilities)),
            "auc": float(macro_auc(self.labels, self.probabilities)),
            "loss": self.loss,
        }


def fit(
    model: torch.nn.Module,
    loaders: Loaders,
    recipe: Train,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    identity: str = "",
    on_epoch: Callable[[dict], None] = lambda row: None,
) -> Fit:
    """Train for the recipe's epochs; `Fit.best_state` is the epoch that `recipe.select` finds best on validation images.

    Args:
        model: a network already on the device; changed in place, and left as it is after the last epoch.
        seed: with the epoch's number decides order and augmentation, so a resumed run equals an unbroken one.
        checkpoint: written after every epoch, read at the start when it carries the same `identity`.
        on_epoch: called with each new row of the curves.

    Raises:
        Diverged: the training loss of an epoch is not finite.
    """
    optimizer = make_optimizer(model, recipe, device)
    schedule = make_schedule(optimizer, recipe, steps=len(loaders.train) * recipe.epochs)
    state = checkpoints.resume(checkpoint, identity, model, optimizer, schedule)
    replica = parallel.Replica(model, device, micro_batch=recipe.micro_batch, compile=recipe.compile)
    loss = Loss(recipe, loaders.counts)
    after_epoch = getattr(model, "epoch_end", None)  # what a method does between epochs, such as merging

    while not _is_over(state, recipe):
        epoch = len(state.curves) + 1
        lr = optimizer.param_groups[0]["lr"]
        batches = loaders.train.shuffled(seed_everything(seed, epoch))
        seconds, train_loss, train_acc = one_epoch(
            replica, batches, optimizer, schedule, recipe, device, loss, loaders.train.options
        )
        if not math.isfinite(train_loss):
            raise Diverged(
                f"training loss is {train_loss} in epoch {epoch}; lower method.NAME.train.lr (now {recipe.lr:g})"
            )
        if after_epoch:
            after_epoch(model)
            replica.agree()
        val = evaluate(model, loaders.val, recipe, device).scores()
        row = {"epoch": epoch, "lr": lr, "train_loss": train_loss, "train_acc": train_acc}
        row |= {f"val_{name}": val[name] for name in ("loss", "acc", "balanced_acc", "auc")} | {"epoch_s": seconds}
        state.curves.append(row)
        if best_epoch(state.curves, recipe.select) == epoch:
            state.best_epoch = epoch
            state.best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if checkpoint and epoch < recipe.epochs and parallel.rank() == 0:
            checkpoints.save(checkpoint, identity, model, optimizer, schedule, state)
        on_epoch(row)
    return state


def one_epoch(replica, batches, optimizer, schedule, recipe: Train, device, loss: Loss, options=None):
    """Train on the batches; returns seconds, mean loss, accuracy. Sums stay on the device: one read at the end.

    Args:
        replica: the network, a `parallel.Replica`. batches: of (images, labels) on the device.
        schedule: stepped after every batch, or None. options: what the network is called with beside the images.
    """
    replica.model.train()
    total_loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device, dtype=torch.long)
    count = 0

    def loss_of(network, images, labels):
        with autocast(recipe, device):
            logits = network(images, **(options or {}))
        return loss(logits.float(), labels), logits

    start = _now(device)
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        for part_loss, logits, own_labels in replica.accumulate(images, labels, loss_of):
            total_loss += part_loss * len(own_labels)
            correct += (logits.argmax(1) == own_labels).sum()
        optimizer.step()
        if schedule:
            schedule.step()
        count += len(labels)
    total_loss, correct = parallel.total(total_loss, correct)
    mean_loss, acc = total_loss.item() / count, correct.item() / count
    return _now(device) - start, mean_loss, acc


def evaluate(
    model: torch.nn.Module, batches: Batches | Features, recipe: Train, device: torch.device, **order
) -> Evaluation:
    """The network on every image of the batches' split, in `batches.in_order(**order)`, as the epoch left it.

    The loss has no class weights. Probabilities are softmax of the logits also under binary cross-entropy, so that they
    sum to one.

    Raises:
        Diverged: the loss is not finite.
    """
    model.eval()
    logits, labels = [], []
    with torch.inference_mode(), autocast(recipe, device):
        for images, batch_labels in batches.in_order(**order):
            logits.append(model(images, **batches.options).float())
            labels.append(batch_labels)
    logits, labels = torch.cat(logits).float(), torch.cat(labels)
    loss = Loss(recipe.model_copy(update={"class_weights": None}))(logits, labels).item()
    if not math.isfinite(loss):
        raise Diverged(f"evaluation loss is {loss}; lower method.NAME.train.lr (now {recipe.lr:g})")
    return Evaluation(labels.cpu().numpy(), logits.softmax(1).cpu().numpy(), loss)


def best_epoch(curves: list[dict], select: str) -> int:
    """The number of the first of the best epochs: by the validation score named, ties by the lower loss."""

    def merit(row):
        return (-row["val_loss"],) if select == "loss" else (row[f"val_{select}"], -row["val_loss"])

    return max(curves, key=merit)["epoch"]


def _is_over(state: Fit, recipe: Train) -> bool:
    done = len(state.curves)
    return done >= recipe.epochs or (recipe.patience is not None and done - state.best_epoch >= recipe.patience)


def _now(device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
