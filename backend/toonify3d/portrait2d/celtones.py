"""Clean tones for drawings, decided on the surface: calm colours and one form shadow (cel, toon).

A cel has a tone and its shadow, and the border between them is a clean curve. Thresholds on a
photo's light follow pores, cheeks and noise; so skin is shaded by a studio light on the calmed form
(view-independent, hence the same in all frames), and hair and clothes take the colours that all
views agree on, averaged along the surface within their region before they are cut into tones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..meshes import edge_adjacency
from ..scene import Float32Array, FloatArray
from .colorspace import kmeans, smooth_edges, smoothstep
from .hatching import edge_distance
from .regions import Regions
from .tones import head_light

_STUDIO = np.array([40.0, -12.0, 20.0, 20.0, 0.0, 0.0, 0.0, 0.0])
"""Light from the upper left of the viewer (the basis of :func:`.tones.head_light`)."""
_SHADOWED = 0.25
"""Share of the skin that looks forward which lies in shadow."""
_ROUNDS = 40
"""Rounds of averaging over neighbouring vertices (about 3 mm apart): some 10 mm."""
_SHADOW_ROUNDS = 160
"""The same for the light whose level is a shadow's border: it frays where the form is shallow."""
_DYES, _RARE = 4, 0.06
"""Colours of clothes at most, and the least share of the clothes that is a colour of its own."""
_GRAY, _SAME_HUE = 9.0, 0.6
"""CIELAB chroma below which a colour has no hue, and radians between hues that count as one."""
_FOLDS = 0.6
"""Share of the broad light on clothes that stays."""
_FAINT = (0.25, 0.5)
"""Share of a mark's colour from which on it is there."""
_EVEN = (0.25, 4.0)
"""Difference of light, and pixels, over which the light whose border is drawn is evened."""
_BORDER = 0.8
"""Half the width in pixels of a border between two tones."""


def calm_colours(lab: Float32Array, regions: Regions, faces: npt.NDArray[np.int64]) -> Float32Array:
    """Colours ``(V, 3)`` averaged along the surface, each region among its own vertices.

    Clothes are brought to a few plain colours with soft folds, as drawn clothes have.

    Args:
        lab: ``(V, 3)`` CIELAB.
        regions: Labels of the vertices.
        faces: ``(F, 3)``.
    """
    graph = edge_adjacency(faces, len(lab)).tocsr()
    parts = [_average(graph, lab, label) for label in (regions.skin, regions.hair, regions.clothes)]
    parts[2] = _plain_clothes(graph, lab, parts[2], regions.clothes)
    labels = np.stack([regions.skin, regions.hair, regions.clothes], 1)
    total = sum(label[:, None] * part for label, part in zip(labels.T, parts, strict=True))
    return np.asarray(total / np.maximum(labels.sum(1), 1e-3)[:, None], np.float32)


def spread_even(
    lab: Float32Array, label: Float32Array, faces: npt.NDArray[np.int64], rounds: int
) -> FloatArray:
    """Colours ``(V, 3)`` averaged ``rounds`` more times among the vertices of one region."""
    return _average(edge_adjacency(faces, len(lab)).tocsr(), lab, label, rounds)


def _average(
    graph: sparse.csr_matrix, values: npt.NDArray[Any], label: Float32Array, rounds: int = _ROUNDS
) -> FloatArray:
    """``(V, c)`` averaged with neighbours, the more those belong to the region the more."""
    # Single precision is far finer than a colour, and twice as fast.
    weight = np.maximum(label.astype(np.float32) ** 2, np.float32(1e-4))[:, None]
    neighbours = graph.astype(np.float32)
    share = neighbours @ weight
    alone = share[:, 0] <= 0
    share[alone] = 1.0
    out = values.astype(np.float32)
    half = np.float32(0.5)
    for _ in range(rounds):
        around = (neighbours @ (out * weight)) / share
        around[alone] = out[alone]
        out = half * out + half * around
    return np.asarray(out, np.float64)


