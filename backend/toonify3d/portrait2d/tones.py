"""A painting's light on the person's form, and the painting's tones region by region.

A painter's light is part of his style. It is measured on the painted face as a smooth function of
the surface's direction (spherical harmonics up to the second order: Ramamoorthi, Hanrahan 2001) and
shone on the person, whose own light, measured in the same way, is taken away first. What is left of
the person's light and shadow (sockets, nostrils, folds) stays. The sum gets the painting's own
distribution of lightness by a monotone curve with bounded slope, so that no gradient tears; colour
follows lightness as it does in that region of the painting. Everything is decided once for all
frames, from the surface and from colours that all views agree on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from ..capture import landmarks as lm
from ..meshes import edge_adjacency
from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample, to_lab
from .exemplar import Exemplar, person_mask
from .exemplarmasks import face_outline, like_wall, polygon
from .regions import Regions
from .surface import Observations

_LEVELS = 41
_SLOPES = (0.25, 1.75)
"""Least and largest factor between differences of lightness before and after."""
_BEYOND = 0.4
_KEPT = 0.85
"""Share of the person's own light and shadow that stays beside the painted light."""
_BALD_SHARE = 0.25
_MIN_PIXELS = 300
_SURELY_WORN = 0.25
"""Share of what lies below the chin that must be neither like hair nor like skin to be trusted as
the clothes; less is a rest of the background."""
_SKIN_HUE = 7.0
"""CIELAB difference up to which a colour below the chin is bare skin."""
_SMOOTHING = 24
"""Rounds of averaging over neighbouring vertices: pores have no part in the light's direction."""
_BRUSH_WIDTH, _HATCH_WIDTH = 0.008, 0.02
_FORESHORTENING, _EVEN_SHARE = (0.25, 4.0), 0.03
"""Bounds of how much a painted place counts for its foreshortening; blur of that, face widths."""
_STUDIO = np.array([40.0, -16.0, 14.0, 26.0, 0.0, 0.0, 0.0, 0.0])
_ROUND = 0.5
_CENTER, _RADII = np.array([0.0, 0.3, -1.2]), np.array([1.25, 1.8, 1.5])
"""A round head in the face frame (units of the eye distance)."""
_RIDGE = np.array([0.0, 0.02, 0.02, 0.02, 0.15, 0.15, 0.15, 0.15])


@dataclass(frozen=True)
class ToneCurve:
    """Lightness of a region to that of the painting, and the colour that goes with it.

    Attributes:
        source: ``(K,)`` increasing L of the person.
        goal: ``(K,)`` L in the painting.
        chroma: ``(K, 2)`` a and b at ``goal``.
        spread: Standard deviation of a and b round that colour.
    """

    source: Float32Array
    goal: Float32Array
    chroma: Float32Array
    spread: float

    def light(self, light: Float32Array) -> Float32Array:
        """L ``(...)`` in the painting; beyond the ends it goes on, flattened."""
        inside = np.clip(light, self.source[0], self.source[-1])
        out = np.interp(inside, self.source, self.goal) + _BEYOND * (light - inside)
        return np.asarray(np.clip(out, 1, 99), np.float32)

    def colour(self, light: Float32Array) -> Float32Array:
        """a and b ``(..., 2)`` that go with L ``(...)`` in the painting."""
        parts = [np.interp(light, self.goal, self.chroma[:, axis]) for axis in (0, 1)]
        return np.asarray(np.stack(parts, axis=-1), np.float32)

    def __call__(self, light: Float32Array) -> Float32Array:
        """CIELAB ``(..., 3)`` in the painting for the person's L ``(...)``."""
        out = self.light(light)
        return np.concatenate([out[..., None], self.colour(out)], axis=-1)


@dataclass(frozen=True)
class PaintTones:
    """What the frames of one painting share.

    Attributes:
        skin: For the person's relit skin.
        hair: For hair and beard; None where there is none on either side.
        clothes: For clothes.
        chroma_gain: Person's own variation of skin colour to the painting's.
        coloured: False when only the tone is used (ink).
    """

    skin: ToneCurve
    hair: ToneCurve | None
    clothes: ToneCurve | None
    chroma_gain: float
    coloured: bool = True


