"""One run on several processes, and a batch in several pieces: the same batches and, up to rounding, the same numbers.

`torchrun --nproc-per-node N -m pipelines.train ...` starts N processes. Each computes the gradient of its own rows of
every batch, torch's DistributedDataParallel averages them, and rank 0 alone writes. Order and augmentation are drawn
for the whole batch by every process alike.
"""

import os
from contextlib import contextmanager, nullcontext

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def size() -> int:
    """Processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 where there is one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def group():
    """Join the processes that torchrun started, by NCCL on GPUs and by gloo on CPUs; does nothing without torchrun."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


class Replica:
    """A network as this process trains it: `accumulate` adds the gradient of a batch's mean loss to its parameters.

    Raises:
        ValueError: BatchNorm statistics that training updates see a part of each batch only, so that the numbers would
            differ from those of whole batches (on GPUs several processes synchronise them).
    """

    def __init__(self, model: nn.Module, device: torch.device, *, micro_batch: int | None, compile: bool):
        self.model, self.micro_batch = model.train(), micro_batch
        self._check_statistics(device)
        self.replicated = None
        self.network = model
        if size() > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.network = self.replicated = DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
        if compile:
            self.network = torch.compile(self.network)

    def _check_statistics(self, device):
        moving = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        if not moving:
            return
        if self.micro_batch:
            raise ValueError(
                f"train.micro_batch is {self.micro_batch}, but this method updates BatchNorm statistics in training, "
                "which need the whole batch; leave it out and lower train.batch_size"
            )
        if size() > 1:
            if device.type != "cuda":
                raise ValueError(
                    f"{size()} processes on a CPU, but this method updates BatchNorm statistics in training, which torch "
                    "synchronises on GPUs only; use one process"
                )
            synchronise_statistics(self.model)

    def accumulate(self, images, labels, loss_of) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Add the gradient of a batch's mean loss; `loss_of(network, images, labels)` gives (mean loss, logits).

        Returns (loss, logits, labels) of each piece that this process computed, cut off from their graphs.
        """
        whole = len(labels)
        # Where there are fewer rows than processes, one without its own takes part with a row that counts nothing.
        own = slice(rank(), None, size()) if rank() < whole else slice(0, 1)
        images, labels = images[own], labels[own]
        step = self.micro_batch or len(labels)
        starts = range(0, len(labels), step)
        done = []
        for start in starts:
            part = slice(start, start + step)
            with nullcontext() if self.replicated is None or start == starts[-1] else self.replicated.no_sync():
                loss, logits = loss_of(self.network, images[part], labels[part])
                # Processes' gradients are averaged, so each counts as many times as there are processes.
                share = len(labels[part]) / whole * size() if rank() < whole else 0
                (loss * share).backward()
            if share:
                done.append((loss.detach(), logits.detach(), labels[part]))
        return done

    def agree(self) -> None:
        """Rank 0's parameters and buffers to all, after something drew random numbers of its own."""
        if size() > 1:
            for tensor in self.model.state_dict().values():
                distributed.broadcast(tensor, 0)


def synchronise_statistics(model: nn.Module) -> None:
    """Turn the BatchNorms within a network into ones that see the batches of all processes, in place.

    By timm, some of whose BatchNorms hold an activation, which torch's own conversion leaves out.
    """
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(model)


def total(*sums: torch.Tensor) -> list[torch.Tensor]:
    """Each scalar summed over the processes."""
    if size() > 1:
        for value in sums:
            distributed.all_reduce(value)
    return list(sums)
