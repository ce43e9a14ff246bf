"""Which lines an ink drawing of a person has: jaw, collar, ears, and few creases on the face.

They are chosen once, on the surface: every frame draws the same strokes at the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import sparse
from scipy.interpolate import make_interp_spline
from scipy.spatial import cKDTree

from ..capture import landmarks as lm
from ..meshes import edge_adjacency
from ..raycast import interpolate
from ..scene import FloatArray, Frame, Scene
from .colorspace import sample, smoothstep
from .creases import crease_darkness
from .framewarp import BentSurface
from .inkstrokes import STEP, Rules, Strokes, border, resampled, together, trace, with_width
from .look import Look
from .paper import Paper
from .shape import FaceFrame

FACE_UNITS = 2.3
"""Width of a face in eye distances."""
_ON_FACE, _ON_EARS, _ON_CLOTHES = 1.9, 1.0, 1.4
"""Width of a stroke's middle against the exemplar's mean line (its ends are thinner, and ears are
drawn finer than a face), and of the collar's line."""
_SLIM = 7.0
"""Least length of a stroke against its width: shorter ones are thinner, or they would be blots."""
_OUTLINE = 3.0
"""Width of an inked jaw against other lines: from the front it is seen nearly edge on."""
_JAW_ENDS, _AT_EARS = 0.25, 0.08
"""Share of the jaw's line over which it runs out at each end, and which lies at the ears."""
_BESIDE_JAW = 0.35
"""Eye distances from a drawn jaw within which no crease is drawn, but for the ears': the edge of
its shadow would be a second line."""
_BESIDE_REST = 0.12
"""Eye distances from hair and clothes within which no crease is drawn: it is their shadow."""
_OVER_CHIN, _UNDER_LOBES = (-0.1, 0.05), (-0.18, -0.03)
"""Eye distances over the chin, and over the nose's base for ears, under which folds are no
features, and above which they are."""
_ROUND_EYES, _UNDER_EYES, _ROUND_BROWS, _ROUND_LIPS = 0.24, 0.17, 0.1, 0.06
"""Eye distances beyond the organs within which no crease is drawn: they are drawn themselves, and
lids, bags and the lips' rims would be lines stacked on theirs. Eyes keep free that much more
below."""
_BEHIND_FACE, _EAR = (0.3, 0.0), 1.3
"""Depth behind the landmarks of the face's outline at which ears begin, and how much a crease
counts there: an ear's folds are fainter."""
_MOST_ON_EAR, _TURNED_BACK = (4, 1), -0.5
"""Strokes on the front and on the back of one ear, and z of the normals from which on it is the
back."""
_MORE_LINES, _LEAST_LINES = 2.5, 1.0
"""Ink of the creases on a face against that of the exemplar's (an old face in a few bold lines
would be all folds), and eye distances of creases that may always be drawn."""
_BESIDE_LIPS, _UNDER_LIPS = 0.3, 0.35
"""Eye distances from the middle within which a crease lies under the lips, and the length of the
one stroke that is drawn there."""
_AT_NOSE = 0.15
"""Eye distances from the nose's base within which a stroke draws it."""
_OVER_COLLAR = 0.3
"""Share of hair from which on it hides the border of the clothes."""