def make_tones(
    exemplar: Exemplar,
    targets: FloatArray,
    places: tuple[FloatArray, FloatArray],
    normals: tuple[FloatArray, FloatArray],
    faces: npt.NDArray[np.int64],
    regions: Regions,
    observed: Observations,
    shading: float,
    kind: str,
) -> tuple[PaintTones, Float32Array]:
    """Measure both lights and all curves.

    Args:
        exemplar: The painting taken apart.
        targets: ``(478, 3)`` stylized landmarks, face frame.
        places: ``(V, 3)`` vertices of the surface as filmed and of the bent one, face frame.
        normals: ``(V, 3)`` unit normals of both.
        faces: ``(F, 3)`` of the surface.
        regions: Labels of its vertices.
        observed: Their colours over all views.
        shading: How much of the person's own light and shadow stays, 1 as usual.
        kind: The look. Ink drawings have no light of their own: it comes from the upper left.

    Returns:
        The tones, and ``(V,)`` what is to be added to ``shading`` times the skin's L in a photo
        (see :func:`kept_shading`) before the skin's curve.
    """
    lab = to_lab(exemplar.image)
    filmed, bent = (_broad(_calm(n, faces), p) for n, p in zip(normals, places, strict=True))
    skin = regions.skin > 0.7
    light = observed.lab[:, 0].astype(float)
    own = _fit(filmed[skin][::3], light[skin][::3], np.ones(len(light[skin][::3])))
    painted = _STUDIO if kind == "ink" else _painted_light(exemplar, lab, targets)
    stroke = _HATCH_WIDTH if kind == "hatch" else _BRUSH_WIDTH
    pixels = _skin_pixels(exemplar, lab, stroke, frontal_share(exemplar.points, targets, lab.shape))
    low, high = np.quantile(pixels[:, 0], [0.02, 0.98])
    kept = kept_shading(shading)
    shone = _basis(bent) @ painted
    relit = (shone if kind == "ink" else np.clip(shone, low, high)) - kept * (_basis(filmed) @ own)
    above = places[0][:, 1] > targets[lm.CHIN, 1]
    face = skin & above & (filmed[:, 2] > 0.05) & (regions.beard < 0.3)
    # A picture shows what faces the viewer; what turns away is foreshortened in it.
    facing = np.ones(len(light)) if kind == "ink" else np.maximum(normals[1][:, 2], 0.02)
    face = face if face.sum() > _MIN_PIXELS else skin
    source = as_seen((relit + kept * light)[face], facing[face])
    own_chroma = observed.lab[face][:, 1:]
    curve = tone_curve(source, pixels, 0.85, _darks(exemplar, lab, len(pixels), regions))
    gain = curve.spread / max(float(own_chroma.std(0).mean()), 1.0) if len(own_chroma) else 0.3
    hair, worn = regions.hair > 0.7, regions.clothes > 0.6
    tones = PaintTones(
        curve,
        _hair_curve(exemplar, lab, as_seen(light[hair], facing[hair])),
        _clothes_curve(exemplar, lab, as_seen(light[worn], facing[worn]), kind == "paint"),
        float(np.clip(gain, 0.2, 0.8)),
        kind != "ink",
    )
    return tones, np.asarray(relit, np.float32)


def frontal_share(points: FloatArray, targets: FloatArray, shape: tuple[int, ...]) -> Float32Array:
    """How much larger each place of a painted face is when seen from the front, ``(H, W)``.

    A head that turns into its own shadow shows little of its lit side.

    Args:
        points: ``(478, 3)`` landmarks in the picture.
        targets: ``(478, 3)`` stylized landmarks, face frame.
        shape: Of the picture.

    Returns:
        Relative to the whole face, bounded; 1 beside it.
    """
    mesh, seen = _painted_triangles(points, targets)
    front = np.abs(_area(targets[mesh][..., :2]))
    visible = seen > 0
    usual = float(front[visible].sum() / max(float(seen[visible].sum()), 1e-9))
    gain = np.clip(front / np.maximum(seen * usual, 1e-9), *_FORESHORTENING)
    out = np.ones(shape[:2], np.float32)
    for triangle, value in zip(mesh[visible], gain[visible], strict=True):
        cv2.fillConvexPoly(out, np.round(points[triangle, :2]).astype(np.int32), (float(value),))
    return blur(out, _EVEN_SHARE * float(np.ptp(points[:, 0])))


