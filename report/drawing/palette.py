"""A hue a kind of method: six, with black and grey, that stay apart under every colour blindness.

A family states its colour in its own file (`baselines.families`); what is here is the set that they choose from.

The least distance of any two is 12 in CIEDE2000 for protanopia, deuteranopia, tritanopia (Machado et al. 2009, full
severity) and normal sight; markers are a second channel. Methods of one kind are told apart by their names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

import baselines

COLORA, FULL, HEAD, PEFT = "CoLoRA", "full fine-tuning", "head-only", "other adaptation"
VIT, STATE_SPACE, KAN, SCRATCH = "ViT", "state space", "KAN", "CNN from scratch"

HUES = {
    COLORA: "#D55E00",
    FULL: "#111111",
    HEAD: "#8A8A8A",
    PEFT: "#1F5FD0",
    VIT: "#8F1D78",
    STATE_SPACE: "#E0A000",
    KAN: "#0A6B4F",
    SCRATCH: "#4FB3E0",
}
MARKERS = {
    COLORA: "o", FULL: "D", HEAD: "s", PEFT: "P", VIT: "^", STATE_SPACE: "v", KAN: "X", SCRATCH: "p",
}  # fmt: skip
INK, QUIET, RULE = "#222222", "#666666", "#B8B8B8"
SHADE = LinearSegmentedColormap.from_list("shade", ["#FFFFFF", "#1F5FD0"])


@dataclass(frozen=True)
class Looks:
    """How a method is drawn: its group (as `baselines.group`), kind of `HUES` (else its family's label), and colour."""

    group: str
    kind: str
    color: str


def looks(family: str, backbone: str | None) -> Looks:
    """A method's looks, by the facts in its family's file; a family that states no colour there takes its group's."""
    group = baselines.group(family, backbone)
    facts = baselines.families().get(family)
    color = (facts and facts.colour(group)) or HUES.get(group) or HUES[PEFT if group == baselines.CNN else SCRATCH]
    kind = next((kind for kind, hue in HUES.items() if hue.lower() == color.lower()), None)
    return Looks(group, kind or facts.label, color)


def present(kinds: Iterable[str]) -> list[str]:
    """The kinds that occur, in the order of legends."""
    found = dict.fromkeys(kinds)
    return [name for name in HUES if name in found] + [name for name in found if name not in HUES]


def luminance(color) -> float:
    """WCAG 2.2's relative luminance: 0 of black, 1 of white."""
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def ink(color: str) -> str:
    """The colour darkened until text in it stands out from white by 4.5 : 1, WCAG 2.2's contrast for small text."""
    rgb = np.array(to_rgb(color))
    while 1.05 / (luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.97
    return to_hex(rgb)
