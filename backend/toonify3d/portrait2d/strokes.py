"""Strokes of a painting or drawing, laid on a recoloured picture by guided patch synthesis.

What is synthesized is not the picture but its *strokes*: what the exemplar has beyond its own
edge-preserving smooth version. They are added to the recoloured person, so that a wrong patch can
misplace a stroke but never an eye. Every patch is found by looking at **all** patches of the
exemplar (one matrix product per pass), so nothing is random and the answer is the same every time;
guides are those of method_anchors B2 step 6: appearance at two scales, tone, stroke direction, soft
region labels, place on the face, and from the second pass on the strokes laid so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..scene import Float32Array
from .colorspace import blur, smooth_edges
from .strokeshift import PATCH, every_pixel, whole_strokes

IntArray = npt.NDArray[np.int64]
LABELS = 3
"""Soft labels of a region picture: skin, hair, everything else."""
_STYLE_DIMENSIONS = 16
_VOTES = (0.8, 1.2)
"""Widths in pixels of a patch's vote in the first rounds and in the last."""
_CHUNK_BYTES = 96_000_000
_LATTICE, _SLANT = 29.0, 0.45
_LEVELS = 33
_FLOW = 1.5
"""How much more the direction counts in hair, whose strokes are its strands."""
_BAND = 3.0
"""Pixels within which detail counts as stroke when its strength is measured."""
_GAINS = (0.8, 1.6)
_RARE = 0.01
"""A region with less than this share of the exemplar lends no strokes of its own."""

_STANDS_OUT = 1.7
"""Times the median strength of a region's strokes from which on a mark is not copied."""


@dataclass(frozen=True)
class GuideWeights:
    """How much each guide counts, squared distances of unit variance."""

    appearance: float = 1.0
    tone: float = 2.0
    direction: float = 2.0
    position: float = 1.5
    labels: float = 12.0
    phase: float = 1.2
    style: float = 2.0
    uniform: float = 0.5


@dataclass(frozen=True)
class Canvas:
    """A picture to take strokes from, or to lay them on.

    Attributes:
        lab: ``(H, W, 3)`` CIELAB of the smooth picture.
        labels: ``(H, W, 3)`` soft labels.
        place: ``(H, W, 2)`` x and y on the face (units of the eye distance, y up).
        inside: ``(H, W)`` bool, where strokes are taken from or wanted.
        grain: ``(H, W)`` L along whose structure strokes run (the strokes of the exemplar, the
            person's strands of hair); None for the smooth picture's.
    """

    lab: Float32Array
    labels: Float32Array
    place: Float32Array
    inside: npt.NDArray[np.bool_]
    grain: Float32Array | None = None


@dataclass(frozen=True)
class StrokeSource:
    """The exemplar made ready for searching.

    Attributes:
        strokes: ``(H, W, 3)`` CIELAB beyond the smooth picture.
        guides: ``(n, g)`` of every candidate patch.
        style: ``(n, s)`` what the strokes round it look like.
        basis: ``(patch, s)`` and ``mean`` ``(patch,)``: strokes to ``style``.
        spots: ``(n, 2)`` row and column of every candidate.
        usable: ``(H, W)`` bool, where the middle of a patch may lie.
        present: ``(3,)`` bool, labels of which there is enough.
        spread: ``(3, 3)`` standard deviation of the strokes per label and channel.
        energy: ``(3, 3)`` of the whole picture's finest band, see :func:`band_energy`.
        weights: The weights the guides were made with.
        device: Torch device on which patches are compared.
    """

    strokes: Float32Array
    guides: Float32Array
    style: Float32Array
    basis: Float32Array
    mean: Float32Array
    spots: IntArray
    usable: npt.NDArray[np.bool_]
    present: npt.NDArray[np.bool_]
    spread: Float32Array
    energy: Float32Array
    weights: GuideWeights
    device: str = "cpu"


def split_strokes(
    lab: Float32Array, reach: float, contrast: float
) -> tuple[Float32Array, Float32Array]:
    """A picture ``(H, W, 3)`` as smooth part and strokes (their sum is the picture).

    Args:
        lab: CIELAB.
        reach: Pixels over which strokes are smoothed away.
        contrast: CIELAB difference above which an edge is form, not a stroke.
    """
    smooth = smooth_edges(lab, contrast, reach)
    smooth = smooth_edges(smooth, contrast, reach)
    return smooth, np.asarray(lab - smooth, np.float32)


