"""Hair as a solid: a cap round the skull covered with tapered locks; brows and lashes likewise.

Locks are closed tubes walked along a flow field over the scalp, so the hair has a surface that
multi-view stereo can reconstruct, unlike hair made of thin strands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from fields import (
    Array,
    Field,
    Mesh,
    fractal_noise,
    gaussian,
    gradient,
    in_chunks,
    merge,
    mix,
    polygonize,
    project,
    refine,
    smoothstep,
)
from head import Color, Person, brow_mask, lid_curves, skin_field, skull_field, srgb

Hairline = Sequence[tuple[float, float]]

SHORT_HAIRLINE: Hairline = (
    (0.0, 7.0), (0.45, 7.1), (0.75, 6.2), (0.98, 4.6), (1.15, 2.6), (1.24, -1.9), (1.42, -1.9),
    (1.52, 1.6), (1.75, 2.9), (2.0, 1.6), (2.12, -2.2), (2.5, -5.6), (3.15, -6.6),
)  # fmt: skip
"""Height (cm) of the hairline at angles (rad) round the head, 0 in front, pi behind."""


@dataclass(frozen=True)
class HairStyle:
    """Where hair grows, how thick, which way, and of what it is made. Lengths in cm."""

    hairline: Hairline = SHORT_HAIRLINE
    top: float = 1.9
    side: float = 0.75
    nape: float = 0.4
    quiff: float = 1.1
    locks: int = 3200
    width: float = 0.20
    length_top: float = 5.5
    length_side: float = 2.2
    spread: float = 0.28
    lift: float = 1.0
    dark: str = "#4e3421"
    light: str = "#c18b55"
    sweep: tuple[float, float, float] = (-0.45, 0.9, 0.0)
    extra: Sequence[tuple[tuple[float, float, float], float, float]] = field(default_factory=tuple)
    """More volume: centre, radius of the bump, height of the bump."""


def hair_inside(p: Array, style: HairStyle, scale: float = 1.0) -> Array:
    """About how far (cm) points lie inside the hairline; negative outside."""
    angle = np.arctan2(np.abs(p[:, 0]), -(p[:, 1] - 0.3))
    knots, heights = np.array(style.hairline).T
    line = np.interp(angle, knots, heights) * scale
    slope = (np.interp(angle + 0.04, knots, heights) - np.interp(angle - 0.04, knots, heights)) / (
        0.08 * 8.0
    )
    wobble = 0.18 * fractal_noise(p * 0.9, 41, 2)
    return np.asarray((p[:, 2] - line) / np.sqrt(1 + slope * slope) + wobble)


def thickness(p: Array, style: HairStyle) -> Array:
    """Height of the hair over the skull, before it thins out at the hairline."""
    t = style.nape + (style.side - style.nape) * smoothstep(-4.0, 2.0, p[:, 2])
    t = t + (style.top - style.side) * smoothstep(2.5, 9.0, p[:, 2])
    t = t + style.quiff * gaussian(p, (0.8, -6.8, 8.4), (4.0, 3.0, 3.0))
    for center, radius, height in style.extra:
        t = t + height * gaussian(p, center, (radius, radius, radius))
    return np.asarray(t)


def flow(p: Array, style: HairStyle) -> Array:
    """Direction of growth ``(N, 3)``: swept over the top, down and back at the sides."""
    top = smoothstep(3.0, 6.5, p[:, 2] - 0.35 * np.maximum(p[:, 1], 0))
    sides = np.stack([0 * p[:, 0], 0.45 + 0 * p[:, 0], -0.9 + 0 * p[:, 0]], axis=1)
    behind = smoothstep(4.0, 8.0, p[:, 1])
    sides = mix(sides, np.array([0.0, 0.0, -1.0]), behind)
    swept = np.broadcast_to(np.asarray(style.sweep), p.shape)
    return mix(sides, swept, top)


def build_cap(person: Person, style: HairStyle) -> Mesh:
    """The closed volume under the locks."""
    s = person.skull

    def cap(q: Array) -> Array:
        grown = smoothstep(0.1, 3.4, hair_inside(q, style, s))
        height = 0.5 * thickness(q / s, style) * s * grown
        return skull_field(q, person) - height + 0.12 * (1 - 1.6 * grown)

    low, high = (-12.0 * s, -12.0 * s, -9.0), (12.0 * s, 14.0 * s, 17.0 * s)
    vertices, faces = polygonize(cap, low, high, 0.3)
    vertices, faces = refine(cap, vertices, faces, lambda q: np.full(len(q), 0.3))
    keep = hair_inside(vertices, style, s) > -1.2
    faces = faces[keep[faces].all(axis=1)]
    streak = fractal_noise(vertices * np.array([4.0, 0.9, 0.9]), 51)
    colors = mix(
        np.asarray(srgb(style.dark)),
        np.asarray(srgb(style.light)),
        np.clip(0.15 + 0.2 * streak, 0, 1),
    )
    return Mesh(vertices, faces, colors)


def build_locks(person: Person, style: HairStyle, seed: int = 7) -> Mesh:
    """Tapered tubes that follow the flow over the scalp."""
    rng = np.random.default_rng(seed)
    s = person.skull

    def scalp(q: Array) -> Array:
        return skull_field(q, person)

    roots = _scalp_points(scalp, rng, style, person)
    inside = hair_inside(roots, style, s)
    tall = thickness(roots / s, style) * s * smoothstep(-0.2, 1.6, inside)
    tall = tall * rng.uniform(0.62, 1.06, len(roots)) * style.lift + 0.05
    high = smoothstep(2.5, 8.0, roots[:, 2] / s)
    length = (style.length_side + (style.length_top - style.length_side) * high) * s
    length = length * rng.uniform(0.55, 1.1, len(roots))
    twist = rng.normal(0, style.spread, len(roots))
    curl = rng.normal(0, style.spread * 0.5, len(roots))
    steps = 9
    place = roots + 0.5 * tall[:, None] * _unit(gradient(scalp, roots))
    path = [place]
    for k in range(steps):
        t = (k + 1) / steps
        normal = _unit(gradient(scalp, place))
        way = flow(place / s, style)
        way = way - (way * normal).sum(1, keepdims=True) * normal
        way = _unit(way)
        angle = (twist + curl * t)[:, None]
        way = np.cos(angle) * way + np.sin(angle) * np.cross(normal, way)
        limit = (
            thickness(place / s, style) * s * smoothstep(-0.4, 1.2, hair_inside(place, style, s))
        )
        rise = np.minimum(tall, 1.1 * limit + 0.1) * min(1.0, 0.5 + 2.2 * t) * (1 - 0.45 * t**3)
        target = place + way * (length / steps)[:, None]
        off = scalp(target) - rise
        place = target - 0.8 * np.clip(off, -0.8, 0.8)[:, None] * normal
        path.append(place)
    curve = np.stack(path, axis=1)
    width = style.width * s * rng.uniform(0.7, 1.35, len(roots)) * (0.6 + 0.4 * high)
    color = _lock_colors(roots, style, rng)
    return tubes(curve, width, color, lambda q: gradient(scalp, q), srgb(style.dark), 5)


def _scalp_points(
    scalp: Field, rng: np.random.Generator, style: HairStyle, person: Person
) -> Array:
    s = person.skull
    direction = rng.normal(size=(style.locks * 6, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    start = np.array([0, 1.0, 2.0]) * s + direction * 9.0 * s
    points = in_chunks(lambda q: project(scalp, q, 8, 1.0), start)
    points = points[hair_inside(points, style, s) > 0.0]
    ear = np.abs(points[:, 0]) / s > 6.2
    ear &= (points[:, 2] < 2.2) & (points[:, 1] > -0.9) & (points[:, 1] < 3.0)
    points = points[~ear]
    if len(points) < style.locks:
        return points
    return points[: style.locks]


def _lock_colors(roots: Array, style: HairStyle, rng: np.random.Generator) -> Array:
    t = 0.35 + 0.25 * fractal_noise(roots * 0.6, 61) + rng.normal(0, 0.22, len(roots))
    return mix(np.asarray(srgb(style.dark)), np.asarray(srgb(style.light)), np.clip(t, 0, 1))


def tubes(
    curve: Array,
    width: Array,
    color: Array,
    outward: Callable[[Array], Array],
    root_color: Color,
    sides: int = 6,
    flat: float = 0.5,
    taper: float = 0.3,
) -> Mesh:
    """Closed tubes round ``curve`` ``(N, K, 3)``, widest in the middle, pointed at the end.

    Args:
        curve: Points along each tube.
        width: Half width ``(N,)``.
        color: Colour of each tube ``(N, 3)``.
        outward: Surface normals (any length) at points: tubes are flattened along them.
        root_color: Colour at the roots.
        sides: Corners of the cross-section.
        flat: Thickness over width.
        taper: Width at the root over ``width``.
    """
    n, k, _ = curve.shape
    t = np.linspace(0, 1, k)
    profile = (taper + (1 - taper) * np.sin(np.pi * np.minimum(t * 1.1, 0.5))) * np.sqrt(
        np.maximum(1 - t**2.5, 0)
    ) + 0.02
    tangent = np.gradient(curve, axis=1)
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True) + 1e-9
    normal = outward(curve.reshape(-1, 3)).reshape(curve.shape)
    across = np.cross(tangent, normal)
    across /= np.linalg.norm(across, axis=2, keepdims=True) + 1e-9
    up = np.cross(across, tangent)
    angle = 2 * np.pi * np.arange(sides) / sides
    radius = (width[:, None] * profile)[:, :, None, None]
    ring = (
        np.cos(angle)[:, None] * across[:, :, None] + flat * np.sin(angle)[:, None] * up[:, :, None]
    )
    vertices = (curve[:, :, None] + radius * ring).reshape(-1, 3)
    i, j, m = np.meshgrid(np.arange(n), np.arange(k - 1), np.arange(sides), indexing="ij")
    base, nxt = (i * k + j) * sides, (m + 1) % sides
    a, b = (base + m).ravel(), (base + nxt).ravel()
    faces = np.concatenate([np.stack([a, a + sides, b], 1), np.stack([b, a + sides, b + sides], 1)])
    shade = smoothstep(0.0, 0.45, t)[None, :, None]
    colors = np.asarray(root_color) * 0.8 * (1 - shade) + color[:, None] * shade
    colors = np.repeat(colors[:, :, None], sides, axis=2).reshape(-1, 3)
    return Mesh(vertices, faces, np.clip(colors, 0, 1))


def build_brows(person: Person, count: int = 420, seed: int = 9) -> Mesh:
    """Short hairs that make up the eyebrows."""
    rng = np.random.default_rng(seed)
    s = person.eye_radius / 1.48
    points = np.stack(
        [rng.uniform(0.8, 6.2 * s, count * 30), np.full(count * 30, -8.0),
         rng.uniform(1.0 * s, 3.0 * s, count * 30)], axis=1
    )  # fmt: skip
    points = points[brow_mask(points, person) > rng.uniform(0.3, 0.8, len(points))][:count]
    points = np.concatenate([points, points * np.array([-1.0, 1.0, 1.0])])
    points = _onto_skin(points, person)
    out = np.sign(points[:, 0])
    u = np.abs(points[:, 0]) - person.eye_x
    rise = np.interp(u / s, [-2.0, -0.5, 1.0, 2.3], [0.8, 0.3, -0.05, -0.4])
    way = np.stack([out, 0.15 + 0 * u, rise + rng.normal(0, 0.08, len(u))], axis=1)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    length = 0.6 * s * rng.uniform(0.6, 1.1, len(u))
    path = [points]
    for k in range(4):
        path.append(_onto_skin(points + way * (length * (k + 1) / 4)[:, None], person, 0.03))
    color = np.asarray(srgb(person.brow)) * rng.uniform(0.7, 1.3, (len(u), 1))
    width = 0.04 * s * rng.uniform(0.7, 1.2, len(u))
    return tubes(np.stack(path, 1), width, color, _forward, srgb(person.brow), sides=5, flat=0.8)


def build_lashes(person: Person, count: int = 46) -> Mesh:
    """Curved lashes on both lids of both eyes."""
    rng = np.random.default_rng(13)
    s = person.eye_radius / 1.48
    pieces = []
    for side, upper in ((1, True), (-1, True), (1, False), (-1, False)):
        n = count if upper else count // 2
        u = np.linspace(-0.75, 0.93, n) * person.lid_half_width
        w = lid_curves(u, person)[0 if upper else 1] + (0.03 if upper else -0.03)
        r = person.eye_radius + 0.2
        y = person.eye_y - np.sqrt(np.maximum(r * r - u * u - w * w, 0.1))
        root = np.stack([side * (u + person.eye_x), y, w], axis=1)
        fan = np.stack([side * 0.55 * u / person.lid_half_width, -0.75 + 0 * u, 0 * u], axis=1)
        size = person.lash * s * (1.0 if upper else 0.5) * rng.uniform(0.75, 1.1, n)
        curl = (1.0 if upper else -0.7) * np.array([0.0, 0.0, 1.0])
        t = np.linspace(0, 1, 6)[None, :, None]
        curve = root[:, None] + size[:, None, None] * (t * fan[:, None] + 0.9 * t**1.8 * curl)
        color = np.broadcast_to(np.asarray(srgb("#150e0a")), (n, 3))
        width = np.full(n, 0.032 * s)
        pieces.append(tubes(curve, width, color, _upward, srgb("#150e0a"), sides=5, flat=1.0))
    return merge(pieces)


def _forward(p: Array) -> Array:
    return np.broadcast_to(np.array([0.0, -1.0, 0.0]), p.shape)


def _upward(p: Array) -> Array:
    return np.broadcast_to(np.array([0.0, 0.0, 1.0]), p.shape)


def _unit(p: Array) -> Array:
    return np.asarray(p / (np.linalg.norm(p, axis=1, keepdims=True) + 1e-9))


def _onto_skin(points: Array, person: Person, offset: float = 0.0) -> Array:
    """Move points along Y onto the skin, so that they keep their place seen from the front."""
    p = points.copy()
    for _ in range(8):
        value = skin_field(p, person) - offset
        slope = (skin_field(p + np.array([0, 0.02, 0]), person) - offset - value) / 0.02
        p[:, 1] -= np.clip(value / np.minimum(slope, -0.3), -0.6, 0.6)
    return p