def ink_strokes(
    scene: Scene,
    frames: Sequence[Frame],
    surface: BentSurface,
    look: Look,
    face: FaceFrame,
    targets: FloatArray,
) -> Strokes:
    """All lines of an ink drawing, once for all frames.

    Args:
        scene: The capture, in the light that the frames are stylized in.
        frames: Whose photos say where creases are.
        surface: The person before and after the change of shape.
        look: What the frames share.
        face: The person's face frame.
        targets: ``(478, 3)`` stylized landmarks, face frame.
    """
    width = look.line_width * FACE_UNITS
    local = surface.attributes[:, 4:7].astype(np.float64)
    edges = edge_adjacency(surface.mesh.faces, len(local))
    jaw = jaw_curve(surface, face, targets)
    dark = crease_darkness(scene, frames, surface.mesh, surface.caster, face)
    dark = dark * _worth(surface, look, targets, jaw)
    oval = targets[list(lm.FACE_OVAL), :2]
    inked = _MORE_LINES * look.inked * cv2.contourArea(oval.astype(np.float32))
    normals = surface.attributes[:, 7].astype(np.float64)
    person = PersonRules(targets, cKDTree(local), normals, max(inked / width, _LEAST_LINES))
    curves = trace(local, edges, dark, Rules(), person)
    if not person.nose:  # in flat light it has no crease, and no face is without one
        curves.append(resampled(targets[list(lm.NOSE_BASE[2:-2])], STEP))
    drawn = [
        with_width(jaw, _OUTLINE * width, 0.0, _JAW_ENDS),
        _collar(surface, edges, _ON_CLOTHES * width),
    ]
    for curve in curves:
        full = (_ON_EARS if person.on_ear(curve) else _ON_FACE) * width
        full = min(full, STEP * len(curve) / _SLIM)
        drawn.append(with_width(_on_surface(curve, surface, face), full))
    return together(drawn)


