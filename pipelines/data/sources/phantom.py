"""A seeded generator of OCT-like retinal B-scans: data for trying the whole pipeline without any download.

A scan is a stack of layers under a dark vitreous, with a foveal pit, speckle and vessel shadows. The classes differ as
the real ones do: CNV lifts the pigment epithelium (RPE) by reflective tissue with fluid over it, DME swells the retina
and opens dark cysts in it, drusen are small bumps under the RPE. The strength of a lesion varies down to nearly
invisible, so the classes overlap. It imitates, it does not simulate: results on it say nothing about patients.

Lengths are fractions of the image height (depths, thicknesses) or of half its width (positions across, in -1..1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import SPLITS, Allocate, DataError, Dataset

CLASSES = ["CNV", "DME", "DRUSEN", "NORMAL"]
CYSTS = 7
OUTER_NUCLEAR = 4  # its place in LAYERS
BUMPS = 7
# From the inner limiting membrane down: share of the retina's thickness, how much of it the foveal pit takes away, how
# much swelling it takes up, reflectivity. In order: nerve fibres, ganglion runs and inner plexiform, inner nuclear,
# outer plexiform, outer nuclear, ellipsoid zone, outer segments.
LAYERS = np.array(
    [
        (0.13, 1.0, 0.1, 0.72),
        (0.25, 0.97, 0.3, 0.42),
        (0.15, 0.92, 0.9, 0.20),
        (0.09, 0.75, 0.3, 0.46),
        (0.24, -0.25, 0.9, 0.15),
        (0.06, 0.0, 0.0, 0.66),
        (0.08, 0.0, 0.0, 0.33),
    ]
)
VITREOUS, FLUID, RPE, CHOROID = 0.02, 0.05, 0.95, 0.42


@dataclass(frozen=True)
class Scanner:
    """What differs between the two domains, as it does between devices and their protocols."""

    depth: tuple[float, float]  # of Bruch's membrane, at the centre of the scan
    thickness: tuple[float, float]  # of the retina
    bow: tuple[float, float]  # curvature
    looks: float  # of speckle: the higher, the smoother
    noise: float  # background, as reflectivity
    decay: float  # length over which the choroid fades
    blur: float  # lateral correlation of speckle
    floor: float  # reflectivity that is shown as black
    contrast: float  # exponent of the displayed grey: the higher, the darker all but the brightest layers


SCANNERS = {
    "source": Scanner((0.55, 0.72), (0.22, 0.30), (-0.02, 0.12), 2.6, 0.05, 0.13, 0.0, 0.025, 1.1),
    "target": Scanner((0.52, 0.74), (0.27, 0.38), (-0.07, 0.05), 3.0, 0.03, 0.08, 0.35, 0.03, 1.7),
}


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """Scans as `data.phantom` asks, in the order train, val, test; the splits are the same for all `seeds`.

    Raises:
        DataError: a split smaller than the number of classes.
    """
    images, labels, splits = generate(data.phantom, data.image_size, allocate)
    origin = {
        "source": f"phantom scans, domain {data.phantom.domain}, seed {data.phantom.seed}",
        "licence": "generated; as the code",
        "note": "Made by a program to try the pipeline; results on these scans say nothing about patients.",
        "preparation": "rendered at 64 px or more, averaged over squares down to the image size",
    }
    preprocessing = Preprocessing(size=data.image_size, fit=data.fit)
    return Dataset(images, labels, list(CLASSES), splits, preprocessing, origin=origin)


def generate(settings, image_size: int, allocate: Allocate = lambda shape: np.zeros(shape, np.uint8)):
    """Make the scans of one `pipelines.profile.data.Phantom` section.

    Returns:
        images uint8 (N, image_size, image_size), labels int64 (N,), splits {"train", "val", "test": indices}.

    Raises:
        DataError: a split smaller than the number of classes.
    """
    counts = {split: getattr(settings, split) for split in SPLITS}
    for split, count in counts.items():
        if count < len(CLASSES):
            raise DataError(f"data.phantom.{split}: {count} images cannot hold {len(CLASSES)} classes; raise it")
    labels = np.concatenate([np.arange(count) % len(CLASSES) for count in counts.values()]).astype(np.int64)
    images = allocate((len(labels), image_size, image_size))
    splits = dict(zip(counts, np.split(np.arange(len(labels)), np.cumsum([*counts.values()])[:-1])))
    domain, chunk = list(SCANNERS).index(settings.domain), _chunk(image_size)
    for number, indices in enumerate(splits.values()):
        for first in range(0, len(indices), chunk):
            own = indices[first : first + chunk]
            # One stream an image: more or fewer images of one split leave all others as they are.
            streams = [np.random.default_rng([settings.seed, domain, number, first + i]) for i in range(len(own))]
            images[own] = render(labels[own], streams, image_size, SCANNERS[settings.domain])
    return images, labels, splits


def render(labels: np.ndarray, streams: Sequence[np.random.Generator], image_size: int, scanner: Scanner) -> np.ndarray:
    """Draw one scan a label from its own random stream: uint8 (B, image_size, image_size)."""
    size = _render_size(image_size)
    # Double precision throughout: last-digit differences between processors then never reach the 8-bit result.
    uniforms = iter(np.stack([stream.random(128) for stream in streams]).T)

    def between(low, high):
        """One uniform number an image, (B, 1): each call takes the next of the image's stream."""
        return low + (high - low) * next(uniforms)[:, None]

    texture = np.stack([stream.standard_normal((12, 12)) for stream in streams])
    speckle = np.stack([stream.standard_gamma(scanner.looks, (size, size)) for stream in streams])
    x = np.linspace(-1, 1, size)[None]
    y = ((np.arange(size) + 0.5) / size)[None, :, None]

    def below(curve):
        """1 under a curve (B, size), 0 over it, and the covered part of the pixel on it."""
        return np.clip((y - curve[:, None]) * size + 0.5, 0, 1)

    def bell(centre, width):
        return np.exp(-(((x - centre) / width) ** 2))

    # Shape of the retina.
    bruch = between(*scanner.depth) + between(-0.10, 0.10) * x + between(*scanner.bow) * x**2
    for frequency in (2.0, 5.0):
        bruch = bruch + between(0, 0.010) / frequency * np.sin(frequency * np.pi * x + between(0, 2 * np.pi))
    thickness = between(*scanner.thickness)
    fovea = between(-0.45, 0.45)
    pit = between(0.35, 0.95) * bell(fovea, between(0.18, 0.38))

    # Lesions. All numbers are drawn for every class, so that the class changes the lesion and nothing else.
    strength = 0.05 + 0.95 * between(0, 1) ** 0.6
    cnv, dme, drusen = (strength * (labels == CLASSES.index(name))[:, None] for name in CLASSES[:3])
    place = between(-0.5, 0.5)
    membrane = cnv * between(0.05, 0.15) * bell(place, between(0.15, 0.38))
    membrane = membrane * (1 + 0.3 * np.sin(between(8, 20) * x + between(0, 2 * np.pi)))
    fluid = cnv * between(0.0, 0.10) * bell(place + between(-0.4, 0.4), between(0.2, 0.4))
    bumps = np.zeros_like(membrane)
    for number in range(BUMPS):
        present = between(0, 1) < 0.4 + 0.1 * number
        bumps = np.maximum(bumps, present * between(0.03, 0.075) * bell(between(-0.8, 0.8), between(0.06, 0.13)))
    lift = membrane + drusen * bumps
    oedema = between(-0.4, 0.4)
    swelling = dme * between(0.04, 0.20) * bell(oedema, between(0.3, 0.6))
    pit = pit * (1 - 0.7 * np.minimum(1, swelling / 0.12))

    # Boundaries, from the RPE upwards.
    share, thinned, swollen, reflectivity = LAYERS.T
    rpe_top = bruch - lift - 0.035
    boundaries, edge = [], rpe_top - fluid
    for layer in reversed(range(len(LAYERS))):
        edge = edge - share[layer] * (thickness * (1 - thinned[layer] * pit) + swelling * swollen[layer] * 2)
        if layer == OUTER_NUCLEAR:
            # This soft layer gives way to what pushes from below, narrow bumps more than broad ones.
            edge = edge + 0.75 * drusen * bumps + 0.4 * membrane
        boundaries.append(edge)
    boundaries.reverse()

    # Reflectivity, painted from the vitreous down: each boundary adds the step to what lies under it.
    grain = _smooth(texture, size)
    scan = np.full((len(labels), size, size), VITREOUS)
    steps = np.diff(np.concatenate([[VITREOUS], reflectivity, [FLUID]]))
    for boundary, step in zip([*boundaries, rpe_top - fluid], steps):
        scan += step * below(boundary)
    scan += (RPE * (1 - 0.45 * np.minimum(1, membrane / 0.06)) - FLUID)[:, None] * below(rpe_top)
    under = below(rpe_top + 0.035)
    deposit = 0.55 + 0.25 * np.minimum(1, membrane / 0.05)
    scan = scan * (1 - under) + under * deposit[:, None] * (1 + 0.25 * grain)
    fade = np.exp(-np.maximum(y - bruch[:, None], 0) / scanner.decay)
    under = below(bruch)
    scan = scan * (1 - under) + under * CHOROID * fade * np.clip(1 + 0.55 * grain, 0.15, 2)
    _cysts(scan, dme, oedema, boundaries, between, x, y)

    # Shadows of vessels, below the inner retina; then what the device adds.
    shade = np.ones_like(bruch)
    for _ in range(4):
        present = between(0, 1) < 0.55
        shade = shade * (1 - present * between(0.2, 0.6) * bell(between(-1, 1), between(0.015, 0.05)))
    shade = shade * (1 - 0.35 * np.minimum(1, membrane / 0.08))
    scan *= 1 - below(boundaries[1]) * (1 - shade)[:, None]
    scan *= (1 + between(-0.25, 0.25) * x)[:, None] * between(0.75, 1.2)[:, None]
    return _expose(scan, speckle, image_size, scanner)


