"""The house: rooms point one way, nobody imports a command or another module's private name, and files stay short.

Imports are read from the syntax tree, those inside functions too. docs/architecture.md shows the rooms.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("colora", "baselines", "pipelines", "report")

# What a room may import beside itself: what stands before it. The report knows results files and the facts of families.
_ORDER = ["colora", "baselines", *(f"pipelines.{room}" for room in ("files", "profile", "data", "runs", "training"))]
BELOW = {room: set(_ORDER[:place]) for place, room in enumerate(_ORDER)}
BELOW |= {"pipelines.files": set()}
BELOW |= {"pipelines.evidence": {*_ORDER}, "pipelines.costs": {*_ORDER, "pipelines.evidence.schemas"}}
BELOW |= {"pipelines.prediction": {*_ORDER, "pipelines.evidence"}}
BELOW |= {"pipelines.launching": {*_ORDER, "pipelines.costs"}}
BELOW |= {
    "report": {
        "baselines",
        "pipelines._cli",
        "pipelines.files",
        "pipelines.profile",
        "pipelines.evidence.schemas",
        "pipelines.evidence.definitions",
    }
}
COMMANDS = {f"pipelines.{path.stem}" for path in (ROOT / "pipelines").glob("[!_]*.py")}
LONGEST = {**dict.fromkeys(PACKAGES, 350), "tests": 450}


class Module:
    """A module of ours: its imports of others of ours, as (module, name taken from it or "", line)."""

    def __init__(self, name: str, path: Path, known: set[str]):
        self.name, self.path, self.imports = name, path, []
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.called = {}  # what a module is called here, to its name
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: line {node.lineno} is a relative import"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    if whole in known:
                        self.called[alias.asname or alias.name] = whole
                        self.imports.append((whole, "", node.lineno))
                    elif node.module in known:
                        self.imports.append((node.module, alias.name, node.lineno))
            elif isinstance(node, ast.Import):
                self.imports += [(alias.name, "", node.lineno) for alias in node.names if alias.name in known]

    @property
    def room(self) -> str:
        """The part of the house that it lies in; a command is a room of its own."""
        return room_of(self.name)


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[0] if parts[0] != "pipelines" else ".".join(parts[:2])


@functools.cache
def house() -> list[Module]:
    paths = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return [Module(name, path, set(paths)) for name, path in paths.items()]


def with_rooms_more(paths: dict[str, Path]) -> list[Module]:
    known = {own.name for own in house()} | set(paths)
    return [*house(), *(Module(name, path, known) for name, path in paths.items())]


def wrong_ways(modules: list[Module]) -> Iterator[str]:
    for own in modules:
        if own.room not in BELOW:  # a command may use all rooms
            continue
        for module, _, line in own.imports:
            if room_of(module) != own.room and not {room_of(module), module} & BELOW[own.room]:
                yield f"{own.name} line {line} imports {module}"


def imported_commands(modules: list[Module]) -> Iterator[str]:
    for own in modules:
        for module, _, line in own.imports:
            if module in COMMANDS:
                yield f"{own.name} line {line} imports {module}"


def private_names(modules: list[Module]) -> Iterator[str]:
    def private(name):
        return name.startswith("_") and not name.startswith("__")

    for own in modules:
        for module, taken, line in own.imports:
            if private(taken):
                yield f"{own.name} line {line} takes {module}.{taken}"
        for node in ast.walk(own.tree):
            of_name = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if of_name and private(node.attr) and node.value.id in own.called:
                yield f"{own.name} line {node.lineno} takes {own.called[node.value.id]}.{node.attr}"


def cycles(modules: list[Module]) -> Iterator[str]:
    """Ways of imports that come back, through imports inside functions too.

    A package's own modules may take names from its __init__ where that reads them late, such as `baselines.Family`.
    """
    graph = {
        own.name: {module for module, _, _ in own.imports if not own.name.startswith(f"{module}.")} for own in modules
    }
    done = set()

    def visit(name, way):
        if name in way:
            yield " -> ".join([*way[way.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                yield from visit(other, [*way, name])
            done.add(name)

    for name in graph:
        yield from visit(name, [])


def long_files() -> Iterator[str]:
    for folder, longest in LONGEST.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > longest:
                yield f"{path.relative_to(ROOT).as_posix()}: {lines} lines, at most {longest}"


@pytest.mark.parametrize("rule", [wrong_ways, imported_commands, private_names, cycles])
def test_the_house_is_in_order(rule):
    found = list(rule(house()))
    assert not found, "\n".join(found)


def test_no_file_is_too_long():
    found = list(long_files())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "rule, text",
    [
        (wrong_ways, "from pipelines.training import loop\n"),
        (wrong_ways, "def f():\n    import report.reading.results\n"),
        (imported_commands, "from pipelines import train\n"),
        (imported_commands, "from pipelines.train import main\n"),
        (private_names, "from pipelines.profile.base import _fields_at\n"),
        (private_names, "from pipelines.profile import base\nbase._fields_at\n"),
        (cycles, "def f():\n    from pipelines.files import made_up_2\n"),
    ],
)
def test_what_breaks_a_rule_is_found(tmp_path, rule, text):
    for number, content in ((1, text), (2, "from pipelines.files import made_up_1\n")):
        (tmp_path / f"{number}.py").write_text(content)
    more = {f"pipelines.files.made_up_{number}": tmp_path / f"{number}.py" for number in (1, 2)}
    assert any("made_up_1" in line for line in rule(with_rooms_more(more)))
    (tmp_path / "1.py").write_text("import json\nfrom pipelines.files import errors\n")
    assert not any("made_up" in line for line in rule(with_rooms_more(more)))


def test_the_schema_and_the_facts_of_families_load_without_torch():
    code = "import sys, baselines, pipelines.profile; baselines.families(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
