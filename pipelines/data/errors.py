"""The error of this room."""

from pipelines.files.errors import UserError


class DataError(UserError):
    """Data that cannot be used; the message names the file or key, what was found, and what to do."""
