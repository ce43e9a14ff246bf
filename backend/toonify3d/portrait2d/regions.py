"""Skin, hair, beard and clothes, decided once in 3D on the prior surface's vertices.

Colours are the medians over all views, so that a highlight in one frame or a shadow in another
decides nothing; labels spread along the surface by a random walk (Grady 2006) whose seeds are soft.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import cg

from ..capture import landmarks as lm
from ..meshes import edge_adjacency
from ..scene import Float32Array, FloatArray
from .colorspace import kmeans, signed_distance, smoothstep
from .surface import Observations

_SCALE = 256.0
"""Pixels per distance between the eyes for point-in-polygon tests."""
_SEEN_SEED, _SEEN_WELL = 2, 5.0
"""Frames that show a place before its colour is a seed, and before it fully counts."""
_BAND = 0.13
"""Half the width (eye distances) of what is too narrow to be the lower end of hair."""
_BALD_SHARE = 0.2
"""A head with less non-skin on its scalp than this share has no hair."""


@dataclass(frozen=True)
class Regions:
    """Soft labels per vertex; skin, hair and clothes sum to 1, beard is part of skin.

    Attributes:
        skin, hair, clothes, beard: ``(V,)`` in 0..1.
        bald: No hair on the head.
        skin_lab: ``(3,)`` the person's median skin colour.
        skin_spread: Robust standard deviation of L on the face's skin.
    """

    skin: Float32Array
    hair: Float32Array
    clothes: Float32Array
    beard: Float32Array
    bald: bool
    skin_lab: Float32Array
    skin_spread: float


@dataclass(frozen=True)
class _Model:
    """A small mixture of Gaussians over (L, a, b, texture)."""

    means: FloatArray
    deviations: FloatArray

    def distance(self, features: FloatArray) -> FloatArray:
        """Smallest normalised distance ``(N,)`` to a component."""
        parts = [
            np.sqrt((((features - m) / d) ** 2).sum(1))
            for m, d in zip(self.means, self.deviations, strict=True)
        ]
        return np.asarray(np.min(parts, axis=0))


def in_polygon(points: FloatArray, polygon: FloatArray) -> FloatArray:
    """Signed distance ``(N,)`` of 2D points to a closed polygon ``(n, 2)``, positive inside.

    Both in units of the eye distance.
    """
    low = polygon.min(0) - 1.0
    size = np.ceil((polygon.max(0) + 1.0 - low) * _SCALE).astype(int)
    signed = signed_distance((polygon - low) * _SCALE, int(size[1]), int(size[0]))
    spot = np.floor((points - low) * _SCALE).astype(int)
    spot = np.clip(spot, 0, size - 1)
    return np.asarray(signed[spot[:, 1], spot[:, 0]] / _SCALE, np.float64)


def classify(
    local: FloatArray,
    normals: FloatArray,
    faces: npt.NDArray[np.int64],
    observed: Observations,
    landmarks: FloatArray,
) -> Regions:
    """Label the vertices.

    Args:
        local: ``(V, 3)`` vertices in the face frame.
        normals: ``(V, 3)`` in the face frame.
        faces: ``(F, 3)``.
        observed: Colours over all views.
        landmarks: ``(478, 3)`` of the person in the face frame.
    """
    features = _features(observed)
    face = face_skin(local, normals, landmarks)
    core = face & _cheeks(local, landmarks)
    skin_model = _skin_model(features[core])
    skin_distance = skin_model.distance(features)
    hair_seed, bald = _scalp(local, landmarks, skin_distance)
    # A single portrait shows nothing twice.
    most = float(observed.seen.max())
    trusted = observed.seen >= min(_SEEN_SEED, most)
    hair_seed &= trusted
    clothes_seed = _below_neck(local, landmarks) & (skin_distance > 3.5)
    clothes_seed &= trusted
    # What hardly any frame shows (the bottom of a bust, its shadowed rim) has a guessed or grazing
    # colour: it belongs to what surrounds it.
    known = smoothstep(observed.seen.astype(float), 0.0, max(min(_SEEN_WELL, most), 1.0))[:, None]
    unary = known * _unaries(
        local, landmarks, features, skin_distance, hair_seed, clothes_seed, face, bald
    )
    walk = _Walk(faces, features, local)
    labels = walk.solve(unary)
    if (
        not bald
    ):  # hair far down is in the shadow of the head: learn its colours from a first answer
        more = hair_seed | ((labels[:, 1] > 0.7) & ~face & trusted)
        unary = known * _unaries(
            local, landmarks, features, skin_distance, more, clothes_seed, face, bald
        )
        labels = walk.solve(unary)
    below = local[:, 1] < landmarks[lm.CHIN, 1]
    labels = _drop_islands(labels, unary, hair_seed, below, walk)
    beard = walk.smooth(_beard(local, landmarks, features, skin_model, labels[:, 0]))
    lab, spread = skin_statistics(local, normals, observed, landmarks)
    return Regions(
        labels[:, 0].astype(np.float32),
        labels[:, 1].astype(np.float32),
        labels[:, 2].astype(np.float32),
        beard.astype(np.float32),
        bald,
        lab,
        spread,
    )


def skin_statistics(
    local: FloatArray, normals: FloatArray, observed: Observations, landmarks: FloatArray
) -> tuple[Float32Array, float]:
    """``skin_lab`` and ``skin_spread`` of :class:`Regions`; arguments as in :func:`classify`."""
    features = _features(observed)
    face = face_skin(local, normals, landmarks)
    model = _skin_model(features[face & _cheeks(local, landmarks)])
    spread = 1.4826 * np.median(np.abs(features[face, 0] - np.median(features[face, 0])))
    return model.means[0, :3].astype(np.float32), float(spread)


def _features(observed: Observations) -> FloatArray:
    both = np.concatenate([observed.lab, observed.texture[:, None] * 2], axis=1)
    return np.asarray(both, np.float64)


def face_skin(
    local: FloatArray, normals: FloatArray, landmarks: FloatArray
) -> npt.NDArray[np.bool_]:
    """Front-facing vertices inside the face oval but not on eyes, brows or lips."""
    flat = local[:, :2]
    oval = landmarks[list(lm.FACE_OVAL), :2]
    inside = in_polygon(flat, oval) > 0.05
    inside &= (normals[:, 2] > 0.2) & (local[:, 2] > landmarks[list(lm.FACE_OVAL), 2].min() - 0.2)
    for part in lm.ORGANS:
        inside &= in_polygon(flat, landmarks[list(part), :2]) < -0.06
    return inside


def _cheeks(local: FloatArray, landmarks: FloatArray) -> npt.NDArray[np.bool_]:
    """Between the eyes' and the mouth's height: the surest skin."""
    top = landmarks[[*lm.LEFT_EYE, *lm.RIGHT_EYE], 1].mean()
    bottom = landmarks[list(lm.LIPS_OUTER), 1].mean()
    return np.asarray((local[:, 1] < top) & (local[:, 1] > bottom))


def _skin_model(seeds: FloatArray) -> _Model:
    center = np.median(seeds, axis=0)
    for _ in range(3):
        deviation = 1.4826 * np.median(np.abs(seeds - center), axis=0)
        deviation = np.maximum(deviation, [7.0, 3.0, 3.0, 2.0])
        near = (np.abs(seeds - center) < 3 * deviation).all(1)
        center = np.median(seeds[near], axis=0)
    # Light falls off over the head: L and contrast say little, colour says much.
    deviation = np.maximum(deviation * [1.6, 1.2, 1.2, 2.0], [15.0, 4.0, 4.5, 5.0])
    return _Model(center[None], deviation[None])


def _scalp(
    local: FloatArray, landmarks: FloatArray, skin_distance: FloatArray
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Sure hair, and whether there is none: above the forehead and behind the ears' plane."""
    forehead = landmarks[lm.FOREHEAD]
    eyes = landmarks[[*lm.LEFT_EYE, *lm.RIGHT_EYE]].mean(0)
    oval_back = landmarks[list(lm.FACE_OVAL), 2].min()
    above = (local[:, 1] > forehead[1] + 0.15) & (local[:, 2] < forehead[2] + 0.6)
    behind = (local[:, 1] > eyes[1]) & (local[:, 2] < oval_back - 0.8)
    scalp = above | behind
    hair = scalp & (skin_distance > 2.5)
    share = float(hair.sum()) / max(int(scalp.sum()), 1)
    return hair, share < _BALD_SHARE


