"""The report as files: README.md for the repository, one HTML page, tables, model cards."""

from report.pages.building import build, read
from report.pages.first_screen import Answer, answer, headline

__all__ = ["Answer", "answer", "build", "headline", "read"]
