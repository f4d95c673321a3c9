"""Contenders set up for measuring, and the figures that come of their rounds and processes."""

import copy
import functools
import math
import statistics

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm

import colora
from colora.conv import ColoraConv2d
from pipelines.costs import contenders, measure
from pipelines.costs.contenders import Contender
from pipelines.costs.measure import MIB, NAN, median_interval, process_interval, with_limits
from pipelines.data.images import Batches, Prepared
from pipelines.training import loop, parallel, step
from pipelines.training.loaders import batches_of

WARM_UP = 3  # steps, for kernels to be chosen and the optimizer's state to be there
# Of no weight for the cost of a step; small, so that training on noise for a while leaves all numbers ordinary ones.
LR = 1e-6


class Bench:
    """A contender's network, optimizer and one batch of noise, warmed up.

    Steps are those of `loop`, on the same batch over and over, without a schedule; a method also takes "fed" ones, on
    batches that the loop gathers from grey images, augments and normalises. Inference is as in `loop.evaluate`, weights
    being cast anew in every call: `merged` is the network after `colora.merge_and_unload`, None where nothing merges or
    where `inference_batch` is 0. Of a compiled contender the training step alone is measured, and `inference_batch` 0.
    """

    def __init__(
        self, contender: Contender, device: torch.device, *, num_classes: int, block_s: float, inference_batch: int
    ):
        self.contender, self.device, self.block_s = contender, device, block_s
        self.train = contender.train.model_copy(update={"lr": LR})
        self.inference_batch = inference_batch = 0 if self.train.compile else inference_batch
        step.seed_everything(0)
        self.model = contenders.build(contender, num_classes).to(device, memory_format=torch.channels_last)
        self.trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.merged = None
        if inference_batch and not contender.form and any(isinstance(m, ColoraConv2d) for m in self.model.modules()):
            self.merged = colora.merge_and_unload(copy.deepcopy(self.model))
        self.images, self.labels = self._batch(self.train.batch_size, num_classes)
        self.loss = step.Loss(self.train, torch.nn.functional.one_hot(self.labels, num_classes).sum(0))
        self.optimizer = step.make_optimizer(self.model, self.train, device)
        self.replica = parallel.Replica(
            self.model, device, micro_batch=self.train.micro_batch, compile=self.train.compile
        )
        self.steps(WARM_UP)
        self.block = measure.times_for(block_s, self.steps(1))
        several = self.train.batch_size > 1  # a last batch of one image would join the one before
        self.fed = self._fed(num_classes) if inference_batch and contender.role == "method" and several else None
        self.requests = dict(self._requests(inference_batch)) if inference_batch else {}

    def _batch(self, size, num_classes):
        size = (size, 3, self.contender.image_size, self.contender.image_size)
        images = torch.randn(size, device=self.device).contiguous(memory_format=torch.channels_last)
        return images, torch.arange(size[0], device=self.device) % num_classes

    def _fed(self, num_classes) -> Batches:
        """Batches of as many random grey uint8 images as a block of steps takes, kept on the device."""
        count, size = self.block * self.train.batch_size, self.contender.image_size
        images = torch.randint(256, (count, size, size), dtype=torch.uint8, device=self.device)
        labels = torch.arange(count, device=self.device) % num_classes
        data = Prepared(images, labels, {"train": np.arange(count)}, [str(c) for c in range(num_classes)])
        return batches_of(data, "train", self.train, self.device, training=True)

    def steps(self, count: int, batches=None) -> float:
        """Seconds a training step, the mean of `count` without waiting for the device in between; on one batch over and
        over, where none are given.
        """
        batches = batches or [(self.images, self.labels)] * count
        return self._epoch(self.replica, batches)[0] / count

    def _epoch(self, replica, batches):
        return loop.one_epoch(replica, batches, self.optimizer, None, self.train, self.device, self.loss)

    def peak_bytes(self) -> int:
        """Peak memory of a training step, network, optimizer's state and batch included."""
        self.optimizer.zero_grad(set_to_none=True)
        resident = measure.resident_bytes(self.model, self.optimizer, self.images, self.labels)
        # Two steps, for the second starts with what the first leaves, whenever the loop drops old gradients.
        return measure.peak_bytes(lambda: self.steps(2), self.device, resident)

    def flops(self) -> tuple[int, int]:
        """Of the forward pass of one image, and of a training step."""
        eager = parallel.Replica(self.model, self.device, micro_batch=None, compile=False)
        step = measure.flops(lambda: self._epoch(eager, [(self.images, self.labels)]))
        return measure.flops(self._one_image(self.model)), step

    def deployed(self) -> tuple[int, str]:
        """FLOPs and operators of one image through the network as it is deployed: merged, where anything merges.

        NaN and "" where no inference is measured: nothing was merged then.
        """
        if not self.inference_batch:
            return NAN, ""
        call = self._one_image(self.merged or self.model)
        return measure.flops(call), measure.operators(call)

    def _one_image(self, model):
        model.eval()
        return torch.no_grad()(lambda: model(self.images[:1]))

    def _requests(self, inference_batch: int):
        """Of each kind of request its reading's name, what times so many calls, and how many calls make a block."""
        for size in (1, inference_batch):
            images, _ = self._batch(size, 1)
            for merged, model in enumerate((self.model, self.merged)):
                if model is not None:
                    infer = functools.partial(self._infer, model, images)
                    infer(WARM_UP)
                    yield _reading(size, merged), (infer, measure.times_for(self.block_s / 2, infer(1)))

    def _infer(self, model, images, times: int) -> float:
        model.eval()

        def call():
            with torch.inference_mode(), step.autocast(self.train, self.device):
                model(images)

        return measure.seconds(call, self.device, times)

    def round(self) -> dict[str, float]:
        """Seconds of a step and of each kind of inference; where short, one untimed goes first, for cold caches."""
        if self.block > 1:
            self.steps(1)
        found = {"step": self.steps(self.block)}
        if self.fed:
            found["fed"] = self.steps(self.block, self.fed.shuffled(torch.Generator().manual_seed(0)))
        for reading, (infer, times) in self.requests.items():
            if times > 1:
                infer(1)
            found[reading] = infer(times)
        return found


