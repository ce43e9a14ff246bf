"""What the exemplar's proportions ask of the person's face: landmark algebra in the face frame.

The face frame has its origin amid the landmarks, x to the person's left, y up, z out of the face,
and the distance between the eyes as its unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..errors import InputError
from ..scene import FloatArray
from .settings import StylizeSettings

COMPONENTS: dict[str, tuple[int, ...]] = {
    "oval": lm.FACE_OVAL,
    "right_eye": (*lm.RIGHT_EYE, *lm.RIGHT_IRIS),
    "left_eye": (*lm.LEFT_EYE, *lm.LEFT_IRIS),
    "right_brow": lm.RIGHT_BROW,
    "left_brow": lm.LEFT_BROW,
    "nose": (*lm.NOSE_RIDGE, *lm.NOSE_BASE),
    "mouth": (*lm.LIPS_OUTER, *lm.LIPS_INNER),
}
"""Landmarks that carry the shape change, per component."""

_SETTING = {
    "oval": "oval",
    "right_eye": "eyes",
    "left_eye": "eyes",
    "right_brow": "brows",
    "left_brow": "brows",
    "nose": "nose",
    "mouth": "mouth",
}
_SAID = {"oval": "face", "eyes": "eyes", "brows": "brows", "nose": "nose", "mouth": "mouth"}
_VISIBLE = 0.03
"""Moves below this (eye distances) are not worth a word."""
# Share of the shape that scale and offset leave over. Lips keep the person's expression.
_RESIDUAL = {"oval": 0.8, "eyes": 0.5, "brows": 0.6, "nose": 0.4, "mouth": 0.0}
_MIN_SCALE = {"eyes": 0.45}
_MIN_SCALE_ELSE = 0.6
_MAX_SCALE = {"eyes": 4.0, "brows": 2.8}
_MAX_SCALE_ELSE = 1.8
REFERENCES = ("mean", "person")
"""Values of the setting ``relative_to``."""
_MAX_OFFSET = 0.35
_MAX_MOVE = 0.45
_LEAST_FOREHEAD = 0.55
"""Share of the height between brows and outline that stays at least."""
CLOSED_OPENING = 0.12
"""Eyes whose lids are nearer than this share of the eye's width count as closed."""

_X_MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class FaceFrame:
    """A similarity between the world and the face frame.

    Attributes:
        rotation: ``(3, 3)``, rows are the frame's axes in the world.
        origin: ``(3,)`` in the world.
        unit: Metres between the eyes' centres.
    """

    rotation: FloatArray
    origin: FloatArray
    unit: float

    def to_face(self, points: FloatArray) -> FloatArray:
        """World points ``(..., 3)`` to the face frame."""
        return np.asarray((points - self.origin) @ self.rotation.T / self.unit)

    def to_world(self, points: FloatArray) -> FloatArray:
        """Face-frame points ``(..., 3)`` to the world."""
        return np.asarray(points * self.unit @ self.rotation + self.origin)

    def vectors_to_world(self, vectors: FloatArray) -> FloatArray:
        """Face-frame vectors ``(..., 3)`` to metres in the world."""
        return np.asarray(vectors * self.unit @ self.rotation)


def face_frame(points: FloatArray) -> FaceFrame:
    """The face frame of ``(478, 3)`` landmarks (right-handed space, no NaN)."""
    across = points - points[lm.MIRROR]
    lateral = [*lm.FACE_OVAL, *lm.LEFT_EYE, *lm.LIPS_OUTER]
    signs = np.sign([lm.MIRROR[i] - i for i in lateral]).astype(float)
    # Left indices are the larger ones, so -sign points to the person's left.
    x = -(across[lateral] * signs[:, None]).sum(0)
    x /= np.linalg.norm(x)
    up = points[lm.FOREHEAD] - points[lm.CHIN]
    y = up - x * (up @ x)
    y /= np.linalg.norm(y)
    rotation = np.stack([x, y, np.cross(x, y)])
    unit = float(
        np.linalg.norm(points[list(lm.LEFT_EYE)].mean(0) - points[list(lm.RIGHT_EYE)].mean(0))
    )
    center = 0.5 * (points[list(lm.FACE_OVAL)].mean(0) + points[list(lm.MIDLINE)].mean(0))
    return FaceFrame(rotation, center, unit)


