"""The head: skin, eyes and what is painted on them. Centimetres, face along -Y, Z up.

The origin is between the ears at the height of the eyes; +X is the person's left. All shapes and
colours are written by hand here; the measures follow common anthropometric averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import (
    Array,
    Mesh,
    ellipsoid,
    fractal_noise,
    gaussian,
    in_chunks,
    mix,
    polygonize,
    refine,
    smax,
    smin,
    smoothstep,
    sphere,
    spline,
    tube,
)

Color = tuple[float, float, float]


def srgb(code: str) -> Color:
    """``"#rrggbb"`` as linear-light RGB."""
    values = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return (float(linear[0]), float(linear[1]), float(linear[2]))


@dataclass(frozen=True)
class Person:
    """Measures (cm) and colours that tell one person, or cartoon, from another."""

    eye_x: float = 3.2
    eye_y: float = -6.75
    eye_radius: float = 1.48
    lid_half_width: float = 1.42
    lid_upper: float = 0.52
    lid_lower: float = 0.44
    iris: float = 0.62
    pupil: float = 0.27
    lash: float = 0.62
    skull: float = 1.0
    nose: float = 1.0
    nose_z: float = 0.0
    mouth: float = 1.0
    smile: float = 0.12
    jaw: float = 1.0
    chin_z: float = 0.0
    neck: float = 1.0
    ear: float = 1.0
    socket: float = 1.0
    asymmetry: float = 1.0
    skin: str = "#d8a183"
    skin_red: str = "#c4705f"
    lips: str = "#b3645f"
    brow: str = "#3a2617"
    iris_color: str = "#4f7a86"
    stubble: float = 0.16
    mottle: float = 1.0


def mirror(p: Array) -> Array:
    """Fold the right half onto the left: ``|x|``, softly to avoid a crease."""
    out = p.copy()
    out[:, 0] = np.sqrt(p[:, 0] ** 2 + 1e-4)
    return out


def skull_field(p: Array, person: Person) -> Array:
    """Cranium, face and jaw without features: what the hair grows on."""
    s, j, c = person.skull, person.jaw, person.chin_z
    q = mirror(p)
    f = ellipsoid(q, (0, 1.3, 3.0 * s), (7.5 * s, 9.2 * s, 8.0 * s))
    f = smin(f, ellipsoid(q, (0, -3.4, 3.6 * s), (6.4 * s, 5.6 * s, 5.4 * s)), 2.5)
    f = smin(f, ellipsoid(q, (0, -3.0, -2.8), (6.2 * j, 5.9, 7.0)), 2.0)
    f = smin(f, ellipsoid(q, (0, -4.2, -6.6 + 0.7 * c), (4.7 * j, 4.8, 4.2)), 2.0)
    jawline = [(5.8 * j, -0.6, -3.2), (4.95 * j, -1.4, -6.9 + 0.5 * c), (2.3 * j, -6.6, -9.7 + c)]
    f = smin(f, tube(q, jawline, (0.9, 0.9, 0.9)), 2.2)
    f = smin(f, sphere(q, (0.5, -7.95, -9.9 + c), 1.35), 1.8)
    f = smin(f, tube(q, [(5.1 * j, -4.6, -2.4), (5.8 * j, -0.5, -1.6)], (0.9, 0.8)), 1.8)
    f = smin(f, ellipsoid(q, (4.2 * j, -3.2, -4.9), (2.0, 2.8, 2.8)), 1.5)
    return smin(f, ellipsoid(q, (4.7 * j, -5.1, -2.6), (1.9, 2.2, 1.5)), 1.6)


def neck_field(p: Array, person: Person) -> Array:
    """Neck with its two strap muscles and a hint of larynx."""
    q = mirror(p)
    n = person.neck
    f = tube(q, [(0, 2.6, -4), (0, 2.6, -11), (0, 2.9, -17)], (5.0 * n, 4.9 * n, 5.1 * n))
    strap = [(4.4 * n, 2.4, -9.5), (3.5 * n, -0.7, -14), (1.2, -1.6, -17)]
    f = smin(f, tube(q, strap, (0.8, 0.9, 0.8)), 1.2)
    return smin(f, tube(q, [(0, -1.5, -12.2), (0, -1.6, -14.5)], (0.9, 0.8)), 1.5)


def eye_frame(p: Array, person: Person) -> tuple[Array, Array, Array]:
    """Lateral and upward offset from the nearer eye's centre, and the offset in depth."""
    return np.abs(p[:, 0]) - person.eye_x, p[:, 2], p[:, 1] - person.eye_y


