"""What every section of a parameter file is, and how its errors are told."""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from pipelines.files.errors import UserError


class ParamsError(UserError):
    """A parameter file that cannot be used; the message names the file, the key, and what was expected."""


class Section(BaseModel):
    # Strict: "6" and true are no numbers. A path is written as a word, so it alone is read from one.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


# A folder's name too, and without a dot, at which DVC would split it.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
Place = Annotated[Path, Strict(False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def explain(error: ValidationError, where, model, prefix: str = "") -> str:
    """Pydantic's findings in one line that names `where` and every key (after `prefix`), with near names of `model`."""
    lines = []
    for e in error.errors():
        key = prefix + ".".join(str(part) for part in e["loc"])
        if e["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{near(str(e['loc'][-1]), _fields_at(model, e['loc'][:-1]))}")
        elif e["type"] == "missing":
            field = _fields_at(model, e["loc"][:-1]).get(e["loc"][-1])
            meaning = " ".join((field.description or "").split()) if field else ""
            lines.append(f"missing key {key!r}" + (f" ({meaning.rstrip('.')})" if meaning else ""))
        else:
            found = "" if e["type"] == "value_error" else f", found {short(e['input'])}"
            lines.append(f"{key or 'top level'}: {e['msg'].removeprefix('Value error, ')}{found}")
    return f"{where}: " + "; ".join(lines)


def short(value) -> str:
    """A value as it is shown in a message, at most 200 characters of it."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _fields_at(model, loc) -> dict:
    """The fields of the section at `loc` by name."""
    for part in loc:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return {}
        options = getattr(field.annotation, "__args__", (field.annotation,))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
        if model is None:
            return {}
    return model.model_fields


def near(name: str, names) -> str:
    """A hint at what may have been meant, or nothing: names spelt alike, or of these initials (learning_rate: lr)."""
    names = list(names)
    initials = "".join(word[:1] for word in name.split("_"))
    close = [initials] if initials in names and initials != name else difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""