def _reading(size: int, merged: bool) -> str:
    return f"inference {size}{' merged' * merged}"


def measure_all(
    label: str,
    lineup: list[Contender],
    device: str,
    *,
    deterministic: bool,
    rounds: int,
    block_s: float,
    inference_batch: int,
    num_classes: int,
    images: int | None,
    seed: int = 0,
) -> dict:
    """Measure contenders side by side in this process.

    Args:
        rounds: in each of which every contender is measured once. block_s: seconds that the timed steps of one round
            take at least, and twice those of its calls of each kind. seed: of the order in which rounds go.
        inference_batch: images of the larger requests; 0: no inference.
        images: training images of an epoch, where known.

    Returns:
        "rows": a dict a contender (columns of cost.csv and cost_growth.csv), "ceiling": operations and bytes a second
        of a large matrix product, convolution and copy, "left_out": reasons by name.
    """
    device = step.pick_device(device, deterministic=deterministic)
    benches, left_out = {}, {}
    if any(contender.train.compile for contender in lineup):
        torch._dynamo.reset()  # what earlier groups compiled counts against the limit too,
        torch._dynamo.config.recompile_limit = 8 * len(lineup)  # beyond which networks run uncompiled
    for contender in tqdm(lineup, desc=f"{label}: setting up", disable=None, leave=False):
        try:
            bench = Bench(contender, device, num_classes=num_classes, block_s=block_s, inference_batch=inference_batch)
            benches[bench] = {"peak": bench.peak_bytes(), "flops": bench.flops(), "deployed": bench.deployed()}
        except (contenders.LeftOut, torch.OutOfMemoryError, TorchDynamoException) as error:
            reason = f"out of memory on {device}" if isinstance(error, torch.OutOfMemoryError) else str(error)
            reason = " ".join(reason.strip().splitlines()[:2])  # a compiler's goes on for pages
            left_out[contender.name] = reason
            bench = None  # and with it the network, before the next is built
            print(f"{label}: {contender.name} left out: {reason}", flush=True)
    found = [bench.contender for bench in benches]
    dtypes = {c.train.precision: getattr(torch, c.train.precision) for c in found}
    works, amounts = measure.ceilings(dtypes.values(), device)
    readings = measure.rounds(works | {bench: bench.round for bench in benches}, rounds, seed, label)
    speed = {name: [amount / s for s in readings[name]["s"]] for name, amount in amounts.items()}
    measured = [still | readings[bench] for bench, still in benches.items()]
    rows = []
    for bench, own in zip(benches, measured, strict=True):
        reference = contenders.full_beside(bench.contender, found)
        whole = None if reference is None else measured[found.index(reference)]
        precision = bench.train.precision
        best = [max(pair) for pair in zip(speed[precision], speed[f"{precision} convolution"], strict=True)]
        rows.append(_row(bench, own, whole, best, images))
    unit = {name: "bytes_per_s" if name == "copy" else f"{name.replace(' ', '_')}_flops_per_s" for name in speed}
    ceiling = {unit[name]: median_interval(values)[0] for name, values in speed.items()}
    return {"rows": rows, "ceiling": ceiling, "left_out": left_out}


