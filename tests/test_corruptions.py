"""Corruptions against SciPy, Pillow, theory in float64, and what a robustness test relies on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from pipelines.training.corruptions import KINDS, SEVERITIES, STRENGTHS, corrupt
from tests.conftest import SHARED


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scans(count=8, size=64, channels=1, dtype=torch.float32):
    """Layers that bend, over a dark ground, with some grain: like B-scans, (count, channels, size, size)."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.full((count, channels, size, size), 0.1)
    for image in images:
        middle = 0.4 + 0.2 * rng.random() + 0.1 * np.sin(6 * x + 6 * rng.random())
        for depth, level in ((-0.12, 0.4), (0, 0.3), (0.1, 0.7)):
            image += level * np.exp(-(((y - middle - depth) / 0.03) ** 2))
        image += 0.03 * rng.standard_normal(image.shape)
    return torch.from_numpy(images.clip(0, 1)).to(dtype)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(32, 32), (128, 128), (96, 224)])
def test_blur_is_scipys_gaussian_filter_with_sigma_a_part_of_each_side(size, severity):
    images = torch.rand(2, 3, *size, generator=seeded(), dtype=torch.float64)
    part = STRENGTHS["blur"][severity - 1]
    expected = ndimage.gaussian_filter(
        images.numpy(), (0, 0, part * size[0], part * size[1]), mode="reflect", truncate=4
    )
    np.testing.assert_allclose(corrupt(images, "blur", severity, seeded()).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_is_the_formula_in_float64(severity):
    images = scans(channels=3)
    exact = images.double().numpy()
    mean = exact.mean(axis=(1, 2, 3), keepdims=True)
    expected = mean + STRENGTHS["contrast"][severity - 1] * (exact - mean)
    np.testing.assert_allclose(corrupt(images, "contrast", severity, seeded()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gamma_darkens_or_brightens_each_image_by_the_formula(severity):
    images = scans(count=64, size=16)
    result = corrupt(images, "gamma", severity, seeded()).numpy()
    strength = STRENGTHS["gamma"][severity - 1]
    darker = result.mean(axis=(1, 2, 3)) < images.numpy().mean(axis=(1, 2, 3))
    assert 16 < darker.sum() < 48  # a fair coin stays within four deviations
    power = np.where(darker, strength, 1 / strength)[:, None, None, None]
    np.testing.assert_allclose(result, images.double().numpy() ** power, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speckle_has_the_moments_and_the_distribution_of_gamma(severity):
    grey = 0.05  # so low that nothing is clipped
    looks = STRENGTHS["speckle"][severity - 1]
    factors = (
        corrupt(torch.full((25, 1, 200, 200), grey).double(), "speckle", severity, seeded()).numpy().ravel() / grey
    )
    # Standard errors of a million draws: 1 / sqrt(L n) of the mean, about sqrt((2 + 6 / L) / n) of the variance.
    n = factors.size
    assert factors.mean() == pytest.approx(1, abs=4 / np.sqrt(looks * n))
    assert factors.var() * looks == pytest.approx(1, abs=4 * np.sqrt((2 + 6 / looks) / n) + 1e-3)
    assert stats.kstest(factors, stats.gamma(looks, scale=1 / looks).cdf).statistic < 0.005


def test_speckle_is_multiplicative_and_independent_from_pixel_to_pixel():
    low = corrupt(torch.full((1, 1, 64, 64), 0.05), "speckle", 3, seeded())
    high = corrupt(torch.full((1, 1, 64, 64), 0.2), "speckle", 3, seeded())
    torch.testing.assert_close(high, 4 * low)
    grain = (low[0, 0] - 0.05).numpy()
    for neighbour in (grain[1:] * grain[:-1], grain[:, 1:] * grain[:, :-1]):
        assert abs(neighbour.mean()) < 4 * grain.var() / 64


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [32, 96, 224])
def test_downsampling_is_pillows_bilinear_there_and_back(size, severity):
    images = scans(count=2, size=size)
    samples = min(STRENGTHS["downsampling"][severity - 1], size)
    result = corrupt(images, "downsampling", severity, seeded())
    for image, found in zip(images[:, 0].numpy(), result[:, 0].numpy()):
        small = Image.fromarray(image).resize((samples, samples), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def shifts(height, width, severity, seed, count=8):
    """Shift of each column in rows (count, width), read off the middle of ramps."""
    ramp = torch.linspace(0.25, 0.75, 2 * height - 1, dtype=torch.float64)[height // 2 : height // 2 + height]
    image = ramp.view(1, 1, -1, 1).expand(count, 1, height, width)
    moved = corrupt(image, "motion", severity, seeded(seed))
    return ((moved - image)[:, 0, height // 2] / (ramp[1] - ramp[0])).numpy()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_shifts_columns_along_depth_as_scipy_does(severity):
    images = scans(dtype=torch.float64)
    result = corrupt(images, "motion", severity, seeded(3)).numpy()
    rows, columns = np.mgrid[0:64, 0:64].astype(float)
    for image, found, shift in zip(images[:, 0].numpy(), result[:, 0], shifts(64, 64, severity, 3)):
        expected = ndimage.map_coordinates(image, [rows + shift, columns], order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_motion_is_the_same_part_of_the_scan_at_every_size():
    strength = STRENGTHS["motion"][3]
    paths = {size: shifts(size, size, 4, 0, count=200) / size / strength for size in (32, 128, 224)}
    for path in paths.values():
        np.testing.assert_allclose(path.mean(axis=1), 0, atol=1e-4)
        assert 0.4 < path.std() < 0.6
        jumps = (np.abs(np.diff(path)).max(axis=1) > 0.75).mean()
        assert 0.35 < jumps < 0.65
    # A column of 32 covers four of 128 and seven of 224: equal but at jumps, where it can hold both sides.
    for size in (128, 224):
        coarse = paths[size].reshape(200, 32, -1).mean(axis=2)
        assert (np.abs(coarse - paths[32]) < 0.1).mean() > 0.95


@pytest.mark.parametrize("size", [128, 224])
@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_changes_a_scan_more(kind, size):
    images = scans(size=size)
    if SHARED.joinpath("data", "oct1k").is_dir():
        files = sorted(SHARED.joinpath("data", "oct1k").glob("*/*.jpeg"))[::125]
        real = [np.asarray(Image.open(file).convert("L").resize((size, size)), np.float32) / 255 for file in files]
        images = torch.cat([images, torch.from_numpy(np.stack(real))[:, None]])
    changes = torch.stack([(corrupt(images, kind, s, seeded()) - images).square().mean((1, 2, 3)) for s in SEVERITIES])
    assert (changes[0] > 0).all()
    assert (changes.diff(dim=0) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_the_seed_only_and_not_on_batches_channels_or_type(kind):
    images = scans(count=8, size=33)  # odd, so that block-wise draws would show
    kept = images.clone()
    whole = corrupt(images, kind, 4, seeded())
    assert torch.equal(images, kept)
    assert whole.data_ptr() != images.data_ptr()
    assert torch.equal(whole, corrupt(images, kind, 4, seeded()))
    generator = seeded()
    parts = [corrupt(part, kind, 4, generator) for part in images.split([1, 4, 3])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    grey = corrupt(images.expand(-1, 3, -1, -1), kind, 4, seeded())
    torch.testing.assert_close(grey, whole.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(corrupt(images.double(), kind, 4, seeded()).float(), whole, rtol=0, atol=1e-4)
    differs = not torch.equal(corrupt(images, kind, 4, seeded(1)), whole)
    assert differs == (kind in ("speckle", "gamma", "motion"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_results_keep_shape_and_type_and_stay_in_range(kind, channels, dtype):
    images = torch.rand(2, channels, 20, 31, generator=seeded(), dtype=dtype).round()  # black and white: the ends
    for severity in SEVERITIES:
        result = corrupt(images.to(memory_format=torch.channels_last), kind, severity, seeded())
        assert (result.shape, result.dtype) == (images.shape, dtype)
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_images_deterministically(kind, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    images = scans(size=128)
    torch.use_deterministic_algorithms(True)
    try:
        result = corrupt(images.cuda(), kind, 4, seeded())
    finally:
        torch.use_deterministic_algorithms(False)
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), corrupt(images, kind, 4, seeded()), rtol=0, atol=1e-4)


GOOD = {"images": torch.zeros(1, 1, 8, 8), "kind": "blur", "severity": 1, "generator": torch.Generator()}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "fog"}, "kind: found 'fog', expected one of speckle"),
        ({"severity": 0}, "severity: found 0, expected an integer from 1 to 5"),
        ({"severity": 6}, "severity: found 6"),
        ({"severity": 2.0}, "severity: found 2.0"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, "images: found torch.uint8, expected float32"),
        ({"images": torch.zeros(1, 1, 8, 8, dtype=torch.float16)}, "images: found torch.float16"),
        ({"images": torch.zeros(1, 8, 8)}, r"images: found shape \(1, 8, 8\)"),
        ({"images": torch.zeros(1, 2, 8, 8)}, r"images: found shape \(1, 2, 8, 8\)"),
        ({"images": torch.zeros(0, 1, 8, 8)}, r"images: found shape \(0, 1, 8, 8\)"),
        ({"images": torch.full((1, 1, 8, 8), 1.5)}, "images: found values from 1.5 to 1.5, expected 0..1"),
        ({"images": torch.full((1, 1, 8, 8), -0.5)}, "images: found values from -0.5"),
        ({"images": torch.full((1, 1, 8, 8), float("nan"))}, "images: found values from nan"),
        ({"generator": SimpleNamespace(device=torch.device("cuda"))}, "generator: found one on cuda"),
    ],
)
def test_errors_name_the_argument_and_what_was_found(change, message):
    with pytest.raises(ValueError, match=message):
        corrupt(**{**GOOD, **change})
