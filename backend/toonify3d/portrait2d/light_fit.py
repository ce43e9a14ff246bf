"""The room's light from one person's colours: inverse lighting with cast shadows and Retinex.

Every place receives ``E = sum over directions d of L(d) max(n.d, 0) visible(d)`` (Lambert, distant
light); visibility is ray cast, so occlusion and cast shadows belong to the model (Sato, Sato and
Ikeuchi 2003). ``L >= 0`` is found by non-negative least squares such that ``E / luminance`` is the
same constant all over a material. What jumps within millimetres though the light does not is albedo
(Land and McCann's Retinex, on the residual of the light): those jumps are integrated over the
surface and taken out before the light is fitted again. So a half painted face keeps its paint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import nnls
from scipy.sparse.linalg import cg
from scipy.spatial import cKDTree

from ..raycast import MeshQuery
from ..room_light import LUMINANCE
from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DIRECTIONS = 192
"""Directions of the distant light: 14 degrees apart."""
BOUNCE = 0.2
"""Light that comes back from where the person hides the room, against the room's mean (measured
on a scan with known albedo: with 0 creases come out too bright, from 0.3 on too dark)."""
_OFFSET, _REACH = 0.003, 0.8
"""Metres: start of the rays above the surface, and how far the person can cast a shadow."""
_SMOOTH = 0.02
"""Weight of the light's smoothness over directions against the fit."""
_SCALE = 0.2
"""Log residual at which a place begins to count less (a brow, a mole)."""
_ROUNDS, _STEPS = 3, 6
"""Alternations of light and jumps; reweightings of one fit."""
_JUMP, _CHROMA_JUMP = 0.25, 0.15
"""Log steps of luminance and of chromaticity between neighbours that only albedo makes."""
_GREY = 0.3
"""Pull of the light's tint to none, against the normals' own spread (a third per axis)."""
_NEAR = 0.0085
"""Metres within which places are neighbours."""
_LEAST = 100
"""Places that a material needs to take part."""
MOST_GAIN, MOST_TINT = 1.0, 0.12
"""Bounds of the log light: luminance, and deviation of a channel from it."""


@dataclass(frozen=True)
class LitPlaces:
    """Places on the person with what the capture shows there.

    Attributes:
        points: ``(N, 3)`` world metres.
        normals: ``(N, 3)`` unit.
        colors: ``(N, 3)`` linear RGB.
        material: ``(N,)`` index of the material.
        weight: ``(N,)`` trust in the colour, 0 for places that must not count.
        reference: ``(N,)`` the middle of the face's skin, whose median luminance is kept.
    """

    points: FloatArray
    normals: FloatArray
    colors: FloatArray
    material: IntArray
    weight: FloatArray
    reference: BoolArray


@dataclass(frozen=True)
class LightFit:
    """The light that explains the shading.

    Attributes:
        directions: ``(D, 3)``.
        radiance: ``(D,)``, mean 1.
        gain: ``(N, 3)`` bounded log light at the places, median 0 on the reference.
        explained: Share of the shading's spread that the light explains, 0 to 1.
        restless: Share of neighbours on the reference between which only albedo can jump so.
        removed: Mean absolute luminance gain on the reference, log.
    """

    directions: FloatArray
    radiance: FloatArray
    gain: FloatArray
    explained: float
    restless: float
    removed: float

    @property
    def mean_direction(self) -> FloatArray:
        """Mean direction to the light weighted by radiance; its length is how one-sided it is."""
        total = (self.directions * self.radiance[:, None]).sum(axis=0)
        return np.asarray(total / max(float(self.radiance.sum()), 1e-12))


