"""What the report shows, one file a section: figure, tables, caption, alt text and finding together.

A module of this folder is a section. It has

    GROUP = "Result"      one of GROUPS
    ORDER = 20            its place within the group, lowest first
    FOLDED = False        whether a page shows it closed at first (optional)
    def needs(results) -> str | None       why it cannot be made of these results; None where it can
    def section(results) -> Section        the section itself; called only where `needs` is None

Adding a figure is adding a file; nothing else lists them.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.text import Table

__all__ = ["GROUPS", "Section", "Table", "build", "found"]

GROUPS = ("Result", "Evidence", "Cost", "Data and methods")


@dataclass(frozen=True)
class Section:
    """One part of the report.

    name: the module's, and the stem of its files. group: one of GROUPS. title: what it found, a sentence with numbers
    computed from the results. caption: how to read the figure, plain text. alt: the figure in words, for who cannot
    see it; it tells the finding too. figure: None where tables alone tell it. folded: shown closed at first.
    """

    name: str
    group: str
    title: str
    caption: str
    alt: str = ""
    figure: Figure | None = None
    tables: list[Table] = field(default_factory=list)
    folded: bool = False


def found() -> list[ModuleType]:
    """The modules of this folder, in the order shown: by group, by ORDER, by name."""
    modules = [import_module(f"{__name__}.{entry.name}") for entry in iter_modules(__path__)]
    return sorted(modules, key=lambda module: (GROUPS.index(module.GROUP), module.ORDER, module.__name__))


def build(results: Results, only: Collection[str] | None = None) -> tuple[list[Section], dict[str, str]]:
    """Make the sections of a profile's results, or those named in `only`.

    Returns:
        the sections in the order shown, and for each that is left out the reason, by name.
    """
    sections, left_out = [], {}
    for module in found():
        name = module.__name__.rpartition(".")[2]
        if only is not None and name not in only:
            continue
        reason = module.needs(results)
        if reason is None:
            with drawing.look():
                sections.append(module.section(results))
            if sections[-1].figure is not None:
                plt.close(sections[-1].figure)  # pyplot lets go of it; it is saved as before
        else:
            left_out[name] = reason
    return sections, left_out
