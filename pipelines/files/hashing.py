"""Hashes of settings and of what code does."""

import ast
import functools
import hashlib
import json
from pathlib import Path


def code_hash(files: list[Path]) -> str:
    """Hash of what the code does: imports, docstrings, comments, layout, the files' names and places do not count."""
    return sha256_json(sorted(_module_hash(path, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _module_hash(path: Path, _changed: int) -> str:
    return sha256_json(_plain(ast.parse(path.read_text(), filename=str(path))))


def sha256_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _is_facts(node) -> bool:
    """Whether a statement is the `FAMILY = Family(...)` of a family's file: a colour decides no number."""
    return isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["FAMILY"]


def _plain(node):
    """A syntax tree as lists, without empty fields: `ast.dump` differs between Python versions, this does not."""
    documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    if documented and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 puts empty strings between the parts of an f-string
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    if isinstance(node, ast.AST):
        fields = [[name, _plain(value)] for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [
            _plain(item) for item in node if not isinstance(item, (ast.Import, ast.ImportFrom)) and not _is_facts(item)
        ]
    return repr(node)
