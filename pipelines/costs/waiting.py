"""Time the same training steps with threads that wait actively and passively, beside other work: pairs in turns.

`python -m pipelines.costs.waiting [--busy 2] [--pairs 5]`, on an otherwise idle machine, prints seconds and CPU seconds
of each run and the median ratio. Every command sets `OMP_WAIT_POLICY=PASSIVE` unless the user has set it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

POLICIES = ("ACTIVE", "PASSIVE")
BUSY = "while True: pass"
STEPS = """
import torch, torchvision
from colora import ColoraConfig, inject
torch.manual_seed(0)
model = torchvision.models.resnet18(num_classes=4)
inject(model, ColoraConfig(target_modules=r"layer[1234].*conv[12]", modules_to_save=["fc"]))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
images, labels = torch.randn(16, 3, 64, 64), torch.randint(4, (16,))
for _ in range({steps}):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
"""


def run(policy: str, steps: int) -> dict:
    """One process that trains so many steps: its wall-clock and CPU seconds, start of Python and torch included.

    Raises:
        subprocess.CalledProcessError: it failed; its message is on stderr.
    """
    before, start = _children_cpu_s(), time.perf_counter()
    code = STEPS.format(steps=steps)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_WAIT_POLICY": policy}, check=True)
    wall = time.perf_counter() - start
    return {"policy": policy, "wall_s": wall, "cpu_s": _children_cpu_s() - before}


def _children_cpu_s() -> float:
    """CPU seconds of ended child processes, in microseconds where `os.times` has ticks."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(pairs: int, steps: int, busy: int) -> list[dict]:
    """`run` of each policy, `pairs` times in alternating order, beside so many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        return [run(policy, steps) for pair in range(pairs) for policy in POLICIES[:: (-1) ** pair]]
    finally:
        for other in others:
            other.kill()
            other.wait()


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.costs.waiting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--busy", type=int, default=2, help="other processes (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="training steps of a run (default: %(default)s)")
    args = parser.parse_args(argv)
    rows = measure(args.pairs, args.steps, args.busy)
    for row in rows:
        print(f"{row['policy']:8}{row['wall_s']:8.1f} s{row['cpu_s']:8.1f} CPU s")
    for key, what in (("wall_s", "time"), ("cpu_s", "CPU time")):
        active, passive = ([row[key] for row in rows if row["policy"] == policy] for policy in POLICIES)
        ratio = statistics.median(a / p for a, p in zip(active, passive, strict=True))
        print(f"{what}: active / passive {ratio:.2f}, median of {args.pairs} pairs beside {args.busy} busy processes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
