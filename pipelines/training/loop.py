"""The training loop: one network, one split, one seed; best epoch by validation; resumes from its last epoch."""

import io
import math
import os
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import baselines
from pipelines.data.images import Batches, Features, Prepared, open_prepared
from pipelines.files import records
from pipelines.profile import Params, train_split
from pipelines.runs.metrics import accuracy, macro_auc
from pipelines.training import parallel

FEATURES = 2**30  # bytes of features that a run on a CPU keeps

OutOfMemoryError = torch.OutOfMemoryError


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says in which epoch."""


@dataclass
class Fit:
    """What training leaves: a row an epoch, and the state of the best one."""

    curves: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split in its own order: labels (N,), softmax probabilities (N, C), and their scores."""

    labels: np.ndarray
    probabilities: np.ndarray
    loss: float
    acc: float
    auc: float

    def scores(self) -> dict:
        return {"acc": self.acc, "auc": self.auc, "loss": self.loss}


def set_up(params: Params, method: str, seed: int, settings: dict, device: str | None = None):
    """The device, the prepared data with the seed's splits, and the method's network there, initialised by the seed."""
    device = pick_device(device, deterministic=settings["train"]["deterministic"])
    data = open_prepared(params.data_dir, seed, device, train_split(settings["train"]))
    seed_everything(seed, 0)
    model = baselines.build(method, settings, num_classes=len(data.classes), image_size=data.image_size)
    return device, data, model.to(device, memory_format=torch.channels_last)


def pick_device(name: str | None, *, deterministic: bool):
    """The torch device to train on; `deterministic` also switches torch to its reproducible kernels there."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "cuda":
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


def fit(
    model: torch.nn.Module,
    data: Prepared,
    train: dict,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    identity: str = "",
    on_epoch: Callable[[dict], None] = lambda row: None,
) -> Fit:
    """Train for `train["epochs"]` epochs; `Fit.best_state` is the epoch with the best validation accuracy.

    Args:
        model: a network already on the device; changed in place, and left as it is after the last epoch.
        train: the keys of `pipelines.profile.Train`.
        seed: with the epoch's number decides order and augmentation, so a resumed run equals an unbroken one.
        checkpoint: written after every epoch, read at the start when it carries the same `identity`.
        on_epoch: called with each new row of the curves.

    Raises:
        Diverged: the training loss of an epoch is not finite.
    """
    batches = batches_of(
        data, train_split(train), train, device, batch_size=train["batch_size"], augment=train["augment"]
    )
    validation = behind_front(model, batches_of(data, "val", train, device), train, device)
    if train["augment"] == "none":
        batches = behind_front(model, batches, train, device)
    optimizer = make_optimizer(model, train, device)
    schedule = _schedule(optimizer, train, steps=len(batches) * train["epochs"])
    state = _resume(checkpoint, identity, model, optimizer, schedule)
    epoch_end = getattr(model, "epoch_end", None)  # what a method does between epochs, such as merging
    replica = parallel.Replica(model, device, micro_batch=train["micro_batch"], compile=train["compile"])

    for epoch in range(len(state.curves) + 1, train["epochs"] + 1):
        generator = seed_everything(seed, epoch)
        lr = optimizer.param_groups[0]["lr"]
        seconds, loss, acc = one_epoch(
            replica, batches.shuffled(generator), optimizer, schedule, train, device, batches.options
        )
        if not math.isfinite(loss):
            raise Diverged(
                f"training loss is {loss} in epoch {epoch}; lower method.NAME.train.lr (now {train['lr']:g})"
            )
        if epoch_end:
            epoch_end(model)
            replica.agree()
        val = evaluate(model, validation, train, device)
        row = {
            "epoch": epoch, "lr": lr, "train_loss": loss, "train_acc": acc,
            "val_loss": val.loss, "val_acc": val.acc, "val_auc": val.auc, "epoch_s": seconds,
        }  # fmt: skip
        state.curves.append(row)
        if _is_best(state.curves):
            state.best_epoch = epoch
            state.best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if checkpoint and epoch < train["epochs"] and parallel.rank() == 0:
            _save(checkpoint, identity, model, optimizer, schedule, state)
        on_epoch(row)
    return state


def one_epoch(replica, batches, optimizer, schedule, train, device, options=None) -> tuple[float, float, float]:
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
        with autocast(train, device):
            logits = network(images, **(options or {}))
        return _loss(logits.float(), labels, train["loss"]), logits

    start = _now(device)
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        for loss, logits, own_labels in replica.accumulate(images, labels, loss_of):
            total_loss += loss * len(own_labels)
            correct += (logits.argmax(1) == own_labels).sum()
        optimizer.step()
        if schedule:
            schedule.step()
        count += len(labels)
    total_loss, correct = parallel.total(total_loss, correct)
    loss, acc = total_loss.item() / count, correct.item() / count
    return _now(device) - start, loss, acc


def test(model: torch.nn.Module, fit: Fit, data: Prepared, train: dict, device: torch.device) -> Evaluation:
    """The best epoch's network on the test split, which is looked at here and nowhere else."""
    model.load_state_dict(fit.best_state)
    return evaluate_split(model, data, "test", train, device)


