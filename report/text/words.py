"""Words that captions and titles share."""

from collections.abc import Sequence


def listed(names: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def plural(number: int, noun: str) -> str:
    """'1 method', '3 methods'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def few(names: Sequence[str], most: int = 4) -> str:
    """The names, or so many of them and how many more there are."""
    return listed(list(names)) if len(names) <= most + 1 else f"{', '.join(names[:most])} and {len(names) - most} more"