def _cysts(scan, dme, oedema, boundaries, between, x, y) -> None:
    """Darken ellipses between the inner nuclear and the outer nuclear layer, in place, where `dme` is not 0."""
    ill = np.flatnonzero(dme[:, 0] > 0)
    for number in range(CYSTS):
        present = between(0, 1) < 0.25 + 0.1 * number
        centre, height = np.clip(oedema + between(-0.35, 0.35), -1, 1), between(0.1, 0.9)
        half_width, half_depth = between(0.05, 0.13), between(0.02, 0.06)
        dark = (present * np.minimum(1, 1.5 * dme))[ill]
        top, bottom = (
            np.take_along_axis(b[ill], np.rint((centre[ill] + 1) / 2 * (x.shape[1] - 1)).astype(int), 1)
            for b in (boundaries[2], boundaries[5])
        )
        depth = top + height[ill] * (bottom - top)
        grown = (0.5 + 0.5 * dme)[ill]
        distance = ((x - centre[ill]) / (half_width[ill] * grown))[:, None] ** 2
        distance = distance + ((y - depth[:, None]) / (half_depth[ill] * grown)[:, None]) ** 2
        scan[ill] *= 1 - 0.9 * dark[:, None] * np.clip(2.5 - 2 * distance, 0, 1)