def as_seen(values: FloatArray, weights: FloatArray) -> FloatArray:
    """As many values with the distribution that weighted ones ``(n,)`` have."""
    if not len(values):
        return values
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    at = (np.arange(len(values)) + 0.5) / len(values) * share[-1]
    return np.asarray(np.interp(at, share - 0.5 * weights[order], values[order]))


def head_light(
    light: FloatArray, normals: FloatArray, places: FloatArray, faces: npt.NDArray[np.int64]
) -> FloatArray:
    """L ``(V,)`` of a light that shines on the calmed form of a head.

    Args:
        light: ``(8,)`` coefficients: constant, x, y, z (right, up, towards the viewer), second
            order.
        normals: ``(V, 3)`` unit, face frame.
        places: ``(V, 3)`` vertices, face frame.
        faces: ``(F, 3)``.
    """
    return np.asarray(_basis(_broad(_calm(normals, faces), places)) @ light)


def kept_shading(shading: float) -> float:
    """Factor of the photo's L to go with :func:`make_tones`."""
    return _KEPT * shading


def tone_curve(
    source: npt.NDArray[np.floating[Any]],
    target: npt.NDArray[np.floating[Any]],
    pull: float,
    darks: npt.NDArray[np.floating[Any]] | None = None,
) -> ToneCurve:
    """Monotone curve that gives ``source`` the lightness distribution of ``target``.

    Args:
        source: ``(n,)`` L.
        target: ``(m, 3)`` CIELAB.
        pull: 1 for the whole way, 0 for the target's mean only.
        darks: ``(k, 3)`` tones of something else that count for lightness; their colour is used
            only where the target is never so dark.
    """
    if darks is not None and len(darks):
        deepest = float(np.quantile(target[:, 0], 0.02))
        below = darks[darks[:, 0] < deepest]
        coloured = np.concatenate([target[target[:, 0] >= deepest], below])
        target = np.concatenate([target, darks])
    else:
        coloured = target
    share = np.linspace(0.01, 0.99, _LEVELS)
    levels = np.quantile(source, share)
    levels = np.maximum.accumulate(levels + np.arange(_LEVELS) * 1e-2)
    wanted = np.quantile(target[:, 0], share)
    wanted = pull * wanted + (1 - pull) * (levels - levels.mean() + wanted.mean())
    step = np.diff(levels)
    slope = np.clip(np.diff(wanted) / step, *_SLOPES)
    slope = cv2.GaussianBlur(slope[None].astype(np.float32), (0, 0), 2.0)[0]
    goal = np.concatenate([[0.0], np.cumsum(slope * step)])
    goal += (wanted - goal).mean()
    goal = np.maximum.accumulate(goal + np.arange(_LEVELS) * 1e-3)
    chroma, spread = _chroma_by_light(coloured, goal)
    return ToneCurve(
        levels.astype(np.float32), goal.astype(np.float32), chroma.astype(np.float32), spread
    )