def _below_neck(local: FloatArray, landmarks: FloatArray) -> npt.NDArray[np.bool_]:
    chin = landmarks[lm.CHIN]
    return np.asarray(local[:, 1] < chin[1] - 0.9)


def _mixture(seeds: FloatArray, count: int) -> _Model:
    """K-means with per-cluster deviations; deterministic."""
    sample = seeds[:: max(1, len(seeds) // 4000)]
    labels, means = kmeans(sample, count)
    deviations = [
        np.maximum(sample[labels == i].std(0), [6.0, 3.0, 3.0, 3.0]) for i in range(len(means))
    ]
    return _Model(means.astype(float), np.array(deviations, float))


def _unaries(
    local: FloatArray,
    landmarks: FloatArray,
    features: FloatArray,
    skin_distance: FloatArray,
    hair_seed: npt.NDArray[np.bool_],
    clothes_seed: npt.NDArray[np.bool_],
    face: npt.NDArray[np.bool_],
    bald: bool,
) -> FloatArray:
    """``(V, 3)`` evidence for skin, hair, clothes."""
    height = local[:, 1] - landmarks[lm.CHIN, 1]
    skin = np.exp(-0.5 * skin_distance**2)
    hair = np.zeros(len(local))
    clothes_seed = clothes_seed.copy()
    if not bald and hair_seed.sum() > 20:
        hair_distance = _mixture(features[hair_seed], 4).distance(features)
        unlike = clothes_seed & (hair_distance > 2.5)
        # Clothes of the hair's own colour: only the height tells them apart.
        alike = unlike.sum() < 0.3 * clothes_seed.sum()
        clothes_seed = clothes_seed if alike else unlike
        reach = smoothstep(height, -1.5, -0.9) if alike else smoothstep(height, -4.5, -2.5)
        hair = np.exp(-0.5 * hair_distance**2) * (0.02 + 0.98 * reach)
    clothes = np.zeros(len(local))
    if clothes_seed.sum() > 0.02 * len(local):
        clothes = np.exp(-0.5 * _mixture(features[clothes_seed], 4).distance(features) ** 2)
        clothes *= smoothstep(height, -0.35, -0.9)
    oval = in_polygon(local[:, :2], landmarks[list(lm.FACE_OVAL), :2])
    inside = smoothstep(oval, 0.05, 0.3) * (local[:, 2] > landmarks[list(lm.FACE_OVAL), 2].min())
    lower = height < landmarks[lm.NOSE_TIP, 1] - landmarks[lm.CHIN, 1]
    hair = hair * np.where(lower, 1 - 0.98 * inside, 1.0)
    for part in lm.ORGANS:
        near = smoothstep(in_polygon(local[:, :2], landmarks[list(part), :2]), -0.12, -0.02)
        near *= local[:, 2] > landmarks[list(part), 2].min() - 0.15
        fringe = hair > 2 * np.maximum(skin, 0.02)
        keep = 0.0 if part == lm.LIPS_OUTER else 0.3
        hair = hair * np.where(near > 0, 1 - near * (1 - keep * fringe), 1.0)
        skin = np.maximum(skin, 0.5 * near)
    return np.stack([skin, hair, clothes], 1)


class _Walk:
    """Random walk on the mesh whose steps avoid colour edges."""

    def __init__(
        self, faces: npt.NDArray[np.int64], features: FloatArray, places: FloatArray
    ) -> None:
        self.graph = edge_adjacency(faces, len(features)).tocoo()
        row, column = self.graph.row, self.graph.col
        length = np.linalg.norm(places[row] - places[column], axis=1) + 1e-9
        self.lengths = sparse.coo_matrix((length, (row, column)), self.graph.shape).tocsr()
        step = (features[self.graph.row] - features[self.graph.col])[:, :3]
        weight = np.exp(-(step**2).sum(1) / (2 * 6.0**2)) + 0.02
        shape = self.graph.shape
        matrix = sparse.coo_matrix((weight, (self.graph.row, self.graph.col)), shape).tocsr()
        self.degree = np.asarray(matrix.sum(1)).ravel()
        self.laplacian = sparse.diags(self.degree) - matrix

    def solve(self, unary: FloatArray) -> FloatArray:
        """Spread ``(V, K)`` evidence; rows of the answer sum to 1."""
        total = unary.sum(1)
        strength = 0.25 * np.minimum(1.0, total) + 1e-4
        share = (unary + 1e-6) / (total + 3e-6)[:, None]
        system = (self.laplacian + sparse.diags(strength)).tocsr()
        scale = sparse.diags(1.0 / system.diagonal())
        columns = []
        for label in range(unary.shape[1]):
            answer, _ = cg(
                system,
                strength * share[:, label],
                x0=share[:, label],
                rtol=1e-4,
                maxiter=300,
                M=scale,
            )
            columns.append(np.clip(answer, 0, 1))
        out = np.stack(columns, 1)
        return np.asarray(out / np.maximum(out.sum(1, keepdims=True), 1e-9))

    def away(self, chosen: npt.NDArray[np.bool_], limit: float) -> FloatArray:
        """Way ``(V,)`` along the edges to the nearest chosen vertex, at most ``limit``."""
        from_any = dijkstra(
            self.lengths, indices=np.flatnonzero(chosen), limit=limit, min_only=True
        )
        return np.asarray(np.minimum(from_any, limit))

    def smooth(self, values: FloatArray, strength: float = 0.5) -> FloatArray:
        """Spread one soft label a few steps along the surface."""
        system = (self.laplacian + sparse.diags(np.full(len(values), strength))).tocsr()
        answer, _ = cg(system, strength * values, x0=values, rtol=1e-4, maxiter=200)
        return np.asarray(np.clip(answer, 0, 1))


def _drop_islands(
    labels: FloatArray,
    unary: FloatArray,
    hair_seed: npt.NDArray[np.bool_],
    below: npt.NDArray[np.bool_],
    walk: _Walk,
) -> FloatArray:
    """Hair that does not hang together with the scalp is a collar or a pattern.

    So is a narrow band ``below`` the chin that the hair's tips only touch.
    """
    hair = labels.argmax(1) == 1
    graph = walk.graph.tocsr()
    _, component = connected_components(graph[hair][:, hair], directed=False)
    roots = np.unique(component[hair_seed[hair]], return_counts=True)
    kept = roots[0][roots[1] > 30]
    rooted = np.zeros(len(hair), bool)
    rooted[np.flatnonzero(hair)[np.isin(component, kept)]] = True
    lost = np.flatnonzero(hair & ~rooted)
    lost = np.union1d(lost, np.flatnonzero(below & (labels[:, 1] > 0.05) & ~_locks(rooted, walk)))
    if not len(lost):
        return labels
    corrected = unary.copy()
    corrected[lost, 1] = 0.0
    corrected[lost, 2] = np.maximum(corrected[lost, 2], 0.3 * (unary[lost, 2] > 0.01))
    out = walk.solve(corrected)
    return out


def _locks(hair: npt.NDArray[np.bool_], walk: _Walk) -> npt.NDArray[np.bool_]:
    """Hair without what is narrower than twice :data:`_BAND`, and what is as near to it."""
    thick = walk.away(~hair, _BAND) >= _BAND
    return np.asarray(walk.away(thick, 1.5 * _BAND) < 1.5 * _BAND)


def _beard(
    local: FloatArray,
    landmarks: FloatArray,
    features: FloatArray,
    skin_model: _Model,
    skin: FloatArray,
) -> FloatArray:
    """Darker and differently coloured than skin, round the mouth and on the jaw."""
    height = local[:, 1]
    nose = landmarks[list(lm.NOSE_BASE), 1].mean()
    zone = smoothstep(height, nose + 0.05, nose - 0.1)
    zone *= smoothstep(height, landmarks[lm.CHIN, 1] - 0.7, landmarks[lm.CHIN, 1] - 0.3)
    zone *= smoothstep(local[:, 2], landmarks[list(lm.FACE_OVAL), 2].min() - 0.3, -0.2)
    lips = in_polygon(local[:, :2], landmarks[list(lm.LIPS_OUTER), :2])
    zone *= smoothstep(lips, 0.0, -0.06)
    center, spread = skin_model.means[0], skin_model.deviations[0]
    darker = (center[0] - features[:, 0]) / spread[0]
    colour = np.sqrt((((features - center) / spread)[:, 1:3] ** 2).sum(1))
    beard = zone * smoothstep(darker, 1.0, 2.2) * smoothstep(colour, 0.6, 1.6)
    beard = beard * np.clip(skin * 1.5, 0, 1)
    # A beard covers the chin; a dark line along the jaw alone is the shadow under it.
    front = (np.abs(local[:, 0]) < 0.35) & (local[:, 2] > landmarks[lm.CHIN, 2] - 0.15)
    front &= (height < landmarks[list(lm.LIPS_OUTER), 1].min()) & (height > landmarks[lm.CHIN, 1])
    covered = float(beard[front].mean()) if front.any() else 0.0
    return np.asarray(beard * smoothstep(covered, 0.1, 0.3), np.float64)