def lid_curves(u: Array, person: Person) -> tuple[Array, Array]:
    """Heights of the upper and lower lid edge at lateral offset ``u`` (cm)."""
    a = person.lid_half_width
    t = np.clip(u / a, -1.2, 1.2)
    tilt = 0.07 * u
    upper = person.lid_upper * (1 - np.abs(t + 0.08) ** 2.3) + tilt
    lower = -person.lid_lower * (1 - np.abs(t - 0.12) ** 2.1) + tilt
    return upper, lower


def lid_opening(p: Array, person: Person) -> Array:
    """Negative where the eye is open, seen from the front."""
    u, w, _ = eye_frame(p, person)
    upper, lower = lid_curves(u, person)
    return np.asarray(np.maximum(w - upper, lower - w))


def skin_field(p: Array, person: Person) -> Array:
    """Whole skin surface: head, ears, nose, lips, lids round open eyes, neck."""
    f = smin(skull_field(p, person), neck_field(p, person), 1.6)
    f = _eye_region(p, f, person)
    f = _nose(p, f, person)
    f = _mouth(p, f, person)
    f = smin(f, ear_field(p, person), 0.5)
    # End the neck on a slope inside the collar.
    f = smax(f, -16.2 + 0.28 * (p[:, 1] - 2.4) - p[:, 2], 0.5)
    return _asymmetry(p, f, person)


def _asymmetry(p: Array, f: Array, person: Person) -> Array:
    a = person.asymmetry
    f = f - a * 0.10 * gaussian(p, (4.5, -7, -4), (2, 3, 2))
    f = f + a * 0.08 * gaussian(p, (-3.0, -9, 2), (1.5, 2, 1))
    return f - a * 0.12 * gaussian(p, (-2.0, -8, -9.5), (2, 3, 1.5))


def _eye_region(p: Array, f: Array, person: Person) -> Array:
    q = mirror(p)
    ex, ey, r = person.eye_x, person.eye_y, person.eye_radius
    s = r / 1.48
    brow = [(0.9, -8.55, 1.75 * s), (ex, -8.2, 2.25 * s), (ex + 2.2 * s, -6.6, 1.7 * s)]
    f = smin(f, tube(q, brow, (0.5, 0.62, 0.4)), 1.4)
    f = f + person.socket * 0.95 * gaussian(q, (ex - 0.3, -8.6, 0.05), (1.75 * s, 2.2, 0.95 * s))
    f = f + person.socket * 0.45 * gaussian(q, (1.35, -8.6, 0.5), (0.6, 1.4, 0.9 * s))
    lids = sphere(q, (ex, ey, 0), r + 0.2)
    f = smin(f, lids, 0.55)
    # Upper lid crease and the furrow under the lower lid.
    u, w, _ = eye_frame(p, person)
    upper, lower = lid_curves(u, person)
    front = smoothstep(ey, ey - 0.5 * r, p[:, 1]) * smoothstep(1.5, 0.9, np.abs(u) / (1.2 * s))
    f = f + 0.10 * front * np.exp(-0.5 * ((w - upper - 0.33 * s) / (0.09 * s)) ** 2)
    f = f + 0.04 * front * np.exp(-0.5 * ((w - lower + 0.45 * s) / (0.14 * s)) ** 2)
    # Cut the opening only a little deeper than the eyeball's surface: the eyeball fills it.
    depth = np.maximum(-sphere(q, (ex, ey, 0), r - 0.12), sphere(q, (ex, ey, 0), r + 0.9))
    return smax(f, -np.maximum(lid_opening(p, person), depth), 0.09)