def prepare_source(
    canvas: Canvas, strokes: Float32Array, weights: GuideWeights, limit: int = 22_000
) -> StrokeSource:
    """Describe every patch of the exemplar.

    Args:
        canvas: The exemplar at the size at which its strokes are to appear.
        strokes: ``(H, W, 3)`` to go with it.
        weights: What counts.
        limit: At most about this many candidates (an even choice).
    """
    height, width = canvas.inside.shape
    shares = canvas.labels[canvas.inside].mean(0) if canvas.inside.any() else np.zeros(LABELS)
    present = shares > _RARE
    strokes = _without_outliers(strokes, canvas)
    usable = np.zeros((height, width), bool)
    # At a border of regions lies the painted person's outline, not the painter's hand.
    clear = (canvas.labels.max(2) > 0.8).astype(np.uint8)
    clear = _large(cv2.erode(clear, np.ones((2 * PATCH + 1,) * 2, np.uint8)), canvas)
    usable[PATCH : height - PATCH, PATCH : width - PATCH] = True
    clear = clear & ~_singular(strokes, canvas, clear)
    rows, columns = np.nonzero(canvas.inside & usable & clear)
    if not len(rows):
        clear = np.ones_like(clear)
        rows, columns = np.nonzero(canvas.inside & usable)
    step = max(1, int(np.ceil(np.sqrt(len(rows) / limit))))
    keep = (rows % step == 0) & (columns % step == 0)
    spots = np.stack([rows[keep], columns[keep]], 1)
    patches = _patches(strokes, spots)
    mean = patches.mean(0)
    basis, style = _principal(patches - mean)
    guides = _guides(canvas, present, weights)[spots[:, 0], spots[:, 1]]
    spread = np.stack([_deviation(strokes, canvas, label) for label in range(LABELS)])
    energy = band_energy(
        np.asarray(canvas.lab + strokes, np.float32), canvas, clear & canvas.inside
    )
    return StrokeSource(
        strokes,
        guides,
        style,
        basis,
        mean,
        spots,
        usable & clear & canvas.inside,
        present,
        spread,
        energy,
        weights,
    )


