"""Words that captions and titles share."""

from collections.abc import Mapping, Sequence

MARK = "†"  # behind a method that never names some class
HIGHER = {  # of the verdict on 'the method is better'
    "supported": "more accurate than",
    "contradicted": "less accurate than",
    "inconclusive": "not told apart from",
}


def listed(names: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def plural(number: int, noun: str) -> str:
    """'1 method', '3 methods'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def few(names: Sequence[str], most: int = 4) -> str:
    """The names, or so many of them and how many more there are."""
    return listed(list(names)) if len(names) <= most + 1 else f"{', '.join(names[:most])} and {len(names) - most} more"


def unnamed(never: Mapping[str, Sequence[str]]) -> str:
    """What `MARK` means: the classes, by method, that it names for no test image; nothing where there are none."""
    if not never:
        return ""
    told = [f"{few(names, 3)} by {method}" for method, names in list(never.items())[:4]]
    more = f"; and by {plural(len(never) - 4, 'method')} more" if len(never) > 4 else ""
    return f" {MARK} Named for no test image: {'; '.join(told)}{more}."
