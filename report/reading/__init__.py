"""The results of one profile in memory, read once and checked."""

from report.reading.explained import Explained
from report.reading.results import PAPER, Results, beside, load, machines, ranked

__all__ = ["PAPER", "Explained", "Results", "beside", "load", "machines", "ranked"]