def _chroma_by_light(
    target: npt.NDArray[np.floating[Any]], goal: FloatArray
) -> tuple[FloatArray, float]:
    """Mean a and b ``(K, 2)`` of the target's pixels near each L, and the spread round them."""
    order = np.argsort(target[:, 0], kind="stable")
    bins = np.array_split(target[order], min(24, max(2, len(target) // 40)))
    at = np.array([np.median(part[:, 0]) for part in bins])
    at = np.maximum.accumulate(at + np.arange(len(at)) * 1e-3)
    mean = np.array([np.median(part[:, 1:], axis=0) for part in bins])
    mean = blur(mean[None], 1.2)[0]
    chroma = np.stack([np.interp(goal, at, mean[:, i]) for i in (0, 1)], 1)
    left = [target[:, i + 1] - np.interp(target[:, 0], at, mean[:, i]) for i in (0, 1)]
    return chroma, float(np.mean([np.subtract(*np.quantile(c, [0.84, 0.16])) / 2 for c in left]))


def _basis(normals: FloatArray) -> FloatArray:
    """``(n, 8)`` functions of direction; what looks away from the viewer counts as the rim."""
    x, y, z = normals.T
    z = np.maximum(z, 0.0)
    one = np.ones_like(x)
    return np.stack([one, x, y, z, x * z, y * z, x * y, x * x - y * y], axis=1)


def _fit(normals: FloatArray, light: FloatArray, weights: FloatArray) -> FloatArray:
    """``(8,)`` by least squares with a ridge; what does not fit (beards, moles) counts less."""
    basis, robust = _basis(normals), np.ones(len(light))
    answer = np.zeros(basis.shape[1])
    for _ in range(4):
        weighted = basis * (weights * robust)[:, None]
        system = weighted.T @ basis
        system += np.diag(_RIDGE * np.trace(system) / len(system))
        answer = np.linalg.solve(system, weighted.T @ light)
        left = np.abs(light - basis @ answer)
        scale = max(1.5 * float(np.median(left)), 2.0)
        robust = 1 / np.maximum(left / scale, 1)
    return np.asarray(answer)


def _calm(normals: FloatArray, faces: npt.NDArray[np.int64]) -> FloatArray:
    graph = edge_adjacency(faces, len(normals)).tocsr()
    count = np.maximum(np.asarray(graph.sum(1)).ravel(), 1)[:, None]
    out = normals
    for _ in range(_SMOOTHING):
        out = 0.5 * out + 0.5 * (graph @ out) / count
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9))


def _broad(normals: FloatArray, places: FloatArray) -> FloatArray:
    """Normals drawn half way to a round head's: light that turns on a nose's ridge tears it."""
    out = (places - _CENTER) / _RADII
    out = _ROUND * out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    out = out + (1 - _ROUND) * normals
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9))


def _painted_light(exemplar: Exemplar, lab: Float32Array, targets: FloatArray) -> FloatArray:
    """The light on the painted face, from landmarks that lie on bare skin and face the viewer."""
    mesh, area = _painted_triangles(exemplar.points, targets)
    goal = targets[mesh]
    normal = np.cross(goal[:, 1] - goal[:, 0], goal[:, 2] - goal[:, 0])
    turned = np.sign(normal[:, 2])
    weight = np.clip(area / max(float(np.median(area)), 1e-9), 0, 2)
    normal *= turned[:, None]
    total, count = np.zeros((len(targets), 3)), np.zeros(len(targets))
    for corner in range(3):
        np.add.at(total, mesh[:, corner], normal)
        np.add.at(count, mesh[:, corner], weight / 6)
    normals = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    normals = _broad(normals, targets)
    organs = {*lm.LEFT_EYE, *lm.RIGHT_EYE, *lm.LEFT_BROW, *lm.RIGHT_BROW, *lm.LEFT_IRIS}
    organs |= {*lm.RIGHT_IRIS, *lm.LIPS_OUTER, *lm.LIPS_INNER, *lm.FACE_OVAL}
    count[sorted(organs)] = 0
    hair = sample(exemplar.labels[..., 1], exemplar.points[:, :2])
    smooth = blur(lab[..., 0], 0.02 * exemplar.face_width)
    light = sample(smooth, exemplar.points[:, :2]).astype(float)
    return _fit(normals, light, np.minimum(count, 1.0) * (hair < 0.4) + 1e-6)


