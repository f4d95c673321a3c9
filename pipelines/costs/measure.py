"""Time, peak memory and FLOPs of a piece of work, and what the machine could do at best.

Times of several pieces are taken in rounds: every round runs each piece once, in an order of its own, so that a machine
that slows down meanwhile hits all alike, and a ratio taken within a round is of two neighbours in time.
"""

import hashlib
import itertools
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import torch
from scipy import stats
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

MIB = 2**20
NAN = float("nan")
LEVEL = 0.95  # of intervals
# Of `ceilings`: rows of the square matrices, float32 numbers copied, and the feature map of the convolution.
CEILING = {"cpu": (2048, 2**25, (16, 256, 32)), "cuda": (8192, 2**28, (64, 512, 56))}


def rounds(works: dict[Hashable, Callable[[], dict[str, float]]], count: int, seed: int, label: str = "") -> dict:
    """Do every work `count` times, round by round, each round in an order drawn by `seed`; a label has a progress bar.

    A work returns its readings by name; so does this, with a list of one value a round: {work: {reading: [count]}}.
    """
    order, draw = list(works), random.Random(seed)
    readings = {name: {} for name in works}
    for _ in tqdm(range(count), desc=label, unit="round", disable=None if label else True, leave=False):
        draw.shuffle(order)
        for name in order:
            for reading, value in works[name]().items():
                readings[name].setdefault(reading, []).append(value)
    return readings


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and an interval that holds the true one with a probability of 95 % at least: (median, low, high).

    By `scipy.stats.quantile_test`, from order statistics: whatever the values are distributed like, if they are
    independent. Fewer than six values have no such interval: NaN.
    """
    if len(values) == 0:
        return NAN, NAN, NAN
    found = stats.quantile_test(values).confidence_interval(LEVEL)
    return statistics.median(values), float(found.low), float(found.high)


def process_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of positive figures of independent processes, and Student's interval of their logarithms."""
    logs = [math.log(value) for value in values]
    middle = statistics.fmean(logs)
    if len(logs) < 2 or math.isnan(middle):
        return math.exp(middle), NAN, NAN
    half = stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def with_limits(name: str, values: Sequence[float], interval=median_interval) -> dict[str, float]:
    """What `interval` gives of the values as a row has it: {name, name_lo, name_hi}."""
    return dict(zip((name, f"{name}_lo", f"{name}_hi"), interval(values), strict=True))


def seconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds of one `work()`, the mean of `times` in a row; on a GPU by its own clock, without waiting in between."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record(torch.cuda.current_stream(device))
        for _ in range(times):
            work()
        end.record(torch.cuda.current_stream(device))
        end.synchronize()
        return start.elapsed_time(end) / 1000 / times
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times


def times_for(block_s: float, once_s: float) -> int:
    """How many times to repeat what takes `once_s` seconds, so that it takes `block_s` or longer."""
    return max(1, math.ceil(block_s / max(once_s, 1e-6)))


def peak_bytes(work: Callable[[], object], device: torch.device, resident: int) -> int:
    """Most bytes that are in use at once while `work()` runs.

    resident: bytes in use before it that count (`resident_bytes`). To these comes the highest level that allocations
    during the work reach, less what it frees (on a CPU: of its own; so let nothing that `resident` counts be freed in
    it). Counted is what goes through torch's allocator: every tensor, those inside operators and hand-written backward
    passes too, and the workspaces of oneDNN (CPU) and of cuDNN (GPU). Not counted are the program itself, memory that
    the allocator holds in reserve, and what libraries allocate on their own.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return resident + torch.cuda.max_memory_allocated(device) - before
    return resident + max(itertools.accumulate(_allocations(work), initial=0))


def _allocations(work) -> list[int]:
    """Bytes that the CPU allocator gave (positive) and took back (negative) while `work()` ran, in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter on standard error
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True, acc_events=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:  # the trace's format is documented, the profiler's objects are not
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(errors="replace"))["traceEvents"]
    memory = [event for event in events if event["name"] == "[memory]" and event["args"]["Device Type"] == 0]
    return [event["args"]["Bytes"] for event in sorted(memory, key=lambda e: e["args"]["Ev Idx"])]


def resident_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer, *tensors: torch.Tensor) -> int:
    """Bytes of the parameters, their gradients, the buffers, the optimizer's state and further tensors, each once."""
    held = [*model.parameters(), *model.buffers(), *tensors]
    held += [p.grad for p in model.parameters() if p.grad is not None]
    held += [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    device = next(model.parameters()).device
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held if t.device == device}
    return sum(storages.values())


def _convolution_backward(
    dy_shape, x_shape, w_shape, _bias, _stride, _padding, _dilation, transposed, _out_padding, _groups, mask, **_
):
    # Torch's own formula takes the gradient of a grouped kernel for that of a dense one: C times too much if depthwise.
    output = math.prod((x_shape if transposed else dy_shape)[2:])
    return 2 * dy_shape[0] * output * math.prod(w_shape) * (mask[0] + mask[1])


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of `work()` as torch counts them, two a multiply-accumulate; elementwise ones are left
    out. Attention runs as plain matrix products meanwhile, for of its kernels on a CPU torch counts nothing.
    """
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def operators(work: Callable[[], object]) -> str:
    """A digest of the operators that `work()` runs, in their order, with the shapes of what they return.

    Two networks of the same digest do the same work on an image, whatever their weights.
    """

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            shapes = [tuple(t.shape) for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
            digest.update(f"{function} {shapes}\n".encode())
            return out

    digest = hashlib.sha256()
    with Recorder():
        work()
    return digest.hexdigest()[:12]


def ceilings(dtypes: Iterable[torch.dtype], device: torch.device) -> tuple[dict[str, Callable], dict[str, float]]:
    """What bounds any network here: a large matrix product and a large 3x3 convolution in each dtype, and a large copy.

    Neither of the first two is always the faster: on CPUs a convolution may beat the matrix library. Returns works for
    `rounds`, which read "s", and the operations or bytes of each: "copy" (n bytes copied move 2 n), "DTYPE" and
    "DTYPE convolution". On a GPU the float32 product is in TF32, as cuDNN's convolutions are.
    """
    side, count, (batch, channels, pixels) = CEILING[device.type]
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    work, amounts = {"copy": lambda: target.copy_(source)}, {"copy": 2.0 * source.nbytes}

    def add(name, amount, operation, *shapes):
        tensors = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors]
        work[name], amounts[name] = lambda: operation(*tensors), amount

    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        add(name, 2.0 * side**3, _product, (side, side), (side, side))
        maps, kernel = (batch, channels, pixels, pixels), (channels, channels, 3, 3)
        operations = 2.0 * batch * pixels**2 * channels**2 * 9
        add(f"{name} convolution", operations, lambda x, k: torch.conv2d(x, k, padding=1), maps, kernel)
    for operation in work.values():
        operation()
    times = 10 if device.type == "cuda" else 1
    return {name: lambda w=w: {"s": seconds(w, device, times)} for name, w in work.items()}, amounts


def _product(a, b):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high" if a.is_cuda else before)
        return a @ b
    finally:
        torch.set_float32_matmul_precision(before)
