"""Which source files decide a cell's numbers, and one hash of what they do.

The `code` stage writes these hashes to data/code.json, one a family; a train stage depends on its family's entry
alone, and the fingerprint of a cell holds the same hash. So DVC and the fingerprints agree on what code counts, an
edited comment reruns nothing, and a change in `colora/` reruns the CoLoRA arms only.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("baselines/__init__.py", "baselines/backbones.py", "pipelines/loop.py", "pipelines/images.py")


def families() -> list[str]:
    """Names of the arm families: the files of baselines/ that are not shared by all."""
    shared = {Path(name).stem for name in SHARED}
    return sorted(path.stem for path in (ROOT / "baselines").glob("*.py") if path.stem not in shared)


def code_files(family: str) -> list[Path]:
    """The source files that decide an arm's numbers: shared code, its own family file, the library if it uses it."""
    files = [ROOT / name for name in (*SHARED, f"baselines/{family}.py")]
    if family == "colora":
        files += sorted((ROOT / "colora").glob("*.py"))
    return files


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
    hashes = {"code": {family: code_hash(code_files(family)) for family in families()}}
    path = ROOT / "data" / "code.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(hashes, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