def _nose(p: Array, f: Array, person: Person) -> Array:
    q = mirror(p)
    s, dz = person.nose, person.nose_z

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        return (x * s, -8.6 + (y + 8.6) * s, -1.0 + (z + 1.0) * s + dz)

    bridge = [at(0, -8.6, 0.9), at(0, -9.45, -1.0), at(0, -10.65, -3.6)]
    f = smin(f, tube(q, bridge, (0.66 * s, 0.68 * s, 0.8 * s)), 1.1)
    f = smin(f, sphere(q, at(0.22, -10.95, -3.95), 0.74 * s), 0.7 * s)
    wing = ellipsoid(q, at(1.2, -9.45, -4.3), (0.68 * s, 1.35 * s, 0.7 * s))
    f = smin(f, wing, 0.7 * s)
    f = smin(f, tube(q, [at(0, -10.6, -4.6), at(0, -9.6, -5.1)], (0.36 * s, 0.4 * s)), 0.5 * s)
    nostril = ellipsoid(q, at(0.72, -10.0, -5.1), (0.30 * s, 0.52 * s, 0.42 * s))
    f = smax(f, -nostril, 0.25 * s)
    return f + 0.10 * gaussian(q, at(1.75, -9.4, -3.9), (0.25, 1.0, 0.5))


def mouth_curves(x: Array, person: Person) -> tuple[Array, Array, Array]:
    """Heights of the upper lip border, the mouth line and the lower lip border at ``x``."""
    half = 2.55 * person.mouth
    t = np.clip(np.abs(x) / half, 0, 1.3)
    line = -7.25 + person.smile * (2.2 * t**2 - 0.4) + 0.5 * person.chin_z
    bow = 0.09 * np.exp(-(((np.abs(x) - 0.5) / 0.3) ** 2)) - 0.05 * np.exp(-((x / 0.25) ** 2))
    upper = line + (0.56 * (1 - t**1.7) + bow) * person.mouth
    lower = line - 0.78 * (1 - t**2.2) * person.mouth
    return upper, line, lower


def _mouth(p: Array, f: Array, person: Person) -> Array:
    q = mirror(p)
    m = person.mouth
    z0 = -7.25 + 0.5 * person.chin_z
    lift = person.smile
    xs = np.array([0.0, 0.5, 1.2, 1.9, 2.5])
    front = -9.45 + 0.16 * xs**2
    # A muzzle of soft tissue over the teeth, then the two lips, then the slit between them.
    f = smin(f, ellipsoid(q, (0, -6.4, z0 - 0.1), (3.2 * m, 3.1, 2.5)), 1.2)
    z_line = z0 + lift * (2.2 * (xs / 2.55) ** 2 - 0.4)
    up = [(x * m, y + 0.06, z + 0.30 * m) for x, y, z in zip(xs, front, z_line, strict=True)]
    low = [(x * m, y + 0.03, z - 0.40 * m) for x, y, z in zip(xs, front, z_line, strict=True)]
    slit = [(x * m, y - 0.32, z) for x, y, z in zip(xs, front, z_line, strict=True)]
    f = smin(f, tube(q, up, np.array([0.34, 0.37, 0.30, 0.2, 0.05]) * m), 0.35)
    f = smin(f, tube(q, low, np.array([0.46, 0.45, 0.37, 0.22, 0.05]) * m), 0.35)
    f = smax(f, -tube(q, slit, np.array([0.16, 0.15, 0.13, 0.11, 0.06]) * m), 0.22)
    # Corners, the groove under the lower lip, the philtrum, the fold from the nose.
    f = f + 0.16 * gaussian(q, (2.65 * m, -8.0, z_line[-1]), (0.35, 1.0, 0.35))
    f = f + 0.34 * gaussian(q, (0, -9.0, z0 - 1.35 * m), (1.4, 1.2, 0.4))
    f = f + 0.12 * gaussian(q, (0, -9.5, z0 + 1.15 * m), (0.22, 1.2, 0.5))
    fold = tube(q, [(1.9, -9.0, -4.4), (2.9, -8.2, -5.8), (3.4, -7.4, -7.2)], (0.0, 0.0, 0.0))
    return f + 0.09 * np.exp(-0.5 * (fold / 0.28) ** 2)


