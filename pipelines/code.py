"""Which source files decide a cell's numbers, and one hash of what they do.

The `code` stage writes these hashes to data/code.json, one a family; a train stage depends on its family's entry
alone, and the fingerprint of a cell holds the same hash. So DVC and the fingerprints agree on what code counts, an
edited comment reruns nothing, and a change in `colora/` reruns the CoLoRA arms only.
"""

import ast
import functools
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("baselines/__init__.py", *(f"pipelines/{name}.py" for name in ("loop", "parallel", "images", "metrics")))
PROBE = ("pipelines/probe.py", "pipelines/corruptions.py", "pipelines/gradcam.py")


@functools.cache
def families() -> dict[str, str]:
    """Each arm family, a file of baselines/, and its function: "adapt" or, for a network of its own, "network"."""
    found = {}
    for path in sorted((ROOT / "baselines").glob("*.py")):
        if path.stem != "__init__":
            names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            found[path.stem] = "network" if "network" in names else "adapt"
    return found


def code_files(family: str) -> list[Path]:
    """The source files that decide an arm's numbers: what all share, its family's file, and what that imports."""
    files = {ROOT / name for name in SHARED}
    waiting = [ROOT / "baselines" / f"{family}.py"]
    if families()[family] == "adapt":  # what it adapts, though it may import nothing itself
        waiting.append(ROOT / "baselines" / "backbones" / "__init__.py")
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _imports(path)
    return sorted(files)


def probe_files() -> list[Path]:
    """The source files that decide what a probed cell has beside its test."""
    return [ROOT / name for name in PROBE]


def _imports(path: Path) -> list[Path]:
    """The files of baselines/ and colora/ that a file imports, at its top or inside its functions.

    Raises:
        ValueError: an import is relative, and so would go unseen.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}, line {node.lineno}: found a relative import; import by the full name instead"
                )
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = []
    for name in names:
        if name.startswith(("baselines.", "colora.")) or name == "colora":
            place = ROOT / name.replace(".", "/")
            found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found


def code_hash(files: list[Path]) -> str:
    """Hash of what the code does: comments, docstrings and layout do not count."""
    parts = []
    for path in files:
        tree = ast.parse(path.read_text(), filename=str(path))
        for node in ast.walk(tree):
            documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            if documented and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        parts.append([path.relative_to(ROOT).as_posix(), _plain(tree)])
    return sha256_json(parts)


def _plain(node):
    """A syntax tree as lists, without empty fields: `ast.dump` differs between Python versions, this does not."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 puts empty strings between the parts of an f-string
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    if isinstance(node, ast.AST):
        fields = [[name, _plain(value)] for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, *fields]
    return [_plain(item) for item in node] if isinstance(node, list) else repr(node)


def sha256_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def main() -> int:
    # Under a key of their own: `dvc exp show` cannot tell a parameter `colora` from the dependency `colora`.
    hashes = {
        "code": {family: code_hash(code_files(family)) for family in families()},
        "probe": code_hash(probe_files()),
    }
    path = ROOT / "data" / "code.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(hashes, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