def sphere_directions(count: int) -> FloatArray:
    """``(count, 3)`` unit vectors spread evenly (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)


def light_transfer(
    points: FloatArray, normals: FloatArray, query: MeshQuery, directions: FloatArray
) -> FloatArray:
    """``(N, D)``: what unit light from each direction gives each place.

    An open place under even light gets 1 in all. What the person's own body hides gives back
    :data:`BOUNCE` of the mean light.
    """
    cosine = np.maximum(normals @ directions.T, 0.0) * (4.0 / len(directions))
    rows, columns = np.nonzero(cosine > 0)
    starts = points[rows] + _OFFSET * normals[rows]
    free = query.cast(starts, directions[columns], _REACH).face < 0
    direct = np.zeros_like(cosine)
    direct[rows[free], columns[free]] = cosine[rows[free], columns[free]]
    hidden = (cosine - direct).sum(axis=1, keepdims=True)
    return np.asarray(direct + BOUNCE * hidden / len(directions))


def fit_light(places: LitPlaces, query: MeshQuery) -> LightFit | None:
    """Estimate the light; None when no material has enough places.

    Args:
        places: Some thousand of them, about 5 mm apart.
        query: The person's surface, world metres.
    """
    counted = np.bincount(places.material, weights=places.weight > 0)
    used = np.flatnonzero(counted >= _LEAST)
    weight = places.weight * np.isin(places.material, used)
    if not len(used) or not (places.reference & (weight > 0)).any():
        return None
    directions = sphere_directions(DIRECTIONS)
    transfer = light_transfer(places.points, places.normals, query, directions)
    luminance = np.log(np.maximum(places.colors @ LUMINANCE, 1e-3))
    chroma = _chromaticity(places.colors)
    pairs = _neighbours(places)
    smooth = _smoothness(directions)
    jumps = np.zeros(len(luminance))
    for step in range(_ROUNDS + 1):
        even = luminance - jumps
        radiance = _solve(transfer, even, places.material, used, weight, smooth)
        light = np.log(np.maximum(transfer @ radiance, 1e-3))
        if step < _ROUNDS:
            steps = _steps_of_albedo(luminance - light, chroma, pairs)
            jumps = _integrate(steps, pairs, weight)
    reference = places.reference & (weight > 0)
    gain = light - np.median(light[reference])
    gain = _even_out(_bounded(gain, MOST_GAIN), pairs, len(gain))
    tint = _tint(places, chroma, transfer.sum(axis=1), weight)
    return LightFit(
        directions,
        radiance,
        gain[:, None] + tint - np.median(tint[reference], axis=0),
        _explained(even, light, places.material, weight),
        _share_of_steps(steps[reference[pairs].all(axis=1)]),
        float(np.abs(gain[reference]).mean()),
    )


def _solve(
    transfer: FloatArray,
    luminance: FloatArray,
    material: IntArray,
    used: IntArray,
    weight: FloatArray,
    smooth: FloatArray,
) -> FloatArray:
    """``L (D,)``: ``transfer @ L / exp(luminance)`` is one constant per material, robustly."""
    count, slot = transfer.shape[1], np.searchsorted(used, np.clip(material, 0, used[-1]))
    level = np.array([np.median(luminance[(material == m) & (weight > 0)]) for m in used])
    relative = np.exp(luminance - level[slot])
    rows = np.concatenate([transfer / relative[:, None], -np.eye(len(used))[slot]], axis=1)
    even = np.zeros(rows.shape[1])
    even[:count] = 1.0 / count
    prior = 10.0 * np.outer(even, even)  # fixes the scale: mean light 1
    prior[:count, :count] += _SMOOTH / count * smooth
    trust = np.ones(len(rows))
    for _ in range(_STEPS):
        share = weight * trust
        normal = (rows * share[:, None]).T @ rows / max(float(share.sum()), 1e-9) + prior
        root = np.linalg.cholesky(normal + 1e-9 * np.eye(len(normal))).T
        answer, _ = nnls(root, np.linalg.solve(root.T, 10.0 * even), maxiter=20 * len(even))
        ratio = np.maximum(transfer @ answer[:count], 1e-3) / relative
        off = np.log(ratio / np.maximum(answer[count:][slot], 1e-3))
        trust = (1.0 + (off / _SCALE) ** 2) ** -2.0
    radiance = answer[:count]
    return np.asarray(radiance / max(float(radiance.mean()), 1e-9))


def _smoothness(directions: FloatArray) -> FloatArray:
    """``(D, D)`` squared difference of each direction's light from its six neighbours' mean."""
    _, near = cKDTree(directions).query(directions, 7)
    matrix = np.eye(len(directions))
    for row, others in enumerate(near[:, 1:]):
        matrix[row, others] -= 1 / 6
    return np.asarray(matrix.T @ matrix)


def _chromaticity(colors: FloatArray) -> FloatArray:
    """``(N, 2)`` log R/G and B/G, calmed where it is dark."""
    safe = np.log(colors + 0.01)
    return np.asarray(safe[:, [0, 2]] - safe[:, [1]])


def _neighbours(places: LitPlaces) -> IntArray:
    """Pairs ``(E, 2)`` of one material on the same side of the surface."""
    pairs = cKDTree(places.points).query_pairs(_NEAR, output_type="ndarray").astype(np.int64)
    first, second = pairs.T
    same = places.material[first] == places.material[second]
    same &= (places.normals[first] * places.normals[second]).sum(axis=1) > 0.3
    return np.asarray(pairs[same])


def _steps_of_albedo(residual: FloatArray, chroma: FloatArray, pairs: IntArray) -> FloatArray:
    """``(E,)`` differences of what the light leaves between neighbours; 0 where they are small."""
    first, second = pairs.T
    step = residual[first] - residual[second]
    tinted = np.abs(chroma[first] - chroma[second]).max(axis=1) > _CHROMA_JUMP
    return np.asarray(np.where((np.abs(step) > _JUMP) | tinted, step, 0.0))


def _share_of_steps(steps: FloatArray) -> float:
    return float((steps != 0).mean()) if len(steps) else 0.0


def _integrate(step: FloatArray, pairs: IntArray, weight: FloatArray) -> FloatArray:
    """``(N,)`` log albedo with these steps: a Poisson solve over the surface.

    A gap in a border is outvoted by the rest of it, where a flood fill would leak.
    """
    first, second = pairs.T
    trust = sparse.diags(np.minimum(weight[first], weight[second]) + 1e-3)
    edge = np.arange(len(pairs))
    shape = (len(pairs), len(weight))
    ones = np.ones(len(pairs))
    gradient = (
        sparse.coo_matrix((ones, (edge, first)), shape)
        - sparse.coo_matrix((ones, (edge, second)), shape)
    ).tocsr()
    system = (gradient.T @ trust @ gradient + 1e-3 * sparse.eye(len(weight))).tocsr()
    scale = sparse.diags(1.0 / system.diagonal())
    answer, _ = cg(system, gradient.T @ (trust @ step), rtol=1e-4, maxiter=600, M=scale)
    return np.asarray(answer)


def _even_out(values: FloatArray, pairs: IntArray, count: int) -> FloatArray:
    """Mean with the neighbours, twice: the directions are few, so shadows have small steps."""
    ones = np.ones(len(pairs))
    half = sparse.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (count, count))
    mean = (half + half.T + 2 * sparse.eye(count)).tocsr()
    total = np.asarray(mean.sum(axis=1)).ravel()
    for _ in range(2):
        values = np.asarray(mean @ values) / total
    return values


def _tint(places: LitPlaces, chroma: FloatArray, sky: FloatArray, weight: FloatArray) -> FloatArray:
    """``(N, 3)`` deviation of the light's channels from its luminance: linear in the normal and in
    how open a place is, robust, with a strong pull to none (rooms are nearly grey)."""
    inputs = np.concatenate([places.normals, (sky - 1.0)[:, None]], axis=1)
    base = np.zeros_like(chroma)
    for m in np.unique(places.material):
        chosen = (places.material == m) & (weight > 0)
        if chosen.any():
            base[places.material == m] = np.median(chroma[chosen], axis=0)
    off = chroma - base
    trust = weight.copy()
    for _ in range(4):
        moment = (inputs * trust[:, None]).T @ inputs / max(float(trust.sum()), 1e-9)
        wanted = (inputs * trust[:, None]).T @ off / max(float(trust.sum()), 1e-9)
        found = np.linalg.solve(moment + _GREY * np.eye(4), wanted)
        left = off - inputs @ found
        trust = weight / (1.0 + (np.abs(left).max(axis=1) / 0.08) ** 2) ** 2
    ratio = inputs @ found
    rgb = np.stack([ratio[:, 0], np.zeros(len(ratio)), ratio[:, 1]], axis=1)
    rgb = rgb - (rgb @ LUMINANCE)[:, None]
    return _bounded(rgb, MOST_TINT)


def _bounded(values: FloatArray, most: float) -> FloatArray:
    """Nearly unchanged up to half of ``most``, which is never exceeded."""
    return np.asarray(values / (1.0 + np.abs(values / most) ** 4) ** 0.25)


def _explained(
    luminance: FloatArray, light: FloatArray, material: IntArray, weight: FloatArray
) -> float:
    """1 - (spread after) / (spread before), mean absolute deviations within the materials."""
    before, after = 0.0, 0.0
    for m in np.unique(material):
        chosen = (material == m) & (weight > 0)
        if chosen.any():
            for values, rest in ((luminance, False), (luminance - light, True)):
                spread = float(np.abs(values[chosen] - np.median(values[chosen])).sum())
                before, after = (before, after + spread) if rest else (before + spread, after)
    return 1.0 - after / max(before, 1e-9)
