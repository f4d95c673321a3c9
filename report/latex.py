"""Old name of report.text.latex, until nothing asks for it."""

from report.text.latex import latex  # noqa: F401
