"""Style and axes shared by the figures; every function takes frames and arrays."""

from report.drawing.palette import HUES, INK, MARKERS, QUIET, RULE, SHADE, Looks, ink, looks, present
from report.drawing.rows import (
    MOST,
    abbreviated,
    below,
    beside,
    cut,
    dumbbells,
    kind_handles,
    label_rows,
    limits,
    log_ticks,
    short_names,
    stacked,
    ticks,
    wrapped,
)  # fmt: skip
from report.drawing.style import FORMATS, REFERENCE_LINE, SMALL, WIDTH, facets, look, save

__all__ = [
    "FORMATS", "HUES", "INK", "Looks", "MARKERS", "MOST", "QUIET", "REFERENCE_LINE", "RULE", "SHADE", "SMALL", "WIDTH",
    "abbreviated", "below", "beside", "cut", "dumbbells", "facets", "ink", "kind_handles", "label_rows", "limits",
    "log_ticks", "look", "looks", "present", "save", "short_names", "stacked", "ticks", "wrapped",
]  # fmt: skip
