"""A flat cel portrait, drawn with filled splines: flat regions, two-tone shading, ink lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from fields import Array, spline

Points = Sequence[tuple[float, float]]
Mask = npt.NDArray[np.uint8]
SIZE, OVERSAMPLE = 896, 3
INK = "#2a1f33"


class Canvas:
    """Draws in units of a thousandth of the picture, origin top left, with antialiasing."""

    def __init__(self) -> None:
        self.pixels = SIZE * OVERSAMPLE
        self.image = np.zeros((self.pixels, self.pixels, 3), np.uint8)

    def _place(self, path: Array) -> npt.NDArray[np.int32]:
        return np.round(path * self.pixels / 1000.0).astype(np.int32)

    def mask(self, path: Array) -> Mask:
        """255 inside a closed path."""
        out = np.zeros((self.pixels, self.pixels), np.uint8)
        cv2.fillPoly(out, [self._place(path)], 255)
        return out

    def fill(self, path: Array, color: str, clip: Mask | None = None) -> Mask:
        """Fill a closed path, optionally only inside ``clip``; returns its mask."""
        inside = self.mask(path)
        if clip is not None:
            inside = cv2.bitwise_and(inside, clip)
        self.image[inside > 0] = _rgb(color)
        return inside

    def ink(self, path: Array, width: float, color: str = INK, taper: bool = True) -> None:
        """A pen line along an open path, thinner at both ends."""
        places = path * self.pixels / 1000.0
        t = np.linspace(0, 1, len(places))
        swell = np.sin(np.pi * t) ** 0.6 if taper else np.ones(len(t))
        radius = 0.5 * width * self.pixels / 1000.0 * (0.25 + 0.75 * swell)
        for (x, y), r in zip(places, radius, strict=True):
            cv2.circle(self.image, (round(x), round(y)), max(round(r), 1), _rgb(color), -1)

    def finish(self) -> Mask:
        """The picture at its final size, RGB."""
        return np.asarray(cv2.resize(self.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


def _rgb(code: str) -> tuple[int, int, int]:
    return (int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16))


def closed(points: Points, count: int = 400) -> Array:
    """Smooth closed path through ``points``."""
    return spline([points[-2], points[-1], *points, points[0], points[1]], count * 2)[
        int(count * 2 * 2 / (len(points) + 3)) : int(
            count * 2 * (len(points) + 2) / (len(points) + 3)
        )
    ]


def curve(points: Points, count: int = 500) -> Array:
    """Smooth open path through ``points``."""
    return spline(points, count)


def flip(points: Points) -> list[tuple[float, float]]:
    """Mirror left and right."""
    return [(1000 - x, y) for x, y in points]


def both(points: Points) -> list[tuple[float, float]]:
    """A closed symmetric outline from its right half, given from top to bottom."""
    return [*points, *reversed(flip(points))]


SKIN, SKIN_SHADE, BLUSH = "#f7cfae", "#dd9b81", "#f0a793"
HAIR, HAIR_SHADE, HAIR_SHINE = "#a8432f", "#742a2f", "#d9744a"
FACE = both(
    [(560, 300), (640, 340), (692, 430), (698, 530), (686, 620), (650, 705), (590, 770), (535, 802)]
)


def draw() -> Mask:
    """Draw the portrait; RGB ``(SIZE, SIZE, 3)``."""
    c = Canvas()
    _background(c)
    _hair_behind(c)
    _body(c)
    face = _head(c)
    c.fill(
        _fringe_outline() + np.array([8.0, 28.0]), SKIN_SHADE, cv2.bitwise_and(face, _above(c, 505))
    )
    _eyes(c)
    _nose_and_mouth(c)
    _fringe(c)
    return c.finish()


def _background(c: Canvas) -> None:
    c.image[:] = _rgb("#8fc7c0")
    angle = np.linspace(0, 2 * np.pi, 400)
    c.fill(np.stack([500 + 400 * np.cos(angle), 470 + 400 * np.sin(angle)], 1), "#f4e3b5")
    for k in range(7):
        x = 60 + 150 * k
        c.fill(
            np.array([(x, 0), (x + 40, 0), (x - 260, 1000), (x - 300, 1000)], float),
            "#86bdb7",
            255 - c.mask(np.stack([500 + 400 * np.cos(angle), 470 + 400 * np.sin(angle)], 1)),
        )


def _hair_behind(c: Canvas) -> None:
    outline = both(
        [(520, 130), (650, 155), (750, 250), (790, 400), (795, 560), (800, 700), (770, 800),
         (690, 830), (620, 790)]
    )  # fmt: skip
    path = closed(outline)
    c.fill(path, HAIR_SHADE)
    c.ink(np.concatenate([path, path[:1]]), 9, taper=False)


def _body(c: Canvas) -> None:
    neck = [(420, 690), (580, 690), (585, 850), (640, 900), (500, 990), (360, 900), (415, 850)]
    neck_mask = c.fill(np.array(neck, float), SKIN)
    shade = [(400, 690), (600, 690), (592, 830), (560, 862), (500, 872), (440, 850), (405, 790)]
    c.fill(closed(shade), SKIN_SHADE, neck_mask)
    for points in ([(418, 780), (416, 850), (370, 890)], [(582, 780), (584, 850), (630, 890)]):
        c.ink(curve(points), 7)
    left = [(352, 870), (260, 900), (140, 940), (70, 1010), (60, 1100), (500, 1100), (500, 985)]
    for points in (left, flip(left)):
        body = c.fill(np.array(points, float), "#37588a")
        c.fill(
            np.array([(640, 1000), (820, 880), (1000, 1000), (1000, 1100), (600, 1100)], float),
            "#26406c",
            body,
        )
    collar = [(362, 850), (338, 890), (420, 985), (462, 1000), (500, 985), (420, 930)]
    for points in (collar, flip(collar)):
        path = np.array(points, float)
        c.fill(path, "#f6efe0" if points is collar else "#d5cbc4")
        c.ink(_dense(np.concatenate([path, path[:1]])), 6, taper=False)
    for points in (
        [(352, 872), (260, 900), (140, 940), (66, 1010)],
        [(648, 872), (740, 900), (860, 940), (934, 1010)],
    ):
        c.ink(curve(points), 9)


def _dense(path: Array, count: int = 200) -> Array:
    s = np.linspace(0, len(path) - 1, count * len(path))
    k = np.arange(len(path))
    return np.stack([np.interp(s, k, path[:, 0]), np.interp(s, k, path[:, 1])], axis=1)


def _head(c: Canvas) -> Mask:
    ear = [(690, 500), (716, 478), (738, 500), (732, 560), (708, 610), (684, 612)]
    for points in (ear, flip(ear)):
        mask = c.fill(closed(points), SKIN)
        c.ink(closed(points), 6, taper=False)
        inner = [(700, 515), (718, 505), (722, 545), (704, 585)]
        c.fill(closed(inner if points is ear else flip(inner)), SKIN_SHADE, mask)
    path = closed(FACE)
    face = c.fill(path, SKIN)
    shade = [(720, 330), (668, 420), (664, 560), (648, 640), (600, 715), (540, 770), (480, 798),
             (500, 830), (640, 800), (730, 640), (740, 460)]  # fmt: skip
    c.fill(closed(shade), SKIN_SHADE, face)
    for x in (368, 632):
        angle = np.linspace(0, 2 * np.pi, 200)
        c.fill(np.stack([x + 42 * np.cos(angle), 632 + 24 * np.sin(angle)], 1), BLUSH, face)
        for k in (-1, 0, 1):
            c.ink(curve([(x + 16 * k + 5, 622), (x + 16 * k - 5, 642)], 60), 3.5, "#d8806f")
    half = FACE[: len(FACE) // 2][2:]
    jaw = [*half, *reversed(flip(half))]
    c.ink(curve(jaw, 900), 8.5)
    return face


def _eyes(c: Canvas) -> None:
    for side in (1, -1):

        def at(points: Points, side: int = side) -> list[tuple[float, float]]:
            return [(500 + side * x, y) for x, y in points]

        white = at([(45, 545), (62, 512), (100, 493), (138, 505), (158, 538), (140, 568),
                    (100, 580), (62, 570)])  # fmt: skip
        mask = c.fill(closed(white), "#fffaf2")
        c.fill(
            np.array(at([(30, 480), (170, 480), (170, 520), (100, 508), (30, 530)])),
            "#d9c9cf",
            mask,
        )
        angle = np.linspace(0, 2 * np.pi, 300)

        def disc(rx: float, ry: float, dx: float = 0, dy: float = 0, side: int = side,
                 angle: Array = angle) -> Array:  # fmt: skip
            x = 500 + side * 101 + dx
            return np.stack([x + rx * np.cos(angle), 536 + dy + ry * np.sin(angle)], 1)

        c.fill(disc(35, 41), "#1d3b3a", mask)
        iris = c.fill(disc(30.5, 37), "#2f7f6e", mask)
        c.fill(disc(27, 25, 0, 17), "#63b89a", iris)
        c.fill(disc(15, 19), "#14211f", mask)
        c.fill(disc(9.5, 11, -11, -14), "#ffffff", mask)
        c.fill(disc(5, 5, 12, 15), "#d8fff0", mask)
        lid = at([(40, 552), (58, 510), (98, 487), (142, 499), (172, 530)])
        c.ink(curve(lid), 15)
        c.ink(curve(at([(142, 499), (166, 512), (184, 510)])), 10)
        c.ink(curve(at([(150, 508), (172, 528), (188, 530)])), 9)
        c.ink(curve(at([(62, 575), (100, 586), (142, 572)])), 4.5, "#8a4d48")
        c.ink(curve(at([(60, 488), (100, 466), (146, 478)])), 4.5, "#a5604f")
        c.fill(closed(at([(38, 447), (70, 425), (120, 413), (176, 440), (120, 430), (72, 444),
                          (40, 462)])), "#5d2227")  # fmt: skip


def _nose_and_mouth(c: Canvas) -> None:
    c.fill(closed([(512, 560), (528, 640), (536, 655), (512, 668), (505, 645)]), SKIN_SHADE)
    c.ink(
        curve([(468, 652), (472, 666), (484, 668), (500, 673), (516, 668), (528, 666), (532, 652)]),
        5.5,
        "#8a4d48",
    )
    for x in (488, 513):
        c.ink(curve([(x - 6, 664), (x, 661), (x + 6, 664)], 80), 5, "#6e3336")
    upper = [(432, 715), (465, 706), (488, 700), (500, 704), (512, 700), (535, 706), (568, 715),
             (535, 722), (500, 725), (465, 722)]  # fmt: skip
    lower = [(440, 717), (465, 722), (500, 725), (535, 722), (560, 717), (538, 741), (500, 750),
             (462, 741)]  # fmt: skip
    c.fill(closed(lower), "#d9626a")
    c.fill(closed(upper), "#b8424f")
    c.fill(closed([(478, 733), (500, 736), (516, 733), (500, 742)]), "#f2a3a0")
    c.ink(
        curve([(424, 711), (440, 717), (470, 721), (500, 725), (530, 721), (560, 717), (576, 711)]),
        6.5,
    )
    c.ink(curve([(474, 764), (500, 769), (526, 764)]), 5, "#b26a59")


def _fringe_outline() -> Array:
    top = [(500, 112), (620, 126), (730, 200), (792, 330), (806, 480), (800, 640), (760, 760)]
    right = [(742, 640), (716, 540), (706, 470), (676, 400), (610, 330), (560, 270)]
    locks = [(520, 330), (470, 392), (400, 430), (452, 360), (470, 330), (400, 400), (318, 452),
             (296, 540), (276, 640), (240, 760)]  # fmt: skip
    left = [(200, 640), (194, 480), (208, 330), (270, 200), (380, 126)]
    return np.concatenate(
        [
            curve(top, 300),
            curve([top[-1], *right], 300),
            curve(locks[:3], 80),
            curve(locks[2:5], 80),
            curve(locks[4:], 160),
            curve([locks[-1], *left, (500, 112)], 300),
        ]
    )


def _fringe(c: Canvas) -> None:
    path = _fringe_outline()
    redraw = c.fill(path, HAIR)
    for points in (
        [(560, 270), (640, 300), (720, 400), (745, 520), (760, 700), (800, 640), (806, 480),
         (770, 330), (690, 240)],
        [(520, 330), (470, 392), (400, 430), (440, 385), (480, 330), (540, 250)],
        [(318, 452), (296, 540), (276, 640), (240, 760), (238, 600), (262, 470)],
    ):  # fmt: skip
        c.fill(closed(points), HAIR_SHADE, redraw)
    shine = [(268, 330), (330, 258), (420, 222), (520, 216), (470, 240), (520, 246), (420, 262),
             (440, 282), (350, 310), (340, 340), (290, 380)]  # fmt: skip
    c.fill(np.array(shine, float), HAIR_SHINE, redraw)
    shine = [(600, 226), (690, 262), (742, 350), (700, 318), (690, 330), (650, 276)]
    c.fill(np.array(shine, float), HAIR_SHINE, redraw)
    c.ink(np.concatenate([path, path[:1]]), 8.5, taper=False)
    for points in (
        [(540, 130), (560, 200), (560, 270)], [(520, 140), (420, 200), (320, 330), (290, 460)],
        [(560, 200), (680, 290), (740, 420), (770, 640)], [(500, 150), (480, 240), (470, 330)],
        [(430, 150), (300, 250), (240, 400), (226, 560)],
    ):  # fmt: skip
        c.ink(curve(points), 5.5)


def _above(c: Canvas, limit: float) -> Mask:
    out = np.zeros((c.pixels, c.pixels), np.uint8)
    out[: round(limit * c.pixels / 1000)] = 255
    return out


def make(target: Path) -> None:
    """Draw and write the portrait."""
    cv2.imwrite(str(target), draw()[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