_EAR_RIM = spline(
    [(-0.9, 0.2), (-0.6, 1.9), (0.4, 2.8), (1.5, 2.5), (2.0, 1.2), (1.6, -0.5), (0.9, -1.9)], 14
)
_EAR_INNER = spline(
    [(-0.1, 1.5), (0.7, 1.9), (1.2, 1.0), (0.9, -0.4), (0.3, -1.5), (-0.5, -1.6)], 11
)


def ear_field(p: Array, person: Person) -> Array:
    """One outer ear per side: rim, inner fold, bowl, tragus and lobe."""
    q = mirror(p)
    e = person.ear
    # Ear coordinates: a backward, b up, c outward from the head; the ear leans out and back.
    base = np.array([7.05 * (0.4 * person.skull + 0.6), 0.6, -1.2])
    local = (q - base) / e
    lean, tilt = 0.42, 0.18
    back = local[:, 1] * np.cos(lean) + local[:, 0] * np.sin(lean)
    out = local[:, 0] * np.cos(lean) - local[:, 1] * np.sin(lean)
    a = back * np.cos(tilt) - local[:, 2] * np.sin(tilt)
    b = local[:, 2] * np.cos(tilt) + back * np.sin(tilt)
    ear = np.stack([a, b, out], axis=1)
    plate = ellipsoid(ear, (0.55, 0.5, 0.05), (1.55, 2.5, 0.24))
    rim_points = [(x, y, 0.15 + 0.12 * x) for x, y in _EAR_RIM]
    f = smin(
        plate,
        tube(ear, rim_points, np.interp(range(14), (0, 4, 8, 13), (0.2, 0.3, 0.3, 0.24))),
        0.25,
    )
    inner = [(x, y, 0.22) for x, y in _EAR_INNER]
    f = smin(f, tube(ear, inner, [0.22] * 11), 0.2)
    f = smax(f, -ellipsoid(ear, (0.1, -0.25, 0.55), (0.75, 1.0, 0.75)), 0.2)
    f = smin(f, ellipsoid(ear, (-0.75, -0.35, 0.1), (0.35, 0.55, 0.4)), 0.25)
    f = smin(f, ellipsoid(ear, (0.15, -2.2, 0.05), (0.75, 0.75, 0.32)), 0.35)
    return f * e


def paint_skin(p: Array, person: Person) -> Array:
    """Skin colours at surface points: redness, lips, brow shadow, stubble, lash line."""
    c = np.broadcast_to(np.asarray(srgb(person.skin)), p.shape).copy()
    q = mirror(p)
    noise = fractal_noise(p * 0.9, 3)
    fine = fractal_noise(p * 5.0, 11)
    red = 0.25 * gaussian(q, (4.2, -8.0, -3.3), (1.7, 2.0, 1.4))
    red += 0.45 * gaussian(q, (0, -11, -4), (1.3, 1.5, 1.2))
    red += 0.45 * smoothstep(7.3, 8.3, q[:, 0]) + 0.2 * gaussian(q, (0, -8, -10.3), (2, 2, 1.2))
    red += person.mottle * (0.09 * noise + 0.07 * fine)
    c = mix(c, srgb(person.skin_red), np.clip(red, 0, 1))
    c = c * (1 + person.mottle * 0.05 * fractal_noise(p * 2.3, 23))[:, None]
    if person.stubble > 0:
        c = _paint_stubble(p, q, c, person)
    c = _paint_mouth(p, c, person)
    return np.clip(_paint_eye_region(p, q, c, person), 0, 1)


def _paint_stubble(p: Array, q: Array, c: Array, person: Person) -> Array:
    area = smoothstep(-4.9, -6.8, p[:, 2]) * smoothstep(0.5, -2.5, p[:, 1])
    area *= smoothstep(-14.5, -11.5, p[:, 2])
    cheek = tube(q, [(6.6, -1, -3), (5.2, -4, -5.4), (3.0, -8, -5.9)], (0, 0, 0))
    lower = q[:, 2] < np.interp(q[:, 0], [2.0, 5.2, 6.6], [-5.2, -5.4, -2.0])
    area = np.maximum(area * smoothstep(0, 1.2, cheek) * lower, 0)
    grain = 0.75 + 0.25 * fractal_noise(p * 9.0, 31, 2)
    return mix(c, np.asarray(srgb("#5b4a45")), person.stubble * area * grain)