def _plain_clothes(
    graph: sparse.csr_matrix, lab: Float32Array, calm: FloatArray, clothes: Float32Array
) -> FloatArray:
    """Every vertex in one of a few dyes, with part of the broad light."""
    worn = clothes > 0.6
    if worn.sum() < 100:
        return calm
    dyes, nearest = _dyes(lab, worn)
    share = _average(graph, np.eye(len(dyes))[nearest], clothes, _ROUNDS // 2) ** 4
    share /= np.maximum(share.sum(1, keepdims=True), 1e-12)
    out = share @ dyes
    out[:, 0] += _FOLDS * 15.0 * np.tanh((calm[:, 0] - out[:, 0]) / 15.0)
    return np.asarray(out)


def _dyes(
    lab: Float32Array, worn: npt.NDArray[np.bool_]
) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    """The few colours ``(k, 3)`` of clothes, and the nearest ``(V,)``.

    A shine or a shadow is no other colour: it belongs to the commoner one of the same hue.
    """
    weight = np.array([0.2, 1.0, 1.0], np.float32)
    _, centers = kmeans(lab[worn] * weight, _DYES)
    group = np.linalg.norm((lab * weight)[:, None] - centers[None], axis=2).argmin(1)
    size = np.bincount(group[worn], minlength=len(centers))
    kept: list[int] = []
    owner = np.zeros(len(centers), np.int64)
    for i in np.argsort(-size):
        same = [k for k, j in enumerate(kept) if _same_dye(centers[i], centers[j])]
        if not same and (size[i] > _RARE * worn.sum() or not kept):
            owner[i] = len(kept)
            kept.append(int(i))
        else:
            gap = np.linalg.norm(centers[kept] - centers[i], axis=1)
            owner[i] = same[0] if same else int(gap.argmin())
    colours = [np.median(lab[worn & (group == i)], axis=0) for i in kept]
    return np.array(colours, np.float32), owner[group]


def _same_dye(one: Float32Array, two: Float32Array) -> bool:
    a, b = one[1:].astype(float), two[1:].astype(float)
    both = float(np.linalg.norm(a) * np.linalg.norm(b))
    alike = float(a @ b) > np.cos(_SAME_HUE) * both
    colourful = min(np.linalg.norm(a), np.linalg.norm(b)) > _GRAY
    return bool(np.linalg.norm(a - b) < _GRAY or (alike and colourful))


def form_shadow(
    normals: FloatArray, places: FloatArray, faces: npt.NDArray[np.int64], regions: Regions
) -> Float32Array:
    """How far vertices ``(V,)`` are on the lit side: 0 at the shadow's border, negative in it.

    Args:
        normals: ``(V, 3)`` of the bent surface, face frame.
        places: ``(V, 3)`` its vertices, face frame.
        faces: ``(F, 3)``.
        regions: Labels of the vertices.
    """
    graph = edge_adjacency(faces, len(normals)).tocsr()
    light = head_light(_STUDIO, normals, places, faces)
    light = _average(graph, light[:, None], np.ones(len(light), np.float32), _SHADOW_ROUNDS)[:, 0]
    front = (regions.skin > 0.7) & (normals[:, 2] > 0.1)
    chosen = light[front] if front.any() else light
    return np.asarray((light - np.quantile(chosen, _SHADOWED)) / 10.0, np.float32)


def lit_share(shadow: Float32Array) -> Float32Array:
    """1 on the lit side, 0 in shadow ``(H, W)``, with a border about a pixel and a half wide."""
    # Between the far vertices of flat parts the border would have corners.
    even = smooth_edges(shadow, *_EVEN)
    far = edge_distance(even, 0.0) * np.sign(even)
    return np.asarray(np.clip(0.5 + 0.5 * far / _BORDER, 0, 1), np.float32)


def flat_marks(drawn: Float32Array, strongest: float) -> Float32Array:
    """Marks ``(H, W, 3)`` on skin (freckles, a nose's line) as a cel has them: there or not.

    Soft spots of half their colour look like dirt.

    Args:
        drawn: CIELAB difference from skin.
        strongest: Its length where something is drawn.
    """
    length = np.linalg.norm(drawn, axis=2)
    there = smoothstep(length, _FAINT[0] * strongest, _FAINT[1] * strongest)
    return np.asarray(drawn * (there * strongest / np.maximum(length, 1e-3))[..., None], np.float32)


def flat_steps(light: Float32Array, step: float) -> Float32Array:
    """Lightness ``(H, W)`` in steps with borders about a pixel and a half wide."""
    height = np.asarray(light / step, np.float32)
    low = np.floor(height)
    far = edge_distance(height, low + 0.5) * np.sign(height - low - 0.5)
    return np.asarray((low + np.clip(0.5 + 0.5 * far / _BORDER, 0, 1)) * step, np.float32)
