"""What the report shows, one file a section: figure, tables, caption, alt text and finding together.

A module of this folder is a section. It has

    GROUP = "Result"      one of GROUPS
    ORDER = 20            its place within the group, lowest first
    def section(results) -> Section | None       None where the results hold nothing for it

Adding a figure is adding a file; nothing else lists them.
"""

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
    caption: str = ""
    alt: str = ""
    figure: Figure | None = None
    tables: list[Table] = field(default_factory=list)
    folded: bool = False


def found() -> list[ModuleType]:
    """The modules of this folder, in the order shown: by group, by ORDER, by name."""
    modules = [import_module(f"{__name__}.{entry.name}") for entry in iter_modules(__path__)]
    return sorted(modules, key=lambda module: (GROUPS.index(module.GROUP), module.ORDER, module.__name__))


def build(results: Results) -> list[Section]:
    """The sections of a profile's results in the order shown."""
    made = []
    for module in found():
        with drawing.look():
            section = module.section(results)
        made += [section] if section else []
        if section and section.figure:
            plt.close(section.figure)  # pyplot lets go of it; it is saved as before
    return made