def combined(found: list[dict]) -> dict:
    """Results of `measure_all` of several processes as one: medians, and where a figure has an interval, that of the
    processes. What one of them left out is left out.
    """
    if len(found) == 1:
        return found[0]
    by_point = [{_point(row): row for row in result["rows"]} for result in found]
    points = [point for point in by_point[0] if all(point in rows for rows in by_point)]
    return {
        "rows": [{**_over([rows[point] for rows in by_point]), "processes": len(found)} for point in points],
        "ceiling": _over([result["ceiling"] for result in found]),
        "left_out": {name: why for result in found for name, why in result["left_out"].items()},
    }


def _point(row: dict) -> tuple:
    return row["sweep"], row["method"], row["image_size"], row["batch_size"], str(row["rank"])


def _over(records: list[dict]) -> dict:
    """One dict of the same keys: numbers with a point as medians or, with limits, as `measure.process_interval`."""
    out = dict(records[0])
    for name in [name for name, value in out.items() if isinstance(value, float)]:
        values = [record[name] for record in records]
        if f"{name}_lo" in out:
            out |= with_limits(name, values, process_interval)
        elif not name.endswith(("_lo", "_hi")):
            out[name] = statistics.median(values)
    return out


def _row(bench: Bench, own: dict, whole: dict | None, best: list[float], images: int | None) -> dict:
    """A row by a contender's readings, those of full fine-tuning beside it, and the machine's best round by round."""
    contender, train, inference_batch = bench.contender, bench.train, bench.inference_batch
    step, low, high = median_interval(own["step"])
    (forward, step_flops), (inference_flops, operators) = own["flops"], own["deployed"]
    size = train.batch_size
    shares = [step_flops / s / top for s, top in zip(own["step"], best, strict=True)]
    row = {
        "sweep": contender.sweep, "method": contender.name, "role": contender.role,
        "backbone": contender.settings["backbone"], "image_size": contender.image_size, "batch_size": size,
        "trainable": bench.trainable, "step_ms": 1000 * step, "step_ms_lo": 1000 * low, "step_ms_hi": 1000 * high,
        **_ratio("step_ratio", own, whole, "step", "step"),
        "peak_mib": own["peak"] / MIB, "peak_ratio": NAN if whole is None else own["peak"] / whole["peak"],
        "images_per_s": size / step,
        "epoch_s": NAN if images is None else step * math.ceil(round(images * train.share) / size),
        "flops": forward, "ceiling_share": median_interval(shares)[0], "rounds": len(own["step"]), "processes": 1,
        "family": contender.family, "of": contender.of, "precision": train.precision, "step_flops": step_flops,
        "compile": train.compile, "inference_flops": inference_flops, "inference_operators": operators,
        "rank": contender.settings.get("rank", NAN), "inference_batch": inference_batch or NAN,
        **_ratio("input_ratio", own, own if bench.fed else None, "fed", "step"),
    }  # fmt: skip
    for request, prefix in ((1, "inference"), (inference_batch, "inference_batch")) if inference_batch else ():
        for merged, name in ((False, "ms"), (True, "merged_ms")):
            row[f"{prefix}_{name}"] = 1000 * median_interval(own.get(_reading(request, merged), []))[0]
        deployed = _reading(request, bench.merged is not None)
        row |= _ratio(f"{prefix}_ratio", own, whole, deployed, _reading(request, False))
    return row


def _ratio(name: str, readings: dict, whole: dict | None, mine: str, theirs: str) -> dict:
    """Median and interval of the ratios within rounds."""
    return with_limits(name, [a / b for a, b in zip(readings[mine], whole[theirs], strict=True)] if whole else [])