def evaluate(
    model: torch.nn.Module, batches: Batches | Features, train: dict, device: torch.device, **order
) -> Evaluation:
    """Loss, accuracy and macro AUC of the network on every image of the batches' split, in `batches.in_order(**order)`.

    Probabilities are softmax of the logits also under binary cross-entropy, so that they sum to one.
    """
    model.eval()
    logits, labels = [], []
    with torch.inference_mode(), autocast(train, device):
        for images, batch_labels in batches.in_order(**order):
            logits.append(model(images, **batches.options).float())
            labels.append(batch_labels)
    logits, labels = torch.cat(logits).float(), torch.cat(labels)
    loss = _loss(logits, labels, train["loss"]).item()
    probabilities = logits.softmax(1).cpu().numpy()
    labels = labels.cpu().numpy()
    if not math.isfinite(loss):
        raise Diverged(f"evaluation loss is {loss}; lower method.NAME.train.lr (now {train['lr']:g})")
    return Evaluation(
        labels, probabilities, loss, float(accuracy(labels, probabilities)), float(macro_auc(labels, probabilities))
    )


def evaluate_split(model, data: Prepared, split: str, train: dict, device: torch.device, **options) -> Evaluation:
    """`evaluate` on one split of the data, unaugmented, in the split's own order."""
    return evaluate(model, batches_of(data, split, train, device), train, device, **options)


def behind_front(model, batches: Batches, train: dict, device: torch.device) -> Batches | Features:
    """The batches as they leave the layers in front that training does not change, computed once and without a graph.

    They stay images where there are no such layers, or where the features would take more than an eighth of the GPU's
    memory or than is free there, on a CPU more than `FEATURES`. Where batches are of another size than those in which
    the features are made, sums may be rounded otherwise.
    """
    model.train()
    count = model.frozen_depth() if hasattr(model, "frozen_depth") else 0
    if not count:
        return batches
    limit = torch.cuda.get_device_properties(device).total_memory // 8 if device.type == "cuda" else FEATURES
    whole = batches_of(batches.data, batches.split, train, device)

    @torch.no_grad()
    def front(images):
        with autocast(train, device):
            return model.forward_features(images, count)

    try:
        return Features(whole, front, options={"from_depth": count}, batch_size=batches.batch_size, limit=limit)
    except (MemoryError, OutOfMemoryError):
        return batches


def autocast(train: dict, device: torch.device):
    """bfloat16 autocast where the recipe asks for it, on a CPU too: new ones have instructions for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=train["precision"] == "bfloat16")


def batches_of(
    data: Prepared, split: str, train: dict, device: torch.device, batch_size: int | None = None, augment: str = "none"
) -> Batches:
    """The batches of a split as the recipe has them: for evaluation, where no size is given."""
    return Batches(
        data,
        split,
        batch_size=batch_size or train["eval_batch_size"],
        input=train["input"],
        device=device,
        augment=augment,
    )


def _loss(logits, labels, kind):
    if kind == "binary-cross-entropy":
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))
    return F.cross_entropy(logits, labels)


def make_optimizer(model: torch.nn.Module, train: dict, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer of what trains in the network."""
    cls = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[train["optimizer"]]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return cls(parameters, lr=train["lr"], weight_decay=train["weight_decay"], fused=device.type == "cuda")


def _schedule(optimizer, train, steps):
    if train["schedule"] == "constant":
        return None
    if train["schedule"] == "step":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4])
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=train["lr"], total_steps=steps)


def _is_best(curves) -> bool:
    """The last row beats all before: higher validation accuracy, or the same with lower loss."""
    merit = [(row["val_acc"], -row["val_loss"]) for row in curves]
    return all(merit[-1] > earlier for earlier in merit[:-1])


def _now(device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _save(path, identity, model, optimizer, schedule, state):
    content = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict() if schedule else None,
        "curves": state.curves,
        "best_epoch": state.best_epoch,
        "best_state": state.best_state,
    }
    records.write_atomically(path, lambda file: torch.save(content, file))


def _resume(path, identity, model, optimizer, schedule) -> Fit:
    content = _read(path) if path and path.is_file() else None
    if content is None or content["identity"] != identity:  # of other settings, data or code: start over
        return Fit()
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    if schedule:
        schedule.load_state_dict(content["schedule"])
    return Fit(content["curves"], content["best_epoch"], content["best_state"])


def _read(path) -> dict | None:
    """A checkpoint every part of which has its checksum, at which torch.load does not look; a damaged one goes.

    Raises:
        OSError, MemoryError: the disk or the memory fails, which says nothing of the file; it stays.
    """
    file = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} does not have its checksum")
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        content["identity"]  # of this kind at all
        return content
    except MemoryError:
        raise
    except Exception as error:  # zipfile and torch raise many types for damaged files
        print(f"warning: {path}: a damaged checkpoint ({error}); training starts over", file=sys.stderr)
        path.unlink(missing_ok=True)
        return None
