"""What the report shows, one file a section: figure, tables, caption, alt text and finding together.

A module of this folder is a section. It has

    GROUP = "Result"      one of GROUPS
    ORDER = 20            its place within the group, lowest first
    def section(results) -> Section | None       None where the results hold nothing for it

Adding a figure is adding a file; nothing else lists them. `build` fills in the module's name and group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    title: what it found, a sentence with numbers computed from the results. caption: how to read the figure, plain
    text. alt: the figure in words, for who cannot see it, which follow the title. figure: None where tables alone tell
    it. folded: shown closed at first. name: the module's, and the stem of its files. group: one of GROUPS.
    """

    title: str
    caption: str = ""
    alt: str = ""
    figure: Figure | None = None
    tables: Sequence[Table] = ()
    folded: bool = False
    name: str = ""
    group: str = ""


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
        if not section:
            continue
        if section.figure:
            plt.close(section.figure)  # pyplot lets go of it; it is saved as before
        alt = f"{section.title} {section.alt}".strip()
        made.append(replace(section, alt=alt, name=module.__name__.rpartition(".")[2], group=module.GROUP))
    return made
