"""Fonts of figures: DejaVu Sans, which comes with matplotlib, and for scripts that it lacks what a machine has."""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

BASE = "DejaVu Sans"
# Of Chinese, Japanese and Korean: what Linux, macOS and Windows have, or can have by a package.
OTHERS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei",
    "Yu Gothic", "MS Gothic", "Malgun Gothic", "SimHei", "Droid Sans Fallback", "Unifont",
)  # fmt: skip


@cache
def families() -> tuple[str, ...]:
    """Font families in the order in which a character is looked for."""
    from matplotlib import font_manager

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a font that has no bold is no news
    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}  # from a cache that may be older than the fonts
    for path in font_manager.findSystemFonts():
        if path not in known and not Path(path).name.startswith("."):
            try:
                manager.addfont(path)
            except Exception:  # not every file that ends so is a font that FreeType reads
                continue
    installed = {font.name for font in manager.ttflist}
    return BASE, *(name for name in OTHERS if name in installed)


def cells(text: str) -> int:
    """How wide a text is drawn, in Latin letters: Chinese, Japanese and Korean characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def lacking(texts: Iterable[str]) -> str:
    """The characters of the texts that no font here has, each once."""
    from matplotlib import font_manager

    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families()]
    characters = dict.fromkeys(character for text in texts for character in text if character.isprintable())
    return "".join(one for one in characters if not any(font.get_char_index(ord(one)) for font in fonts))


def warning(texts: Iterable[str]) -> str | None:
    """One line where figures will show boxes in place of some characters of the texts, or None."""
    if not (found := lacking(texts)):
        return None
    shown = " ".join(found[:8]) + (" ..." if len(found) > 8 else "")
    return (
        f"no installed font has {shown}; pictures show boxes in their place (tables and pages keep the text): install "
        "a font that has them, for instance Noto Sans CJK (Debian: fonts-noto-cjk), and run again"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without a warning of matplotlib's for every character and every file; `warning` says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield
