"""Every key of a profile with its type, default and meaning, from the schema: for people, and as defaults for DVC."""

import ast
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic_core import PydanticUndefined

import baselines
from pipelines.files.records import write_atomically
from pipelines.profile.base import ParamsError, Section, near
from pipelines.profile.recipe import Train
from pipelines.profile.schema import Params

NEEDED = "(needed)"
SIGNS = {Gt: ("gt", ">"), Ge: ("ge", ">="), Lt: ("lt", "<"), Le: ("le", "<=")}


@dataclass(frozen=True)
class Key:
    """key: with dots; `<i>` stands for a place in a list. kind: its type in words. default: as YAML, or "(needed)"."""

    key: str
    kind: str
    default: str
    meaning: str


def schema_keys(model: type[Section] = Params, prefix: str = "") -> Iterator[Key]:
    """Every key of a section, and of those within it."""
    for name, field in model.model_fields.items():
        kind, section, listed = _kind(field.annotation, field.metadata)
        default = NEEDED if field.is_required() else _as_yaml(field.get_default())
        meaning = " ".join((field.description or "").split())
        if section:
            meaning = f"{' '.join((section.__doc__ or '').split())}"
            default = default if default in (NEEDED, "null", "[]") else ""
        yield Key(prefix + name, kind, default, meaning)
        if section:
            yield from schema_keys(section, f"{prefix}{name}.{'<i>.' * listed}")


def option_keys() -> Iterator[Key]:
    """The options of every family, as keys of a method's section; read without importing a family."""
    for family, facts in baselines.families().items():
        make = next(n for n in _source(family).body if isinstance(n, ast.FunctionDef) and n.name == facts.kind)
        about = _first_paragraph(make)
        for argument, default in zip(make.args.kwonlyargs, make.args.kw_defaults):
            if argument.arg not in ("num_classes", "image_size"):
                shown = NEEDED if default is None else _as_yaml(ast.literal_eval(default))
                kind = ast.unparse(argument.annotation) if argument.annotation else "any"
                kind = kind.replace("typing.", "").replace("Sequence[int]", "list[int]")
                yield Key(f"method.NAME.{argument.arg}", kind, shown, f"Family {family}. {about}".strip())


def _source(family: str) -> ast.Module:
    return ast.parse((Path(baselines.__file__).parent / f"{family}.py").read_text(encoding="utf-8"))


def _first_paragraph(node) -> str:
    """Of a docstring, on one line; nothing where that begins with a section such as Raises."""
    found = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return "" if found.startswith(("Args:", "Raises:", "Returns:")) else found


def text(wanted: str = "") -> str:
    """The keys at or below `wanted`, one a paragraph; all without one.

    Raises:
        ParamsError: there is no such key.
    """
    every = [*schema_keys(), *option_keys()]
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
        options = [key for key in option_keys() if key.meaning.startswith(f"Family {family}.")]
        own = options[0].meaning.removeprefix(f"Family {family}.").strip() if options else ""
        about = f"{_first_paragraph(_source(family))} {own}".strip()
        lines += ["", f"### {family} ({facts.label})", "", about, ""]
        lines += _table(options, meaning=False) if options else ["No options."]
    return "\n".join(lines) + "\n"


def defaults() -> str:
    """conf/defaults.yaml: what a profile need not say, so that params.yaml names every key that DVC may depend on."""
    content = {}
    for name, field in Params.model_fields.items():
        if not field.is_required():
            value = field.get_default()
            content[name] = value.model_dump(mode="json") if isinstance(value, Section) else value
    content["train"] = _own_defaults(Train)
    content["data"] = {k: v for k, v in _own_defaults(Params.model_fields["data"].annotation).items() if v is not None}
    head = "# Written by `python -m pipelines.params --update` from the schema; a profile's values go before these.\n"
    return head + yaml.safe_dump(content, sort_keys=False)


def update(root: Path = Path()) -> None:
    """Write docs/parameters.md and conf/defaults.yaml."""
    for path, content in ((root / "docs" / "parameters.md", markdown()), (root / "conf" / "defaults.yaml", defaults())):
        write_atomically(path, lambda file, content=content: file.write(content.encode()))


def _own_defaults(model) -> dict:
    return {name: field.get_default() for name, field in model.model_fields.items() if not field.is_required()}


def _told(default) -> str:
    return f" {NEEDED}" if default == NEEDED else f", default {default}" if default else ""


def _table(rows, meaning=True) -> list[str]:
    def cell(value):
        return value.replace("|", "\\|")

    head = ["| key | type | default |" + " meaning |" * meaning, "|---|---|---|" + "---|" * meaning]
    for row in rows:
        default = row.default if row.default in ("", NEEDED) else f"`{row.default}`"
        cells = [f"`{row.key}`", row.kind, default, *([row.meaning] if meaning else [])]
        head.append(f"| {' | '.join(map(cell, cells))} |")
    return head


def _as_yaml(value) -> str:
    if value is PydanticUndefined:
        return NEEDED
    if isinstance(value, Section):
        value = value.model_dump(mode="json")
    if isinstance(value, Path):
        value = str(value)
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _kind(annotation, metadata=()) -> tuple[str, type[Section] | None, bool]:
    """A type in words, the section that it holds, and whether in a list."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0], [*metadata, *arguments[1:]])
    if origin in (typing.Union, types.UnionType):
        parts = [_kind(part, metadata if part is not type(None) else ()) for part in arguments]
        section = next((part[1] for part in parts if part[1]), None)
        return " or ".join(part[0] for part in parts), section, any(part[2] for part in parts)
    if origin is typing.Literal:
        return " / ".join(map(str, arguments)), None, False
    if origin is list:
        kind, section, _ = _kind(arguments[0])
        return f"list of {kind}", section, section is not None
    if origin is tuple:
        return "list of two numbers", None, False
    if origin is dict or annotation is dict:
        return "section", None, False
    if annotation is type(None):
        return "null", None, False
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section", annotation, False
    words = {int: "whole number", float: "number", str: "word", bool: "true / false", Path: "path"}
    return words.get(annotation, str(annotation)) + _limits(metadata), None, False


def _limits(metadata) -> str:
    found = []
    for item in metadata:
        for part in getattr(item, "metadata", [item]):
            for kind, (name, sign) in SIGNS.items():
                if isinstance(part, kind):
                    found.append(f"{sign} {getattr(part, name):g}")
    return f" {', '.join(found)}" if found else ""
