"""Text that comes from data, as Markdown that shows just that text."""

import re

_ESCAPES = {"\\": "\\\\", "`": "\\`", "|": "\\|", "~": "\\~", "<": "&lt;", ">": "&gt;", "&": "&amp;"}


def plain(text) -> str:
    """`text` on one line, within which Markdown finds no HTML, link, picture, emphasis, code or end of a table's run.

    What shows as it stands is left alone: an asterisk between spaces, an underscore within a word, [brackets].
    Characters that cannot be seen, some of which turn the direction of writing, become question marks.
    """
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    text = text.translate(str.maketrans(_ESCAPES))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])|(?<=\S)\*|\*(?=\S)|\](?=[(\[:])", r"\\\g<0>", text)


def code(text) -> str:
    """`text` as code, out of which it cannot break."""
    return "`" + "".join("?" if c == "`" or not c.isprintable() else c for c in str(text)) + "`"
