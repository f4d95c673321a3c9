"""Any network cut into five blocks by what its modules put out for an image; computes nothing (meta device).

A *unit* is what is adapted as a whole: a layer, or a residual or transformer block. Units stand in the order in which
they run. Where the number of positions (height x width of a map, or tokens) falls, a block ends; so a CNN and a
hierarchical ViT such as Swin are cut by resolution. Of more than five levels the first are one block. Of fewer, what
comes before the most frequent kind of unit (the stem) is block 1 alone, and then the level with the most units is
halved until there are five: a ViT, which has one level, comes out as its stem and four quarters.
"""

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

BLOCKS = 5
WHOLE = 0.75  # a module with more than this share of all parameters is no unit, but is looked into


@dataclass(frozen=True)
class Unit:
    """A module of the network by its name, and the shape that it puts out for one image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    has_parameters: bool
    activates: bool = False

    @property
    def layout(self) -> str:
        """Of `shape`: "map" (C, h, w), "map, channels last" (h, w, C), "tokens" (N, C), or "vector"."""
        if len(self.shape) == 3:
            return "map, channels last" if self.shape[0] == self.shape[1] != self.shape[2] else "map"
        return "tokens" if len(self.shape) == 2 else "vector"

    @property
    def positions(self) -> int:
        if self.layout == "map":
            return self.shape[1] * self.shape[2]
        return {"map, channels last": self.shape[0] ** 2, "tokens": self.shape[0], "vector": 1}[self.layout]


def cut(network: nn.Module, image_size: int) -> dict[int, list[str]]:
    """Block number to the names of its units; fewer than five blocks where there are fewer units.

    Raises:
        RuntimeError, AssertionError, ValueError: the network's own, where it cannot take images of this size.
    """
    levels, lowest, pooled = [], 0, False
    for unit in units_of(network, image_size):
        # From the pooling of all positions on nothing opens a level.
        pooled = pooled or unit.layout == "vector" or bool(levels) and unit.positions == 1 and not unit.has_parameters
        if not levels or (not pooled and unit.positions < lowest):
            lowest = unit.positions
            levels.append([])
        levels[-1].append(unit)
    levels = [_without_ends(level) for level in levels]
    levels = [level for level in levels if level]
    while len(levels) > BLOCKS:
        levels[:2] = [levels[0] + levels[1]]
    if len(levels) < BLOCKS:
        stem = _stem_length(levels)
        levels[:1] = [part for part in (levels[0][:stem], levels[0][stem:]) if part]
    while len(levels) < BLOCKS:
        sizes = [sum(unit.has_parameters for unit in level) for level in levels]
        longest = sizes.index(max(sizes))
        if sizes[longest] < 2:
            break
        levels[longest : longest + 1] = _halves(levels[longest])
    return {number: [unit.name for unit in level] for number, level in enumerate(levels, start=1)}


def units_of(network: nn.Module, image_size: int) -> list[Unit]:
    """The units of a network in the order in which they first run. Raises as `cut`."""
    network = copy.deepcopy(network).to("meta", torch.float32).eval()
    shapes, order, handles = {}, [], []

    def remember(name):
        def hook(_module, _inputs, output):
            while isinstance(output, (tuple, list)) and output:
                output = output[0]
            if name not in shapes and isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape[1:])
                order.append(name)

        return hook

    for name, module in network.named_modules():
        handles.append(module.register_forward_hook(remember(name)))
    with torch.no_grad():
        network(torch.empty(1, 3, image_size, image_size, device="meta"))
    total = sum(p.numel() for p in network.parameters())
    names = [name for name in _names(network, "", total) if name in shapes]
    return [
        Unit(
            name,
            type(module).__name__,
            shapes[name],
            has_parameters=any(True for _ in module.parameters()),
            activates="activation" in type(module).__module__,  # torch.nn.modules.activation, timm.layers.activations
        )
        for name in sorted(names, key=order.index)
        if not isinstance(module := network.get_submodule(name), nn.Identity)
    ]


def _names(module, prefix, total):
    for name, child in module.named_children():
        most = sum(p.numel() for p in child.parameters()) > WHOLE * total and len(list(child.children())) > 1
        if isinstance(child, (nn.Sequential, nn.ModuleList)) or most:
            yield from _names(child, f"{prefix}{name}.", total)
        else:
            yield f"{prefix}{name}"


def _without_ends(level):
    """Without the pooling that begins a level, and what ends it beside activations: pooling, dropout, an empty head."""
    wanted = [place for place, unit in enumerate(level) if unit.has_parameters]
    if not wanted:
        return []
    last = next(place for place in reversed(range(len(level))) if level[place].has_parameters or level[place].activates)
    return level[wanted[0] : last + 1]


def _stem_length(levels) -> int:
    """How many units of the first level come before the network's most frequent kind; 0 where it has none of it."""
    kinds = Counter(unit.kind for level in levels for unit in level if unit.has_parameters)
    most = kinds.most_common(1)[0][0]
    return next((place for place, unit in enumerate(levels[0]) if unit.kind == most), 0)


def _halves(level):
    count = sum(unit.has_parameters for unit in level)
    starts = [place for place, unit in enumerate(level) if unit.has_parameters]
    middle = starts[count // 2]
    return [level[:middle], level[middle:]]
