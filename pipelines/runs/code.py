"""Which source files decide a run's numbers, and one hash of what they do.

The `code` stage writes these hashes to data/code.json, one a family; a train stage depends on its family's entry
alone, and the fingerprint of a run holds the same hash. So DVC and the fingerprints agree on what code counts. An
edited comment, a moved or renamed file reruns nothing, and a change in `colora/` reruns the CoLoRA methods only.

A known limit: imports do not count, so `from ... import relu as act` and `gelu as act` have one hash. CONTRIBUTING.md
says what to do then, and which files are in no hash.
"""

import ast
import functools
from pathlib import Path

from baselines import families
from pipelines.files.errors import UserError
from pipelines.files.hashing import code_hash

ROOT = Path(__file__).resolve().parents[2]
SHARED = (
    "baselines/__init__.py",
    "pipelines/data/augmentation.py",
    "pipelines/data/images.py",
    "pipelines/runs/metrics.py",
    *(f"pipelines/training/{name}.py" for name in ("loaders", "loop", "parallel", "step")),
)
PROBE = tuple(f"pipelines/training/{name}.py" for name in ("probe", "corruptions", "gradcam"))
_first: dict[Path, str] = {}  # what files did when this process first asked


def code_files(family: str) -> list[Path]:
    """The source files that decide a method's numbers: what all share, its family's file, and what that imports."""
    files = {ROOT / name for name in SHARED}
    waiting = [ROOT / "baselines" / f"{family}.py"]
    if families(ROOT / "baselines")[family].kind == "adapt":  # what it adapts, though it may import nothing itself
        waiting.append(ROOT / "baselines" / "backbones" / "__init__.py")
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _imports(path, path.stat().st_mtime_ns)
    return sorted(files)


def probe_files() -> list[Path]:
    """The source files that decide what a probed run has beside its test."""
    return [ROOT / name for name in PROBE]


def running_hash(files: list[Path]) -> str:
    """`code_hash` of what this process runs: a module stays as it was loaded, whatever becomes of its file.

    Raises:
        UserError: a file does something else than when this process first asked.
    """
    for path in files:
        if _first.setdefault(path, found := code_hash([path])) != found:
            raise UserError(f"{path}: changed while this process was at work with what it did before; run again")
    return code_hash(files)


def hashes() -> dict:
    """The content of data/code.json. The families stand under a key of their own: `dvc exp show` cannot tell a
    parameter `colora` from the dependency `colora`.
    """
    return {
        "code": {family: code_hash(code_files(family)) for family in families(ROOT / "baselines")},
        "probe": code_hash(probe_files()),
        "tuning": code_hash([ROOT / "pipelines/training/trials.py"]),
    }


@functools.cache
def _imports(path: Path, _changed: int) -> list[Path]:
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
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [ROOT / name.replace(".", "/") for name in names if name.split(".")[0] in ("baselines", "colora")]
    return [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
