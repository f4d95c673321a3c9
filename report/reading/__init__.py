"""The results of one profile in memory, read once and checked."""

from report.reading.explained import Explained
from report.reading.machine import machine
from report.reading.paper import counterparts
from report.reading.problems import ReportError
from report.reading.results import PAPER, Results, load

__all__ = ["PAPER", "Explained", "ReportError", "Results", "counterparts", "load", "machine"]