def complete_landmarks(points: FloatArray) -> FloatArray:
    """Fill NaN rows of ``(478, 3)`` landmarks from the mirror image, then from near neighbours.

    Raises:
        InputError: Less than half of the points are known (code ``no_face``).
    """
    known = np.isfinite(points).all(1)
    if known.mean() < 0.5:
        raise InputError(
            "No face was found in enough frames of the capture: film the face from the front in "
            "good light.",
            "no_face",
        )
    if known.all():
        return points
    paired = known & known[lm.MIRROR]
    mirrored = points[lm.MIRROR] * _X_MIRROR
    out = points.copy()
    if paired.sum() >= 20:
        weights = np.ones(int(paired.sum()))
        scale, rotation, shift = similarity(mirrored[paired], points[paired], weights)
        lone = ~known & known[lm.MIRROR]
        out[lone] = scale * mirrored[lone] @ rotation.T + shift
        known = known | lone
    return _crude_fill(out, known)


def _crude_fill(points: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    """Neighbours in FaceMesh's numbering lie near each other on the face, mostly."""
    out = points.copy()
    index = np.arange(len(points))
    for axis in range(3):
        out[~known, axis] = np.interp(index[~known], index[known], points[known, axis])
    return out


def align_exemplar(exemplar: FloatArray, subject: FloatArray) -> tuple[FloatArray, float]:
    """Remove the exemplar's head pose by a robust 3D similarity onto the subject.

    Args:
        exemplar: ``(478, 3)`` in the image's axes turned right-handed (x right, y up, z nearer).
        subject: ``(478, 3)`` in the face frame.

    Returns:
        The exemplar's points in the face frame and the yaw in radians that was removed.
    """
    weights = np.ones(len(subject))
    moved, rotation = exemplar, np.eye(3)
    for _ in range(4):
        scale, rotation, shift = similarity(exemplar, subject, weights)
        moved = scale * exemplar @ rotation.T + shift
        error = np.linalg.norm(moved - subject, axis=1)
        weights = 1.0 / np.maximum(error, np.median(error) + 1e-9)
    yaw = float(np.arctan2(rotation[0, 2], rotation[2, 2]))
    return moved, yaw


def similarity(
    source: FloatArray, target: FloatArray, weights: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Weighted least-squares similarity (Umeyama 1991): ``target ~ s R source + t``.

    Args:
        source: ``(n, 3)``.
        target: ``(n, 3)``.
        weights: ``(n,)``.

    Returns:
        Scale, rotation ``(3, 3)`` and shift ``(3,)``.
    """
    w = weights / weights.sum()
    mean_source, mean_target = w @ source, w @ target
    a, b = source - mean_source, target - mean_target
    u, d, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / (w @ (a**2).sum(1)))
    return scale, rotation, mean_target - scale * rotation @ mean_source


def symmetrize(points: FloatArray, toward: float = 0.0) -> FloatArray:
    """Average ``(478, 3)`` face-frame points with their mirror image.

    Args:
        points: Landmarks in the face frame.
        toward: -1 keeps the person's right half only (and its mirror image), 1 the left one.
    """
    mirrored = points[lm.MIRROR] * _X_MIRROR
    # Indices of the left half are larger than those of their mirror images.
    side = np.sign(np.arange(len(points)) - lm.MIRROR)
    own = 0.5 + 0.5 * toward * side
    return np.asarray(own[:, None] * points + (1 - own)[:, None] * mirrored)


def eye_opening(points: FloatArray) -> tuple[float, float]:
    """Lid distance over eye width of the right and the left eye of ``(478, >=2)`` points."""
    out = []
    for contour in (lm.RIGHT_EYE, lm.LEFT_EYE):
        corner, other = points[contour[0], :2], points[contour[8], :2]
        lower = points[list(contour[1:8]), :2]
        upper = points[list(contour[:8:-1]), :2]
        gap = np.linalg.norm(upper - lower, axis=1)[1:-1].mean()
        out.append(float(gap / max(np.linalg.norm(other - corner), 1e-9)))
    return out[0], out[1]


def target_offsets(
    subject: FloatArray,
    exemplar: FloatArray,
    settings: StylizeSettings,
    reference: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """How far each component's landmarks should move (method_anchors B2, steps 3 and 4).

    Each component's deviation of the exemplar from the reference is split into scale, offset and
    the rest, and applied to the subject. Strength 0 is the identity, strength 1 the whole
    deviation: growing goes linearly with the strength (a power would leave big eyes far too small
    below 1), shrinking by powers (a line would reach nothing above 1).

    Args:
        subject: ``(478, 3)`` in the face frame.
        exemplar: ``(478, 3)`` in the face frame (pose removed).
        settings: Strength and weights.
        reference: ``(478, 3)`` in the face frame, what the exemplar deviates from; None is the
            subject itself, so that strength 1 ends at the exemplar's size.

    Returns:
        Component name to ``(n, 3)`` offsets in the face frame, order of :data:`COMPONENTS`.
    """
    change = _Change.between(subject, exemplar, settings, reference)
    moves = {name: change.moves(name) for name in COMPONENTS}
    return moves | {"oval": _room_above_brows(subject, moves)}


def _room_above_brows(subject: FloatArray, moves: dict[str, FloatArray]) -> FloatArray:
    """The outline's moves ``(n, 3)``, its top lifted where the brows would be pressed against it.

    A toon's brows sit high under a low hairline; a forehead squeezed to nothing folds, and the fold
    would take the eyes' growth with it.
    """
    ids = list(COMPONENTS["oval"])
    out = moves["oval"].copy()
    brows = [*COMPONENTS["right_brow"], *COMPONENTS["left_brow"]]
    lift = np.concatenate([moves["right_brow"], moves["left_brow"]])[:, 1]
    across = np.abs(subject[ids, :1] - subject[brows, 0])
    near = (across + 1.0 * (subject[brows, 1] < subject[brows, 1].mean())).argmin(1)
    gap = subject[ids, 1] - subject[brows, 1][near]
    above = np.clip((gap - 0.1) / 0.2, 0.0, 1.0)
    least = lift[near] - (1 - _LEAST_FOREHEAD) * gap
    out[:, 1] += above * np.maximum(0.0, least - out[:, 1])
    return out


def clamped(
    subject: FloatArray,
    exemplar: FloatArray,
    settings: StylizeSettings,
    reference: FloatArray | None = None,
) -> list[str]:
    """One sentence for every part in which the exemplar deviates by more than is allowed.

    Args:
        subject: As for :func:`target_offsets`.
        exemplar: The same.
        settings: The same.
        reference: The same.
    """
    change = _Change.between(subject, exemplar, settings, reference)
    whose = "person's" if reference is None else "mean face's"
    worst: dict[str, tuple[float, float]] = {}
    for name in COMPONENTS:
        kind = _SETTING[name]
        if settings.strength * settings.component_weight(kind) <= 0:
            continue
        asked, ratio = change.ratios(name)
        for want, got in zip(asked, ratio, strict=True):
            off = float(np.log(want / got))
            if abs(off) > max(0.05, abs(np.log(worst.get(kind, (1.0, 1.0))[0]))):
                worst[kind] = (float(want / got), float(want))
    return [
        f"Size of the {_SAID[kind]}: the exemplar's is {want:.2g} times the {whose}, "
        f"{want / over:.2g} times is the limit."
        for kind, (over, want) in worst.items()
    ]


def held_back(subject: FloatArray, targets: FloatArray, moves: dict[str, FloatArray]) -> list[str]:
    """One sentence for every part that got clearly less than was asked, so that nothing folds.

    Args:
        subject: ``(478, 3)`` before the change, face frame.
        targets: ``(478, 3)`` after it.
        moves: What :func:`target_offsets` asked for.
    """
    asked, got = dict.fromkeys(_SAID, 0.0), dict.fromkeys(_SAID, 0.0)
    for name, wanted in moves.items():
        ids, kind = list(COMPONENTS[name]), _SETTING[name]
        if np.sqrt((wanted**2).sum(1).mean()) < _VISIBLE:
            continue
        asked[kind] += float((wanted**2).sum())
        got[kind] += float((wanted * (targets - subject)[ids]).sum())
    return [
        f"Only {got[kind] / asked[kind]:.0%} of the shape change of the {_SAID[kind]} was applied: "
        "more of the exemplar's proportions would fold this face."
        for kind in _SAID
        if got[kind] < 0.9 * asked[kind]
    ]


@dataclass(frozen=True)
class _Change:
    """Subject, exemplar and what it is compared with, side by side.

    Attributes:
        own: ``(478, 3)`` the person in the face frame.
        base: ``(478, 3)`` what the exemplar deviates from, symmetric when asked.
        style: ``(478, 3)`` the exemplar.
        even: ``(478, 3)`` the person, symmetric when asked.
        shut: Whether the right and the left eye are closed.
    """

    own: FloatArray
    base: FloatArray
    style: FloatArray
    even: FloatArray
    shut: tuple[bool, bool]
    settings: StylizeSettings

    @classmethod
    def between(
        cls,
        own: FloatArray,
        style: FloatArray,
        settings: StylizeSettings,
        reference: FloatArray | None,
    ) -> _Change:
        right, left = (gap < CLOSED_OPENING for gap in eye_opening(own))
        base = own if reference is None else reference
        even = own
        if settings.symmetric:
            base, even = symmetrize(base), symmetrize(own)
        return cls(own, base, style, even, (right, left), settings)

    def _closed(self, name: str) -> bool:
        return self.shut[name.startswith("left")]

    def ratios(self, name: str) -> tuple[FloatArray, FloatArray]:
        """The exemplar's size over the reference's, ``(2,)``: as it is, and clamped."""
        ids, kind = list(COMPONENTS[name]), _SETTING[name]
        base, style = self.base[ids, :2], self.style[ids, :2]
        spread = np.abs(base - base.mean(0)).mean(0)
        ratio = np.abs(style - style.mean(0)).mean(0) / np.maximum(spread, 1e-6)
        if kind == "eyes" and self._closed(name):  # a shut lid has no height to compare
            ratio[1] = ratio[0]
        if kind == "mouth":  # an open or smiling mouth is no larger mouth
            share = 0.25 + 0.75 * self.settings.expression
            ratio[1] = ratio[0] * (ratio[1] / ratio[0]) ** share
        low, high = _MIN_SCALE.get(kind, _MIN_SCALE_ELSE), _MAX_SCALE.get(kind, _MAX_SCALE_ELSE)
        return ratio, np.clip(ratio, low, high)

    def moves(self, name: str) -> FloatArray:
        """Moves ``(n, 3)`` of a component's landmarks."""
        ids, kind = list(COMPONENTS[name]), _SETTING[name]
        own, base, style = self.own[ids], self.base[ids], self.style[ids]
        shut = kind == "eyes" and self._closed(name)
        amount = self.settings.strength * _weights(base, kind, self.settings)
        base_center, style_center = base.mean(0), style.mean(0)
        ratio = self.ratios(name)[1]
        scale3 = np.array([ratio[0], ratio[1], np.sqrt((ratio**2).mean()) ** 0.5])
        offset = style_center - base_center
        if kind == "brows":
            offset[1] -= self._sleeping(name)
        offset[2] *= 0.3
        offset *= min(1.0, _MAX_OFFSET / max(float(np.linalg.norm(offset)), 1e-9))
        form, rho = base - base_center, 0.0 if shut else _RESIDUAL[kind]
        if kind == "mouth":  # the exemplar's expression replaces the person's
            form, rho = self.even[ids] - self.even[ids].mean(0), self.settings.expression
        residual = style - style_center - form * np.array([*ratio, 1.0])
        residual[:, 2] = 0.0
        grown = np.where(scale3 > 1, amount * (scale3 - 1), scale3**amount - 1)
        moves = (own - own.mean(0)) * grown + amount * (offset + rho * residual)
        if kind == "nose":
            moves[:, 2:] = _protrusion(own)[:, None] * grown[:, :1] + amount * offset[2]
        length = np.linalg.norm(moves, axis=1, keepdims=True)
        limit = _MAX_MOVE * np.maximum(1.0, amount)
        return np.asarray(moves * np.minimum(1.0, limit / np.maximum(length, 1e-9)))

    def _sleeping(self, name: str) -> float:
        """How much lower a brow has to lie than the exemplar's because the eye below is shut.

        A toon's brow sits high over a big open eye; over a shut one it would float.
        """
        if not self._closed(name):
            return 0.0
        eye = list(lm.LEFT_EYE if name.startswith("left") else lm.RIGHT_EYE)
        lids = [float(np.ptp(points[eye, 1])) / 2 for points in (self.style, self.base)]
        return max(0.0, lids[0] - lids[1])


def _protrusion(nose: FloatArray) -> FloatArray:
    """How far points ``(n, 3)`` of a nose stick out of the face, ``(n,)``.

    Counted from the line between the nose's root and its wings. A picture from the front does not
    say how far a nose sticks out: its section keeps its form, so that depth goes with width.
    """
    ids = COMPONENTS["nose"]
    root = nose[ids.index(lm.NOSE_RIDGE[0])]
    wings = nose[[ids.index(lm.NOSE_BASE[0]), ids.index(lm.NOSE_BASE[-1])]].mean(0)
    down = np.clip((root[1] - nose[:, 1]) / max(root[1] - wings[1], 1e-9), 0.0, 1.0)
    return np.asarray(np.maximum(nose[:, 2] - (root[2] + down * (wings[2] - root[2])), 0.0))


def _weights(base: FloatArray, kind: str, settings: StylizeSettings) -> FloatArray:
    """The weight of every landmark of a component, ``(n, 1)``.

    The outline's own weight passes over into the jaw's between half way down and the chin.
    """
    own = np.full((len(base), 1), settings.component_weight(kind))
    if kind != "oval":
        return own
    low, high = base[:, 1].min(), base[:, 1].max()
    down = (high - base[:, 1:2]) / max(high - low, 1e-9)
    jaw = np.clip((down - 0.5) / 0.25, 0.0, 1.0)
    return np.asarray(own + (settings.component_weight("jaw") - own) * jaw * jaw * (3 - 2 * jaw))
