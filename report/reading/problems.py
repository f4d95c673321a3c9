"""The error of the report."""

from pipelines.files.errors import UserError


class ReportError(UserError):
    """A result file that is missing or not as expected; the message names it and the stage that writes it."""
