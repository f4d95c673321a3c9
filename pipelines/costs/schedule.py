"""How long runs take on n GPUs, one run on each at a time, where a method's tuning comes before its runs.

What should end last goes first, as in `pipelines.launch`: at most 4/3 - 1/(3n) times the shortest possible on n GPUs
where nothing is tuned, else at most 2 - 1/n times (Graham, SIAM J. Appl. Math. 17, 416, 1969).
"""

import heapq
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """A method's hours on one GPU: of its trials, which come first, and of each run. `row` is its line of the table."""

    method: str
    tuning: float
    runs: tuple[float, ...]
    row: dict = field(default_factory=dict, repr=False)

    @property
    def chain(self) -> float:
        """Hours that no number of GPUs makes fewer: the trials and the longest run."""
        return self.tuning + max(self.runs)


def makespan(works: list[Work], gpus: int) -> float:
    """Hours until all is done: whenever a GPU is free it takes, of what may start, that which should end last."""
    ready = []  # (-hours until its method's end, place of the method, own hours, runs that wait for it)
    for place, own in enumerate(works):
        runs = [(-run, place, run, ()) for run in own.runs]
        ready += [(-own.chain, place, own.tuning, own.runs)] if own.tuning else runs
    heapq.heapify(ready)
    now, running = 0.0, []
    while ready or running:
        while ready and len(running) < gpus:
            _, place, hours, waiting = heapq.heappop(ready)
            heapq.heappush(running, (now + hours, place, waiting))
        now = running[0][0]
        while running and running[0][0] == now:
            _, place, waiting = heapq.heappop(running)
            for run in waiting:
                heapq.heappush(ready, (-run, place, run, ()))
    return now


def planned(works: list[Work], gpus: int) -> dict:
    """A row of the schedule: hours, the two bounds that they cannot be below, used share of the GPUs' time (`busy`),
    and which bound is the larger.
    """
    last, hours = max(works, key=lambda own: own.chain), makespan(works, gpus)
    evenly = sum(own.tuning + sum(own.runs) for own in works) / gpus
    chain = f"{'tuning and ' * bool(last.tuning)}one run of {last.method}"
    return {
        "gpus": gpus, "hours": hours, "work_h": evenly, "chain_h": last.chain, "busy": evenly / hours,
        "bounded_by": "all work" if evenly >= last.chain else chain,
    }  # fmt: skip


def most_gpus(works: list[Work]) -> int:
    """The fewest GPUs on which all takes no longer than the longest chain: more of them do not help."""
    one = planned(works, 1)
    gpus = max(1, int(one["work_h"] / one["chain_h"]))
    while makespan(works, gpus) > one["chain_h"] * (1 + 1e-9):
        gpus += 1
    return gpus
