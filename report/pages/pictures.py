"""Figures as files, and as they go into pages: a lean SVG, and a PNG small enough for Git."""

import re
from dataclasses import dataclass
from pathlib import Path

from report import drawing
from report.sections import Section


@dataclass(frozen=True)
class Picture:
    """svg: lean. png: small. width, height: pixels of a page."""

    name: str
    svg: str
    png: bytes
    width: int
    height: int


def draw(section: Section, folder: Path) -> Picture:
    """Write the section's figure to folder/<name>.svg, .pdf and .png, and make what pages show of it."""
    with drawing.look():
        section.figure.draw_without_rendering()
        section.figure.set_layout_engine("none")  # once for all three
    svg, _, png = drawing.save(section.figure, folder / section.name)
    width, height = (round(96 * side) for side in section.figure.get_size_inches())
    return Picture(section.name, lean_svg(svg.read_text(encoding="utf-8")), png.read_bytes(), width, height)


def lean_svg(svg: str) -> str:
    """A figure of matplotlib's without comments, metadata and indentation, coordinates to a hundredth of a point."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)

    def rounded(match: re.Match) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), match[0])

    svg = re.sub(r' (?:d|x|y|points)="[^"]*"|translate\([^)]*\)', rounded, svg)
    return re.sub(r"\s+", " ", svg).replace("> <", "><").strip()
