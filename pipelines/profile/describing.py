"""Every key of a profile with its type, default and meaning, from the schema: for people, and as defaults for DVC."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

import baselines
from pipelines.files.records import write_atomically
from pipelines.profile.base import ParamsError, near
from pipelines.profile.schema import Params

NEEDED = "(needed)"
SCHEMA = Params.model_json_schema()
SECTIONS = SCHEMA["$defs"]
SIGNS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
WORDS = {
    "integer": "whole number", "number": "number", "string": "word", "boolean": "true / false", "null": "null",
    "object": "section",
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """key: with dots; `<i>` stands for a place in a list. kind: its type in words. default: as YAML, or "(needed)"."""

    key: str
    kind: str
    default: str
    meaning: str


def schema_keys(section: dict = SCHEMA, prefix: str = "") -> Iterator[Key]:
    """Every key of a section, given as JSON schema, and of those within it."""
    for name, field in section["properties"].items():
        inner, listed = _inner(field)
        default = _as_yaml(field["default"]) if "default" in field else NEEDED
        if inner and default not in (NEEDED, "null", "[]"):
            default = ""
        meaning = " ".join((inner or field).get("description", "").split())
        yield Key(prefix + name, _kind(field), default, meaning)
        if inner:
            yield from schema_keys(inner, f"{prefix}{name}.{'<i>.' * listed}")


def options(family: str) -> tuple[str, list[Key]]:
    """What a family's file says first, and its options as keys of a method's section, all with what its function says
    first as their meaning; read without importing the file."""
    source = ast.parse((Path(baselines.__file__).parent / f"{family}.py").read_text(encoding="utf-8"))
    make = next(n for n in source.body if isinstance(n, ast.FunctionDef) and n.name in ("adapt", "network"))
    keys = []
    for argument, default in zip(make.args.kwonlyargs, make.args.kw_defaults):
        if argument.arg not in ("num_classes", "image_size"):
            shown = NEEDED if default is None else _as_yaml(ast.literal_eval(default))
            kind = ast.unparse(argument.annotation) if argument.annotation else "any"
            kind = kind.replace("typing.", "").replace("Sequence[int]", "list[int]")
            keys.append(Key(f"method.NAME.{argument.arg}", kind, shown, _first_paragraph(make)))
    return _first_paragraph(source), keys


def _first_paragraph(node) -> str:
    """Of a docstring, on one line; nothing where that begins with a section such as Raises."""
    found = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return "" if found.startswith(("Args:", "Raises:", "Returns:")) else found


def text(wanted: str = "") -> str:
    """The keys at or below `wanted`, one a paragraph; all without one.

    Raises:
        ParamsError: there is no such key.
    """
    every = [*schema_keys()]
    for family in baselines.families():
        every += [replace(key, meaning=f"Family {family}. {key.meaning}".strip()) for key in options(family)[1]]
    found = [key for key in every if not wanted or key.key == wanted or key.key.startswith(f"{wanted}.")]
    if not found:
        names = dict.fromkeys(key.key for key in every)
        raise ParamsError(f"no key {wanted!r}{near(wanted, names)}; without a key --schema prints all")
    return "\n".join(f"{k.key}: {k.kind}{_told(k.default)}\n    {k.meaning}".rstrip() for k in found)


def markdown() -> str:
    """docs/parameters.md: the same as tables."""
    lines = [
        "# Parameters",
        "",
        "Every key of a profile (`conf/profile/NAME.yaml`), from the schema in `pipelines/profile`. Written by "
        "`python -m pipelines.params --update`; `python -m pipelines.params --schema KEY` prints a part of it.",
    ]
    top = [key for key in schema_keys() if "." not in key.key]
    lines += ["", "## Top level", "", *_table(top)]
    for name in [key.key for key in top]:
        inner = [key for key in schema_keys() if key.key.startswith(f"{name}.")]
        if inner:
            lines += ["", f"## {name}", "", *_table(inner)]
    lines += ["", "## method.NAME", ""]
    lines += ["`family` (needed), `seeds`, `train` (any key of it), `backbone`, `weights`, `head`, `batchnorm`,"]
    lines += ["`input_size` as in `model`, and the options of the family:"]
    for family, facts in baselines.families().items():
        about, own = options(family)
        about = f"{about} {own[0].meaning if own else ''}".strip()
        lines += ["", f"### {family} ({facts.label})", "", about, ""]
        lines += _table(own, meaning=False) if own else ["No options."]
    return "\n".join(lines) + "\n"


def defaults() -> str:
    """conf/defaults.yaml: what a profile need not say, so that params.yaml names every key that DVC may depend on."""
    data = {key: value for key, value in _own_defaults(SECTIONS["Data"]).items() if value is not None}
    content = _own_defaults(SCHEMA) | {"train": _own_defaults(SECTIONS["Train"]), "data": data}
    head = "# Written by `python -m pipelines.params --update` from the schema; a profile's values go before these.\n"
    return head + yaml.safe_dump(content, sort_keys=False)


def update() -> None:
    """Write docs/parameters.md and conf/defaults.yaml."""
    for path, content in (("docs/parameters.md", markdown()), ("conf/defaults.yaml", defaults())):
        write_atomically(Path(path), lambda file, content=content: file.write(content.encode()))


def _own_defaults(section: dict) -> dict:
    return {name: field["default"] for name, field in section["properties"].items() if "default" in field}


def _told(default) -> str:
    return f" {NEEDED}" if default == NEEDED else f", default {default}" if default else ""


def _table(rows, meaning=True) -> list[str]:
    head = ["| key | type | default |" + " meaning |" * meaning, "|---|---|---|" + "---|" * meaning]
    for row in rows:
        default = row.default if row.default in ("", NEEDED) else f"`{row.default}`"
        cells = [f"`{row.key}`", row.kind, default, *([row.meaning] if meaning else [])]
        head.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return head


def _as_yaml(value) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _inner(field: dict) -> tuple[dict | None, bool]:
    """The section that a field holds, and whether in a list."""
    for part in field.get("anyOf", [field]):
        if place := part.get("$ref") or part.get("items", {}).get("$ref"):
            return SECTIONS[place.rpartition("/")[2]], "items" in part
    return None, False


def _kind(field: dict) -> str:
    """A field's type in words."""
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if "$ref" in field:
        return "section"
    if "const" in field or "enum" in field:
        return " / ".join(field.get("enum", [field.get("const")]))
    if "prefixItems" in field:
        return "list of two numbers"
    if "items" in field:
        return f"list of {_kind(field['items'])}"
    word = "path" if field.get("format") == "path" else WORDS[field["type"]]
    limits = ", ".join(f"{sign} {field[name]:.10g}" for name, sign in SIGNS.items() if name in field)
    return f"{word} {limits}".strip()
