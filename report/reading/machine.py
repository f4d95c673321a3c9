"""The machine that costs were measured on."""

import json
from pathlib import Path

from report.reading.problems import ReportError


def machine(directory: Path) -> str:
    """The GPU of results/<profile>/cost.json, or else its CPU and threads.

    Raises:
        ReportError: cost.json cannot be read.
    """
    path = directory / "cost.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found = content.get("environment") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise ReportError(f"{path}: not readable as JSON ({error}); run `python -m pipelines.cost` again") from None
    if found.get("gpu"):
        return str(found["gpu"])
    threads = f", {found['threads']} thread{'s' * (found['threads'] != 1)}" if found.get("threads") else ""
    return f"{found['cpu']}{threads}" if found.get("cpu") else "a machine that cost.json does not name"
