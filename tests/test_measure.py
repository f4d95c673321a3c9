"""Times, peak memory and FLOPs against hand-computed ones, and against the process's own growth."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pipelines.costs import measure
from pipelines.costs.measure import MIB

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


# Readings


@pytest.mark.parametrize("n", [6, 7, 20, 31])
def test_interval_of_the_median_is_the_narrowest_exact_one(n):
    """How many of n values lie below the median is binomial (n, 1/2): the k-th and the (n + 1 - k)-th value."""
    values = stats.gamma(2).rvs(n, random_state=n)
    middle, low, high = measure.median_interval(values)
    k = max(k for k in range(n // 2) if sum(math.comb(n, i) for i in range(k)) / 2**n <= 0.025)
    assert middle == pytest.approx(np.median(values))
    assert (low, high) == (np.sort(values)[k - 1], np.sort(values)[n - k])


def test_interval_over_processes_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [measure.process_interval(0.8 * np.exp(0.05 * rng.normal(size=3))) for _ in range(2000)]
    assert np.mean([low <= 0.8 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.015)
    assert measure.process_interval([1.0, 1.0, 1.0]) == (1, 1, 1)
    middle, low, high = measure.process_interval([2.0, 8.0])
    assert middle == pytest.approx(4) and low * high == pytest.approx(16)
    assert math.isnan(measure.process_interval([3.0])[1]) and math.isnan(measure.process_interval([1.0, math.nan])[0])


def test_few_values_have_no_interval():
    assert measure.median_interval([3.0, 1.0, 2.0, 5.0, 4.0])[0] == 3 and math.isnan(measure.median_interval([1, 2])[1])
    assert all(map(math.isnan, measure.median_interval([])))


def test_every_round_runs_every_piece_once_in_changing_order():
    seen = []
    pieces = {name: lambda name=name: seen.append(name) or {"s": len(seen)} for name in "abcde"}
    found = measure.rounds(pieces, 10, seed=0)
    turns = [tuple(seen[i : i + 5]) for i in range(0, 50, 5)]
    assert all(sorted(turn) == list("abcde") for turn in turns) and len(set(turns)) > 5
    assert sorted(s for readings in found.values() for s in readings["s"]) == list(range(1, 51))
    first, seen[:] = list(seen), []
    measure.rounds(pieces, 10, seed=0)
    assert seen == first
    measure.rounds(pieces, 10, seed=1)
    assert seen[50:] != first


# Peak memory

ROWS, WIDE = 64, 4096


def test_peak_memory_of_a_step_counted_by_hand():
    """One wide linear layer without bias, Adam: W, m, v are there; x W' is kept; then dW beside them."""
    torch.manual_seed(0)
    model = nn.Linear(WIDE, WIDE, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, foreach=False)
    x = torch.randn(ROWS, WIDE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model(x).sum().backward()
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    weight, rows = 4 * WIDE * WIDE, 4 * ROWS * WIDE
    resident = measure.resident_bytes(model, optimizer, x)
    assert resident == pytest.approx(3 * weight + rows, abs=64)
    # Adam holds dW and two temporaries of its size at most (the root and the quotient).
    peak = measure.peak_bytes(lambda: (step(), step()), CPU, resident)
    assert 4 * weight < peak <= 6 * weight + 4 * rows
    forward = measure.peak_bytes(lambda: model(x), CPU, 0)
    assert forward == pytest.approx(rows, abs=64)


def bytes_of(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8)


def test_peak_memory_is_the_highest_level_not_the_sum():
    def together():
        first = bytes_of(10)
        return first, bytes_of(30)

    assert measure.peak_bytes(together, CPU, 5) == 40 * MIB + 5
    assert measure.peak_bytes(lambda: [bytes_of(10) is None for _ in range(4)], CPU, 0) == 10 * MIB


def test_shared_memory_counts_once():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    model(torch.ones(2, 8)).sum().backward()
    assert measure.resident_bytes(model, torch.optim.SGD(model.parameters(), lr=1.0)) == 2 * 8 * 8 * 4


RSS = """
import sys, torch
from pathlib import Path
from pipelines.costs import benches, contenders, measure
from pipelines.profile import Params
from tests.conftest import tiny_params

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

content = tiny_params()
content["model"]["backbone"] = "resnet18"
params = Params(**content)
for method in sys.argv[1:]:
    (found, *_) = contenders.lineup(params, [method], image_size=64, batch_size=32)
    bench = benches.Bench(found, torch.device("cpu"), num_classes=4, block_s=1e-6, inference_batch=0)
    bench.optimizer.zero_grad(set_to_none=True)
    resident = measure.resident_bytes(bench.model, bench.optimizer, bench.images, bench.labels)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    bench.steps(2)
    print(status("VmHWM") - before, (bench.peak_bytes() - resident) / measure.MIB)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc/self/clear_refs")
def test_peak_memory_agrees_with_the_growth_of_the_process():
    """Beyond what is there before a step the process grows by what the allocator says, to 15 % and 8 MiB."""
    # Large blocks go back to the system at once, so that the process holds little in reserve.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RSS, "full", "colora-blocks2-5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        grown, counted = map(float, line.split())
        assert counted > 20 and abs(grown - counted) < 0.15 * counted + 8


def test_grouped_convolutions_count_their_own_kernels_only():
    conv = nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=False)
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    forward = 2 * 2 * 25 * conv.weight.numel()
    assert measure.flops(lambda: conv(x).sum().backward()) == 3 * forward