def _painted_triangles(
    points: FloatArray, targets: FloatArray
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Triangles ``(T, 3)`` of the landmarks seen from the front, and their area in the picture;
    it is negative where the painted face turns them away."""
    mesh = Delaunay(targets[:, :2]).simplices
    turned = np.sign(_area(targets[mesh][..., :2]))
    return mesh, _area(points[mesh][..., :2] * [1.0, -1.0]) * turned


def _area(triangles: FloatArray) -> FloatArray:
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return np.asarray((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2)


def _thin(pixels: Float32Array) -> Float32Array:
    return pixels[:: max(1, len(pixels) // 20_000)]


def _skin_pixels(
    exemplar: Exemplar, lab: Float32Array, width: float, share: Float32Array
) -> Float32Array:
    """All of the painted face, its shadows too, but for eyes, brows, lips, hair and beard.

    Strokes narrower than ``width`` faces are smoothed to the tone they make; a pixel counts as
    often as ``share`` ``(H, W)`` says.
    """
    canvas = polygon(lab.shape, face_outline(exemplar.points), 0.0)
    organs = np.zeros(lab.shape[:2], np.uint8)
    for part in lm.ORGANS:
        contour = np.round(exemplar.points[list(part), :2]).astype(np.int32)
        cv2.fillPoly(organs, [contour], (255,))
    near = cv2.distanceTransform(255 - organs, cv2.DIST_L2, 5) < 0.03 * exemplar.face_width
    rows = np.arange(lab.shape[0])[:, None]
    face = (exemplar.labels[..., 0] > 0.5) & (rows < exemplar.points[lm.CHIN, 1])
    inset = cv2.distanceTransform(face.astype(np.uint8), cv2.DIST_L2, 5)
    chosen = (inset > 0.04 * exemplar.face_width) & ~near
    if chosen.sum() < _MIN_PIXELS:
        chosen = canvas > 0
    pixels = blur(lab, width * exemplar.face_width)[chosen]
    ends = np.cumsum(share[chosen])
    even = (np.arange(len(pixels)) + 0.5) / len(pixels) * ends[-1]
    return _thin(pixels[np.minimum(np.searchsorted(ends, even), len(pixels) - 1)])


def _darks(exemplar: Exemplar, lab: Float32Array, count: int, regions: Regions) -> Float32Array:
    """Some of the painted hair's and beard's tones ``(n, 3)``.

    A person without hair, or without a beard, needs shadows as deep as the painted ones.
    """
    hair = exemplar.labels[..., 1] > 0.6
    lips = exemplar.points[lm.NOSE_TIP, 1]
    oval = polygon(lab.shape, face_outline(exemplar.points), 0.0)
    beard = hair & (oval > 0) & (np.arange(lab.shape[0])[:, None] > lips)
    parts = []
    for area, lacking in ((hair & ~beard, regions.bald), (beard, regions.beard.max() < 0.5)):
        painted, wanted = lab[area], round(_BALD_SHARE * count)
        if lacking and len(painted) >= _MIN_PIXELS and wanted:
            parts.append(painted[:: max(1, len(painted) // wanted)])
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


def _hair_curve(exemplar: Exemplar, lab: Float32Array, own: FloatArray) -> ToneCurve | None:
    painted = lab[exemplar.labels[..., 1] > 0.6]
    if exemplar.hair_ramp is None or len(painted) < _MIN_PIXELS:
        return None
    if len(own) < _MIN_PIXELS:  # a beard on a bald head
        own = np.random.default_rng(0).normal(35.0, 8.0, 2000)
    return tone_curve(own, _thin(painted), 1.0)


def _clothes_curve(
    exemplar: Exemplar, lab: Float32Array, own: FloatArray, painted: bool
) -> ToneCurve | None:
    """Clothes as dark or light as the painted ones (and those are whatever is below the chin)."""
    if len(own) < _MIN_PIXELS:
        return None
    chin = exemplar.points[lm.CHIN, 1]
    rows = np.arange(lab.shape[0])[:, None]
    person = person_mask(exemplar.image, None, exemplar.points)
    below = person & (exemplar.labels[..., 0] < 0.3)
    below &= rows > chin + 0.15 * exemplar.face_width
    if painted:  # long hair, a headscarf's shadow and a bare chest lie there too
        sure = below & (exemplar.labels[..., 1] < 0.5) & ~_like_skin(exemplar, lab)
        sure &= ~like_wall(lab, person)
        below = sure if sure.sum() >= _SURELY_WORN * below.sum() else below
    pixels = lab[below]
    if len(pixels) < _MIN_PIXELS:
        pixels = exemplar.rest_lab if len(exemplar.rest_lab) else lab.reshape(-1, 3)
    return tone_curve(own, _thin(pixels), 0.9)


def _like_skin(exemplar: Exemplar, lab: Float32Array) -> npt.NDArray[np.bool_]:
    """Where ``(H, W)`` the colour is the one that painted skin has at that lightness."""
    ramp = exemplar.skin_ramp
    levels = np.maximum.accumulate(ramp[:, 0] + np.arange(len(ramp)) * 1e-3)
    off = [lab[..., i] - np.interp(lab[..., 0], levels, ramp[:, i]) for i in (1, 2)]
    return np.asarray((np.hypot(*off) < _SKIN_HUE) & (lab[..., 0] > levels[0] - _SKIN_HUE))
