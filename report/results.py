"""Old name of report.reading, until nothing asks for it."""

from report.reading.results import PAPER, ReportError, Results, _csv, _json, counterparts, load  # noqa: F401
from report.text import span  # noqa: F401