def _paint_mouth(p: Array, c: Array, person: Person) -> Array:
    upper, line, lower = mouth_curves(p[:, 0], person)
    edge = 0.06
    inside = smoothstep(upper + edge, upper - edge, p[:, 2])
    inside *= smoothstep(lower - edge, lower + edge, p[:, 2])
    half = 2.55 * person.mouth
    inside *= smoothstep(half + 0.05, half - 0.2, np.abs(p[:, 0])) * (p[:, 1] < -6.5)
    shade = 1.0 - 0.12 * smoothstep(line - 0.1, line + 0.1, p[:, 2])
    ridges = 1 + 0.06 * np.sin(p[:, 0] * 26 + 3 * fractal_noise(p * 2, 5))
    c = mix(c, np.asarray(srgb(person.lips)) * (shade * ridges)[:, None], 0.85 * inside)
    slit = np.exp(-0.5 * ((p[:, 2] - line) / 0.07) ** 2) * inside
    return mix(c, np.asarray(srgb("#4a1f1d")), 0.8 * slit)


def _paint_eye_region(p: Array, q: Array, c: Array, person: Person) -> Array:
    ex, s = person.eye_x, person.eye_radius / 1.48
    front = smoothstep(person.eye_y + 0.6, person.eye_y - 0.3, p[:, 1])
    shadow = 0.3 * gaussian(q, (ex, -8.5, 0.0), (1.9 * s, 4, 0.8 * s)) * front
    c = mix(c, np.asarray(srgb(person.skin_red)) * 0.62, shadow)
    u, w, depth = eye_frame(p, person)
    upper, lower = lid_curves(u, person)
    near = front * smoothstep(1.12, 1.0, np.abs(u) / person.lid_half_width)
    lash = np.exp(-0.5 * ((w - upper - 0.02) / (0.085 * s)) ** 2) * near
    c = mix(c, np.asarray(srgb("#1d120d")), np.clip(1.2 * lash, 0, 0.95))
    under = np.exp(-0.5 * ((w - lower + 0.03) / (0.05 * s)) ** 2) * near
    c = mix(c, np.asarray(srgb("#7a443b")), 0.55 * under)
    inner = np.linalg.norm(np.stack([u, w, depth], 1), axis=1) < person.eye_radius + 0.12
    c = mix(c, np.asarray(srgb("#9a5a50")), 0.5 * inner * (lash < 0.3))
    return mix(c, np.asarray(srgb(person.brow)), 0.55 * brow_mask(p, person))


def brow_mask(p: Array, person: Person) -> Array:
    """1 inside the eyebrows, fading at their ends."""
    s = person.eye_radius / 1.48
    u = np.abs(p[:, 0]) - person.eye_x
    t = np.clip((u / s + 2.0) / 4.4, 0, 1)
    middle = s * (1.62 + 0.75 * np.sin(np.pi * (0.12 + 0.62 * t)) - 0.45 * t**3)
    thick = s * (0.42 * (1 - t) + 0.16) * 0.75
    across = np.exp(-0.5 * ((p[:, 2] - middle) / (0.62 * thick)) ** 4)
    ends = smoothstep(-2.15 * s, -1.7 * s, u) * smoothstep(2.6 * s, 1.9 * s, u)
    return np.asarray(across * ends * (p[:, 1] < -3))