def _large(clear: npt.NDArray[Any], canvas: Canvas) -> npt.NDArray[np.bool_]:
    """Without islands of a label too small to copy more than one stroke from."""
    out = np.zeros(clear.shape, bool)
    for label in range(LABELS):
        own = ((clear > 0) & canvas.inside & (canvas.labels[..., label] > 0.5)).astype(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(own, connectivity=4)
        size = stats[:, cv2.CC_STAT_AREA].astype(float)
        size[0] = 0.0
        out |= np.asarray(size > max(0.05 * size.sum(), 30.0))[parts]
    return out


def _singular(
    strokes: Float32Array, canvas: Canvas, clear: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Where ``(H, W)`` a mark stands out from all others of its region.

    One dark fold of a smooth cloth, laid again and again, looks like scales.
    """
    power = blur(np.asarray((strokes**2).sum(2), np.float32), float(PATCH))
    strength = np.sqrt(np.maximum(power, 0))
    out = np.zeros(strength.shape, bool)
    for label in range(LABELS):
        own = clear & canvas.inside & (canvas.labels[..., label] > 0.5)
        if own.any():
            out |= own & (strength > _STANDS_OUT * np.median(strength[own]))
    return out


def band_energy(
    lab: Float32Array, canvas: Canvas, clear: npt.NDArray[np.bool_] | None = None
) -> Float32Array:
    """Robust spread ``(3, 3)`` of the finest band per label and channel; NaN where unknown.

    Args:
        lab: ``(H, W, 3)`` CIELAB.
        canvas: Its regions.
        clear: Where to look; None for all of the canvas but its regions' borders.
    """
    if clear is None:
        near = (canvas.inside & (canvas.labels.max(2) > 0.8)).astype(np.uint8)
        clear = cv2.erode(near, np.ones((2 * PATCH + 1,) * 2, np.uint8), borderValue=(0,)) > 0
    band = lab - blur(lab, _BAND)
    out = np.full((LABELS, 3), np.nan, np.float32)
    for label in range(LABELS):
        chosen = clear & (canvas.labels[..., label] > 0.8)
        if chosen.sum() > 200:
            # Quantiles: eyes, nostrils and folds are no strokes, however much they contrast.
            out[label] = np.subtract(*np.quantile(band[chosen], [0.84, 0.16], axis=0)) / 2
    return out


def matching_gain(
    wanted: Float32Array, base: Float32Array, strokes: Float32Array, canvas: Canvas
) -> Float32Array:
    """Factor ``(3, 3)`` per label and channel that brings strokes on a base to a band's energy.

    Args:
        wanted: ``(3, 3)`` from :func:`band_energy` of the exemplar.
        base: ``(H, W, 3)`` CIELAB without strokes.
        strokes: ``(H, W, 3)``.
        canvas: The regions.
    """
    without, alone = band_energy(base, canvas), band_energy(strokes, canvas)
    missing = np.sqrt(np.maximum(wanted**2 - without**2, 0))
    gain = np.clip(missing / np.maximum(alone, 0.05), *_GAINS)
    return np.asarray(np.where(np.isfinite(gain), gain, 1.0), np.float32)


def _without_outliers(strokes: Float32Array, canvas: Canvas) -> Float32Array:
    """Softly limit strokes to what nearly all of their region's strokes reach."""
    out = np.zeros_like(strokes)
    for label in range(LABELS):
        chosen = canvas.inside & (canvas.labels[..., label] > 0.5)
        if chosen.sum() < 20:
            chosen = canvas.inside
        reach = np.quantile(np.abs(strokes[chosen]), 0.9, axis=0) if chosen.any() else 1.0
        limit = np.maximum(1.3 * reach, 0.5)
        out += canvas.labels[..., label, None] * limit * np.tanh(strokes / limit)
    return np.asarray(out / np.maximum(canvas.labels.sum(2), 1e-3)[..., None], np.float32)


def lay_strokes(
    source: StrokeSource, canvas: Canvas, known: Float32Array, fixed: Float32Array, passes: int = 3
) -> Float32Array:
    """Find strokes for a canvas.

    Args:
        source: The exemplar's patches.
        canvas: What they are laid on.
        known: ``(H, W, 3)`` strokes that lie already (from a neighbouring frame).
        fixed: ``(H, W)`` 0..1 how far they are to stay; 1 is not searched again.
        passes: Rounds of search and vote.

    Returns:
        ``(H, W, 3)`` CIELAB offsets, 0 outside the canvas.
    """
    spots = _targets(canvas, fixed)
    out = np.asarray(known * fixed[..., None], np.float32)
    if not len(spots) or not len(source.spots):
        return np.asarray(out, np.float32)
    guides = _guides(canvas, source.present, source.weights)
    wanted = guides[spots[:, 0], spots[:, 1]]
    counts = np.zeros(len(source.spots))
    anything = float(fixed.max()) > 0.5
    for turn in range(passes):
        trust = 0.0 if turn == 0 and not anything else source.weights.style
        near = (_patches(out, spots) - source.mean) @ source.basis if trust else None
        even = source.weights.uniform * np.minimum(counts / max(float(counts.mean()), 1e-9), 6.0)
        best = _search(source, wanted, near, trust, even.astype(np.float32))
        counts = np.bincount(best, minlength=len(source.spots)).astype(float)
        places = source.spots[best]
        if turn + 1 == passes:
            places = whole_strokes(source.usable, spots, places, canvas.inside.shape)
            spots, places = every_pixel(source.usable.shape, spots, places, canvas.inside.shape)
        # Patches that do not agree yet must not be averaged: the mean of strokes is no stroke, and
        # the next round would look for flat patches to go with it.
        spread = _VOTES[0] if turn + 1 < passes else _VOTES[1]
        voted = _vote(source, spots, places, canvas.inside.shape, spread)
        kept = fixed[..., None]
        out = np.asarray(known * kept + voted * (1 - kept), np.float32)
        out = _revive(out, source, canvas, fixed)
    return np.asarray(out * canvas.inside[..., None], np.float32)


def _targets(canvas: Canvas, fixed: Float32Array) -> IntArray:
    """Every other pixel in both directions where strokes are still wanted."""
    height, width = canvas.inside.shape
    missing = canvas.inside & (fixed < 0.99)
    near = cv2.dilate(missing.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    grid = np.zeros((height, width), bool)
    grid[PATCH : height - PATCH : 2, PATCH : width - PATCH : 2] = True
    rows, columns = np.nonzero(near & grid)
    return np.stack([rows, columns], 1)


def _search(
    source: StrokeSource,
    wanted: Float32Array,
    near: Float32Array | None,
    trust: float,
    penalty: Float32Array,
) -> IntArray:
    """Index of the best candidate for every target: all pairs, in chunks."""
    candidates, targets = source.guides, wanted
    if near is not None:
        root = np.float32(np.sqrt(trust))
        candidates = np.concatenate([candidates, source.style * root], 1)
        targets = np.concatenate([targets, near * root], 1)
    device = source.device
    bank = torch.from_numpy(np.ascontiguousarray(candidates, np.float32)).to(device)
    cost = (bank**2).sum(1) + torch.from_numpy(penalty).to(device)
    chunk = max(64, _CHUNK_BYTES // (4 * len(bank)))
    best = []
    for start in range(0, len(targets), chunk):
        part = torch.from_numpy(np.ascontiguousarray(targets[start : start + chunk], np.float32))
        best.append(torch.addmm(cost, part.to(device), bank.T, alpha=-2.0).argmin(1).cpu())
    return np.asarray(torch.cat(best).numpy(), np.int64)


def _vote(
    source: StrokeSource,
    spots: IntArray,
    found: IntArray,
    shape: tuple[int, ...],
    spread: float,
) -> Float32Array:
    """Average of all patches over each pixel, heavier in a patch's middle."""
    total = np.zeros((*shape, 3), np.float32)
    weight = np.zeros(shape, np.float32)
    for dy in range(-PATCH, PATCH + 1):
        for dx in range(-PATCH, PATCH + 1):
            amount = np.float32(np.exp(-(dy * dy + dx * dx) / (2 * spread**2)))
            row, column = spots[:, 0] + dy, spots[:, 1] + dx  # all different: no two collide
            total[row, column] += amount * source.strokes[found[:, 0] + dy, found[:, 1] + dx]
            weight[row, column] += amount
    return np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)


def _revive(
    strokes: Float32Array, source: StrokeSource, canvas: Canvas, fixed: Float32Array
) -> Float32Array:
    """Give back the contrast that averaging took, per label and channel."""
    gain = np.zeros_like(strokes)
    cover = np.maximum(canvas.labels.sum(2), 1e-3)
    for label in range(LABELS):
        own = _deviation(strokes, canvas, label)
        ratio = np.clip(source.spread[label] / np.maximum(own, 1e-3), 0.7, 2.0)
        ratio = ratio if source.present[label] else np.ones(3)
        gain += (canvas.labels[..., label] / cover)[..., None] * ratio.astype(np.float32)
    free = (1 - fixed)[..., None]
    return np.asarray(strokes * (1 + (gain - 1) * free), np.float32)


def _deviation(strokes: Float32Array, canvas: Canvas, label: int) -> Float32Array:
    chosen = canvas.inside & (canvas.labels[..., label] > 0.5)
    if chosen.sum() < 20:
        return np.zeros(3, np.float32)
    return np.asarray(strokes[chosen].std(0), np.float32)


def _levels(canvas: Canvas, label: int) -> Float32Array:
    chosen = canvas.inside & (canvas.labels[..., label] > 0.5)
    if chosen.sum() < 20:
        chosen = canvas.inside
    values = canvas.lab[chosen][:, 0] if chosen.any() else np.array([0.0, 100.0])
    levels = np.quantile(values, np.linspace(0, 1, _LEVELS))
    return np.asarray(np.maximum.accumulate(levels + np.arange(_LEVELS) * 1e-3), np.float32)


def _patches(image: Float32Array, spots: IntArray) -> Float32Array:
    """Flattened 5 x 5 surroundings ``(n, 25 * 3)`` of ``spots``."""
    padded = cv2.copyMakeBorder(image, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    parts = [
        padded[spots[:, 0] + 2 + dy, spots[:, 1] + 2 + dx]
        for dy in range(-2, 3)
        for dx in range(-2, 3)
    ]
    return np.concatenate(parts, axis=1)


def _principal(centered: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Principal directions scaled so that all of them together have variance 1 per patch."""
    covariance = centered.T @ centered / max(len(centered), 1)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    chosen = np.argsort(values)[::-1][:_STYLE_DIMENSIONS]
    basis = vectors[:, chosen] / np.sqrt(max(float(values[chosen].sum()), 1e-9))
    basis = basis.astype(np.float32)
    return basis, np.asarray(centered @ basis, np.float32)


def _guides(
    canvas: Canvas,
    present: npt.NDArray[np.bool_],
    weights: GuideWeights,
) -> Float32Array:
    """``(H, W, g)`` descriptors whose squared distances add up to the guides' cost."""
    light = canvas.lab[..., 0]
    parts = []
    for fine, broad in ((1.0, 4.0), (2.5, 12.0)):
        band = blur(light, fine) - blur(light, broad)
        scale = max(float(band[canvas.inside].std()) if canvas.inside.any() else 1.0, 1.0)
        around = _around(np.asarray(band / scale, np.float32), round(2 * fine))
        parts.append(around * np.sqrt(weights.appearance / 2 / around.shape[2]))
    tone = _tone(canvas)
    parts.append(tone[..., None] * np.sqrt(weights.tone / (1 / 12)))
    grain = light if canvas.grain is None else canvas.grain
    lead = 1.0 + _FLOW * canvas.labels[..., 1:2]
    parts.append(_direction(grain) * lead * np.sqrt(weights.direction))
    reach = np.tanh(canvas.place / 2.5) * 2.5
    # Only a face has places for its strokes; hair and cloth are alike all over.
    near = 0.35 + 0.65 * canvas.labels[..., :1]
    parts.append(reach * near * np.sqrt(weights.position))
    parts.append(canvas.labels * present * np.sqrt(weights.labels))
    parts.append(_phase(light.shape) * np.sqrt(weights.phase))
    return np.asarray(np.concatenate(parts, axis=2), np.float32)


def _phase(shape: tuple[int, ...]) -> Float32Array:
    """Place on a slanted lattice of :data:`_LATTICE` pixels, as points of circles ``(H, W, 4)``.

    Where all other guides are nearly constant (a cheek), neighbours would all choose the same
    patch and smear it. With equal phases, neighbours choose neighbours: strokes are copied whole.
    The lattice is slanted so that what repeats lines up with nothing.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]] * (2 * np.pi / _LATTICE)
    along = columns * np.cos(_SLANT) + rows * np.sin(_SLANT)
    across = 1.13 * (rows * np.cos(_SLANT) - columns * np.sin(_SLANT))
    circle = (np.cos(along), np.sin(along), np.cos(across), np.sin(across))
    return np.asarray(np.stack(circle, axis=2), np.float32)


def _around(band: Float32Array, step: int) -> Float32Array:
    """A value and its eight neighbours ``step`` away, ``(H, W, 9)``."""
    padded = cv2.copyMakeBorder(band, step, step, step, step, cv2.BORDER_REPLICATE)
    height, width = band.shape
    shifts = (0, step, 2 * step)
    parts = [padded[y : y + height, x : x + width] for y in shifts for x in shifts]
    return np.asarray(np.stack(parts, axis=2), np.float32)


def _tone(canvas: Canvas) -> Float32Array:
    """Rank of L in its own region of its own picture, 0 dark to 1 light."""
    light = np.zeros(canvas.inside.shape, np.float32)
    cover = np.maximum(canvas.labels.sum(2), 1e-3)
    smooth = blur(canvas.lab[..., 0], 1.5)
    for label in range(LABELS):
        share = np.interp(smooth, _levels(canvas, label), np.linspace(0, 1, _LEVELS))
        light += (canvas.labels[..., label] / cover * share).astype(np.float32)
    return np.asarray(light, np.float32)


def _direction(light: Float32Array) -> Float32Array:
    """Doubled angle of the local structure times its clearness, ``(H, W, 2)``."""
    smooth = blur(light, 1.0)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8
    xx, yy, xy = blur(dx * dx, 4.0), blur(dy * dy, 4.0), blur(dx * dy, 4.0)
    size = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    clear = size / (xx + yy + 0.05)
    angle = np.stack([xx - yy, 2 * xy], axis=2) / np.maximum(size, 1e-9)[..., None]
    return np.asarray(angle * clear[..., None], np.float32)
