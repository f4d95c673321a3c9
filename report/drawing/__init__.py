"""Style and axes shared by the figures; every function takes frames and arrays."""

from report.drawing.palette import HUES, INK, MARKERS, QUIET, RULE, SHADE, ink, looks, luminance, present
from report.drawing.rows import (
    MOST,
    abbreviations,
    below,
    beside,
    cut,
    dumbbells,
    grid,
    label_rows,
    limits,
    log_ticks,
    parted,
    short_names,
    stacked,
    ticks,
    wrapped,
)  # fmt: skip
from report.drawing.style import REFERENCE_LINE, SMALL, WIDTH, facets, look, save

__all__ = [
    "HUES", "INK", "MARKERS", "MOST", "QUIET", "REFERENCE_LINE", "RULE", "SHADE", "SMALL", "WIDTH", "abbreviations",
    "below", "beside", "cut", "dumbbells", "facets", "grid", "ink", "label_rows", "limits", "log_ticks",
    "look", "looks", "luminance", "parted", "present", "save", "short_names", "stacked", "ticks", "wrapped",
]  # fmt: skip