@dataclass
class PersonRules:
    """What a person may have of the creases found, the boldest first (:func:`.inkstrokes.trace`).

    Attributes:
        targets: ``(478, 3)`` stylized landmarks, face frame.
        places: The vertices.
        normals: ``(V,)`` z of their normals, face frame.
        left: Eye distances of creases that may still be drawn on the face.
        nose: A stroke draws the nose.
        lip: A stroke lies under the lips.
        ears: Strokes found by side (left) and whether they are on the ear's back.
    """

    targets: FloatArray
    places: cKDTree
    normals: FloatArray
    left: float
    nose: bool = False
    lip: bool = False
    ears: dict[tuple[bool, bool], int] = field(default_factory=dict)

    def __call__(self, curve: FloatArray) -> FloatArray | None:
        """What is drawn of a crease ``(N, 3)``, or None."""
        if self.on_ear(curve):
            return curve if self._wanted_on_ear(curve) else None
        if self._under_lips(curve):
            if self.lip:
                return None
            self.lip = True
            spare = max(len(curve) - round(_UNDER_LIPS / STEP), 0) // 2
            curve = _bow(curve[spare : len(curve) - spare])
        if STEP * len(curve) > self.left:
            return None
        self.left -= STEP * len(curve)
        base = self.targets[lm.NOSE_BASE[len(lm.NOSE_BASE) // 2]]
        self.nose |= bool(np.linalg.norm(curve - base, axis=1).min() < _AT_NOSE)
        return curve

    def on_ear(self, curve: FloatArray) -> bool:
        """Whether a stroke lies behind the face."""
        return bool(curve[len(curve) // 2, 2] < self.targets[list(lm.FACE_OVAL), 2].min())

    def _wanted_on_ear(self, curve: FloatArray) -> bool:
        middle = curve[len(curve) // 2]
        normal = float(self.normals[self.places.query(middle)[1]])
        part = (bool(middle[0] > 0), normal < _TURNED_BACK)
        self.ears[part] = self.ears.get(part, 0) + 1
        return self.ears[part] <= _MOST_ON_EAR[part[1]]

    def _under_lips(self, curve: FloatArray) -> bool:
        middle, lips = curve[len(curve) // 2], self.targets[list(lm.LIPS_OUTER)]
        aside = abs(float(middle[0] - lips[:, 0].mean()))
        return bool(middle[1] < lips[:, 1].min() and aside < _BESIDE_LIPS)


def _bow(curve: FloatArray) -> FloatArray:
    """The parabola ``(N, 3)`` nearest to a curve: one sweep of the pen."""
    at = np.vander(np.linspace(-1.0, 1.0, len(curve)), 3)
    return np.asarray(at @ np.linalg.lstsq(at, curve, rcond=None)[0])


def _on_surface(curve: FloatArray, surface: BentSurface, face: FaceFrame) -> FloatArray:
    """The bent surface's nearest points ``(N, 3)``, face frame."""
    hits = surface.bent_caster.closest(face.to_world(curve))
    return face.to_face(interpolate(surface.bent, surface.mesh.faces, hits))


def jaw_curve(surface: BentSurface, face: FaceFrame, targets: FloatArray) -> FloatArray:
    """The bent jaw's curve from ear to ear on the surface, ``(400, 3)``, face frame."""
    points = targets[list(lm.JAW)]
    points[1:-1] = 0.25 * points[:-2] + 0.5 * points[1:-1] + 0.25 * points[2:]
    curve = make_interp_spline(np.arange(len(points)), points)(np.linspace(0, len(points) - 1, 400))
    return _on_surface(curve, surface, face)


def _collar(surface: BentSurface, edges: sparse.csr_matrix, width: float) -> Strokes:
    """The border between skin and clothes; where hair lies between them there is none."""
    label = (surface.attributes[:, 0] - surface.attributes[:, 2]).astype(np.float64)
    label = 0.5 * label + 0.5 * (edges @ label) / np.maximum(np.asarray(edges.sum(1)).ravel(), 1)
    local = surface.attributes[:, 4:7].astype(np.float64)
    bare = surface.attributes[:, 1] < _OVER_COLLAR
    return border(local, surface.mesh.faces[bare[surface.mesh.faces].all(1)], label, width)


def _worth(surface: BentSurface, look: Look, targets: FloatArray, jaw: FloatArray) -> FloatArray:
    """How much a crease counts at each vertex ``(V,)``: bare skin clear of all that is drawn."""
    local = surface.attributes[:, 4:7].astype(np.float64)
    ahead = smoothstep(local[:, 2], *look.depth_range)
    clear = sample(_clear_of_organs(look.layer.paper, targets), look.layer.pixels(local))
    ears = smoothstep(local[:, 2] - targets[list(lm.FACE_OVAL), 2].min(), *_BEHIND_FACE)
    high = smoothstep(local[:, 1] - targets[lm.CHIN, 1], *_OVER_CHIN)
    lobes = smoothstep(local[:, 1] - targets[list(lm.NOSE_BASE), 1].min(), *_UNDER_LOBES)
    place = high + (_EAR * lobes - high) * ears
    out = (1 - ahead * (1 - clear)) * place * _clear_of_jaw(local, jaw)
    rest = surface.attributes[:, 0] < 0.5
    if rest.any():
        far, _ = cKDTree(local[rest]).query(local, distance_upper_bound=_BESIDE_REST)
        out = out * (far > _BESIDE_REST)
    return np.asarray(out, np.float64)


def _clear_of_jaw(local: FloatArray, jaw: FloatArray) -> FloatArray:
    """1 ``(V,)`` away from a drawn jaw; at its ends, where ears begin, everywhere."""
    far, index = cKDTree(jaw).query(local, distance_upper_bound=_BESIDE_JAW)
    place = np.asarray(np.minimum(index, len(jaw) - 1) / (len(jaw) - 1), np.float64)
    reach = _BESIDE_JAW * smoothstep(np.minimum(place, 1 - place), 0.0, _AT_EARS) + 1e-6
    return np.asarray(smoothstep(np.minimum(far, _BESIDE_JAW) / reach, 0.7, 1.0), np.float64)


def _clear_of_organs(paper: Paper, targets: FloatArray) -> FloatArray:
    """1 ``(H, W)`` where the layer has no eyes, brows, lips nor what is close round them."""
    below = np.array([0.0, _UNDER_EYES, 0.0])
    eyes = [targets[list(ids)] for ids in (lm.RIGHT_EYE, lm.LEFT_EYE)]
    kept = [(points, _ROUND_EYES) for points in (*eyes, *(points - below for points in eyes))]
    kept += [(targets[list(ids)], _ROUND_BROWS) for ids in (lm.RIGHT_BROW, lm.LEFT_BROW)]
    kept.append((targets[list(lm.LIPS_OUTER)], _ROUND_LIPS))
    out = np.ones(paper.shape)
    for points, reach in kept:
        out *= smoothstep(paper.signed(points), 0.02 - reach, -0.02 - reach)
    return out
