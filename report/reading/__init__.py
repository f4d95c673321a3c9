"""The results of one profile in memory, read once and checked."""

from report.reading.results import PAPER, ReportError, Results, counterparts, load

__all__ = ["PAPER", "ReportError", "Results", "counterparts", "load"]