def build_skin(person: Person, detail: float = 1.0) -> Mesh:
    """Mesh and paint the skin; edges in the face are about ``0.07 * detail`` cm."""

    def field(q: Array) -> Array:
        return skin_field(q, person)

    def edge_length(q: Array) -> Array:
        m = mirror(q)
        s = person.eye_radius / 1.48
        face = smoothstep(-4.0, -7.0, q[:, 1]) * smoothstep(-11.5, -10, q[:, 2])
        eye = gaussian(m, (person.eye_x, -8.0, 0), (1.7 * s, 3, 1.1 * s))
        ear = smoothstep(6.6, 7.4, m[:, 0]) * gaussian(m, (8, 1.5, -1), (9, 2.5, 3))
        fine = np.maximum(np.maximum(0.72 * face, 0.92 * smoothstep(0.3, 0.7, eye)), 0.7 * ear)
        return np.asarray(detail * (0.34 * (1 - fine) + 0.03))

    top = 12.5 * max(person.skull, 1.0)
    low, high = (-11.0, -13.0, -21.0), (11.0, 12.0 * max(person.skull, 1.0), top)
    vertices, faces = polygonize(field, low, high, 0.2)
    vertices, faces = refine(field, vertices, faces, edge_length)
    return Mesh(vertices, faces, in_chunks(lambda q: paint_skin(q, person), vertices))


def build_eyes(person: Person, rings: int = 96) -> Mesh:
    """Both eyeballs: white with veins, limbus, iris spokes, pupil; cornea bulge in the shape."""
    angle = np.concatenate([np.linspace(0, 0.7, rings), np.linspace(0.72, np.pi, rings // 2)])
    turn = np.linspace(0, 2 * np.pi, 97)[:-1]
    polar, around = np.meshgrid(angle, turn, indexing="ij")
    polar, around = polar.ravel(), around.ravel()
    r = person.eye_radius
    iris_angle = np.arcsin(min(person.iris / r, 0.95))
    bulge = 0.10 * person.iris * np.clip(1 - (polar / (1.15 * iris_angle)) ** 2, 0, 1)
    direction = np.stack(
        [np.sin(polar) * np.cos(around), -np.cos(polar), np.sin(polar) * np.sin(around)], axis=1
    )
    shape = direction * (r + bulge)[:, None]
    colors = _paint_eye(polar / iris_angle, around, direction, person)
    n, m = len(angle), len(turn)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(m), indexing="ij")
    a, b = (i * m + j).ravel(), (i * m + (j + 1) % m).ravel()
    faces = np.concatenate([np.stack([a, a + m, b], 1), np.stack([b, a + m, b + m], 1)])
    eyes = []
    for side in (1.0, -1.0):
        center = np.array([side * person.eye_x, person.eye_y, 0.0])
        # Eyes converge slightly on the camera a metre away.
        toe = -side * 0.03
        turned = shape @ np.array(
            [[np.cos(toe), np.sin(toe), 0], [-np.sin(toe), np.cos(toe), 0], [0, 0, 1]]
        )
        eyes.append((turned + center, faces))
    vertices = np.concatenate([e[0] for e in eyes])
    both = np.concatenate([eyes[0][1], eyes[1][1] + len(shape)])
    return Mesh(vertices, both, np.concatenate([colors, colors]))


def _paint_eye(t: Array, around: Array, direction: Array, person: Person) -> Array:
    white = np.broadcast_to(np.asarray(srgb("#e4dcd6")), (len(t), 3))
    veins = np.clip(0.25 * (t - 1.6), 0, 0.5) * (0.6 + 0.4 * fractal_noise(direction * 9, 2))
    c = mix(white, np.asarray(srgb("#c98f86")), np.clip(veins, 0, 1))
    spokes = fractal_noise(np.stack([np.cos(around) * 9, np.sin(around) * 9, t * 2.5], 1), 8)
    iris = np.asarray(srgb(person.iris_color)) * (1.0 + 0.45 * spokes)[:, None]
    iris = mix(iris, np.asarray(srgb("#a5835a")), 0.6 * smoothstep(0.75, 0.4, t))
    iris = iris * (1 + 0.5 * smoothstep(0.2, -0.9, np.sin(around)))[:, None]
    iris = mix(iris, np.asarray(srgb("#16181c")), smoothstep(0.78, 1.0, t) * 0.9)
    c = mix(c, iris, smoothstep(1.06, 0.96, t))
    pupil = person.pupil / person.iris
    return np.clip(mix(c, np.zeros(3), smoothstep(pupil + 0.06, pupil - 0.04, t)), 0, 1)
