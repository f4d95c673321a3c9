"""The one error that a user meets: its message says what to change, so a command prints it without a traceback."""


class UserError(ValueError):
    """Something of the user's cannot be used: a file, a key, an argument.

    The message names it, what was found, what was expected, and the next step.
    """