def _expose(scan, speckle, image_size: int, scanner: Scanner) -> np.ndarray:
    """Speckle, background noise, averaging down to the image size and log compression, as OCT is displayed."""
    speckle = speckle / scanner.looks
    side = scanner.blur / (1 + 2 * scanner.blur)
    speckle = (1 - 2 * side) * speckle + side * (np.roll(speckle, 1, 2) + np.roll(speckle, -1, 2))
    seen = (scan + scanner.noise) * speckle
    times = scan.shape[1] // image_size
    seen = seen.reshape(len(scan), image_size, times, image_size, times).mean((2, 4))
    shown = np.log(np.maximum(seen, scanner.floor) / scanner.floor) / np.log(1.6 / scanner.floor)
    return np.rint(255 * np.clip(shown, 0, 1) ** scanner.contrast).astype(np.uint8)


def _smooth(coarse: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of a coarse random field (B, n, n) to (B, size, size)."""
    n = coarse.shape[1]
    position = np.linspace(0, n - 1, size)
    weights = np.clip(1 - np.abs(position[:, None] - np.arange(n)), 0, None)
    return weights @ coarse @ weights.T


def _render_size(image_size: int) -> int:
    """The first multiple of the image size that is at least 64: small images are averages of larger ones."""
    return image_size * -(-64 // image_size)


def _chunk(image_size: int) -> int:
    """How many scans to draw at once: few enough that the arrays stay small (8 MB each)."""
    return max(1, 2**20 // _render_size(image_size) ** 2)
