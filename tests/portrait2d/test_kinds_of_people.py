"""People and exemplars that tempt the stylizer: bald, fringed, streaked, lopsided, dark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from portrait2d_person import (
    HAIR,
    SKIN,
    draw_face,
    egg_to_face,
    face_landmarks,
    make_subject,
)

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline, shape
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.scene import StylizedView

DRAWN_SKIN, DRAWN_HAIR = (240, 190, 150), (150, 70, 20)


def _drawing(folder: Path, points: np.ndarray | None = None, light: float = 1.0):
    """The cartoon of ``test_stylize``, as dark as wanted, and its landmark file."""
    image, at = draw_face(face_landmarks() if points is None else points, 480, 110.0, eye=1.2)
    write_image(folder / "drawing.png", (image * light).astype(np.uint8))
    (folder / "drawing.json").write_text(json.dumps(at.tolist()))
    return folder / "drawing.png", folder / "drawing.json"


def _lab(colour) -> np.ndarray:
    return to_lab(np.array(colour, np.uint8)).reshape(3)


class Stylized:
    """A made-up person studied and stylized from the front and from behind."""

    def __init__(self, folder: Path, recolour=None, light: float = 1.0) -> None:
        self.scene, mesh = make_subject(folder / "scene", recolour)
        progress = SilentProgress()
        self.person = pipeline.study_person(self.scene, mesh, progress)
        path, points = _drawing(folder, light=light)
        yaws = [frame.yaw for frame in self.scene.frames]
        chosen = [int(np.argmin(np.abs(yaws))), int(np.argmax(np.abs(yaws)))]
        done = pipeline.stylize_views(
            self.scene,
            mesh,
            path,
            folder / "out",
            StylizeSettings(strength=0.0),
            progress,
            landmarks_file=points,
            frames=[self.scene.frames[i] for i in chosen],
            person=self.person,
        )
        self.front, self.back = sorted(done.views, key=lambda v: abs(v.frame.yaw))

    @property
    def local(self) -> np.ndarray:
        """``(V, 3)`` the studied surface in the face frame."""
        return egg_to_face(self.person.mesh.vertices)

    def colours(self, view: StylizedView, chosen: np.ndarray) -> np.ndarray:
        """CIELAB ``(n, 3)`` of ``view`` at the chosen vertices, all of which it must see."""
        at = view.frame.camera.project(self.person.mesh.vertices[chosen])[0].astype(int)
        return to_lab(view.image[at[:, 1], at[:, 0]].reshape(-1, 1, 3)).reshape(-1, 3)


def test_bald_stays_bald(tmp_path):
    """Shade on the back of a shaved head is no hair, and gets none of the drawing's."""

    def shaved(local: np.ndarray, colors: np.ndarray) -> None:
        scalp = local[:, 1] > -1.9
        shade = np.clip(0.85 - 0.12 * local[:, 2] / 1.5, 0.7, 1.0)[:, None]
        colors[scalp] = (np.array(SKIN) * np.where(local[:, 2:] < -1.2, shade * 0.8, 1.0))[scalp]

    made = Stylized(tmp_path, shaved)
    local, regions = made.local, made.person.regions
    head = local[:, 1] > -1.0
    assert (regions.hair[head] > 0.5).mean() < 0.01
    skull = (local[:, 2] < -2.3) & (np.abs(local[:, 0]) < 0.7) & (np.abs(local[:, 1] - 0.5) < 0.8)
    found = np.median(made.colours(made.back, skull), axis=0)
    to_skin, to_hair = (np.linalg.norm(found - _lab(c)) for c in (DRAWN_SKIN, DRAWN_HAIR))
    assert to_skin < 25 and to_skin < 0.4 * to_hair


def test_highlights_in_hair_stay_hair(tmp_path):
    """Light bands on dark hair, as a lamp or the sun draws them, in the colour of tanned skin."""

    def _lit(local: np.ndarray) -> np.ndarray:
        behind = (local[:, 2] < -1.6) & (local[:, 1] > -0.6) & (local[:, 1] < 1.2)
        return behind & (np.abs(np.sin(4.0 * local[:, 1])) > 0.85)

    def streaked(local: np.ndarray, colors: np.ndarray) -> None:
        colors[_lit(local)] = (150, 118, 96)

    made = Stylized(tmp_path, streaked)
    lit = _lit(made.local)
    assert lit.sum() > 300
    assert (made.person.regions.hair[lit] > 0.5).mean() > 0.95
    seen = lit & (made.local[:, 2] < -2.3) & (np.abs(made.local[:, 0]) < 0.7)
    found = np.median(made.colours(made.back, seen), axis=0)
    assert np.linalg.norm((found - _lab(DRAWN_HAIR))[1:]) < 18
    assert np.linalg.norm(found - _lab(DRAWN_HAIR)) < np.linalg.norm(found - _lab(DRAWN_SKIN))


def test_a_fringe_stays_in_front(tmp_path):
    """Hair that hangs over the brows hides them, and skin is not drawn over it."""

    def _fringe(local: np.ndarray) -> np.ndarray:
        return (local[:, 2] > -1.2) & (local[:, 1] > 0.72)

    def fringed(local: np.ndarray, colors: np.ndarray) -> None:
        colors[_fringe(local)] = HAIR

    made = Stylized(tmp_path, fringed)
    local = made.local
    over = (local[:, 2] > -0.6) & (local[:, 1] > 0.85) & (local[:, 1] < 1.3)
    over &= np.abs(local[:, 0]) < 0.9
    assert (made.person.regions.hair[over] > 0.5).mean() > 0.95
    found = made.colours(made.front, over)
    to_skin = np.linalg.norm(found - _lab(DRAWN_SKIN), axis=1)
    to_hair = np.linalg.norm(found - _lab(DRAWN_HAIR), axis=1)
    assert (to_hair < to_skin).mean() > 0.95
    # No brow (70, 30, 10) shows through: where brows would be is as light as beside them.
    brow = over & (np.abs(np.abs(local[:, 0]) - 0.55) < 0.2) & (local[:, 1] < 0.95)
    beside = over & (np.abs(local[:, 0]) < 0.2) & (local[:, 1] < 0.95)
    light = [np.median(made.colours(made.front, part)[:, 0]) for part in (brow, beside)]
    assert abs(light[0] - light[1]) < 6
    cheek = (local[:, 2] > -0.6) & (np.abs(local[:, 1] - 0.0) < 0.15) & (local[:, 0] > 0.4)
    skin = np.median(made.colours(made.front, cheek), axis=0)
    assert np.linalg.norm(skin - _lab(DRAWN_SKIN)) < 15


def test_a_dark_exemplar_gives_its_dark_colours(tmp_path):
    light = 0.25
    made = Stylized(tmp_path, light=light)
    local = made.local
    cheek = (local[:, 2] > -0.6) & (np.abs(local[:, 1]) < 0.15) & (np.abs(local[:, 0]) > 0.4)
    found = np.median(made.colours(made.front, cheek & (np.abs(local[:, 0]) < 0.8)), axis=0)
    assert np.abs(found - _lab(np.multiply(DRAWN_SKIN, light))).max() < 9
    skull = (local[:, 2] < -2.3) & (np.abs(local[:, 0]) < 0.7) & (np.abs(local[:, 1] - 0.5) < 0.8)
    found = np.median(made.colours(made.back, skull), axis=0)
    assert np.abs(found - _lab(np.multiply(DRAWN_HAIR, light))).max() < 12
    image, mask = made.front.image.astype(int), made.front.mask > 250
    assert ((image.min(2) > 50) & mask).sum() > 20  # the drawn whites of the eyes, 63 of 255
    face = (local[:, 2] > -0.6) & (np.abs(local[:, 1]) < 1.2)
    assert made.colours(made.front, face)[:, 0].max() < 33  # and nothing of the face glows


@pytest.mark.shared
def test_a_dark_painting_s_face_is_found(tmp_path, shared_data):
    from toonify3d.portrait2d.picture import read_picture

    image = read_picture(shared_data / "portraits" / "astronaut.png")[0]
    write_image(tmp_path / "dark.png", (image * 0.07).astype(np.uint8))
    points = load_exemplar(tmp_path / "dark.png").points
    eyes = points[[lm.RIGHT_IRIS[0], lm.LEFT_IRIS[0]], :2]
    np.testing.assert_allclose(eyes, [(204, 107), (244, 106)], atol=8)


def _grown(change: pipeline.ShapeChange) -> tuple[float, float]:
    """Growth of the right and of the left eye's height."""
    out = []
    for contour in (lm.RIGHT_EYE, lm.LEFT_EYE):
        ids = list(contour)
        heights = [np.ptp(points[ids, 1]) for points in (change.targets, change.landmarks)]
        out.append(float(heights[0] / heights[1]))
    return out[0], out[1]


@pytest.fixture(scope="module")
def person(subject):
    scene, mesh = subject
    return pipeline.study_person(scene, mesh, SilentProgress())


def test_a_lopsided_drawing_is_evened_out_unless_asked(person, tmp_path):
    """Its left eye is drawn twice as large as its right one."""
    points = face_landmarks()
    ids = [*lm.LEFT_EYE, *lm.LEFT_IRIS]
    points[ids, :2] = points[ids, :2].mean(0) + 2.0 * (points[ids, :2] - points[ids, :2].mean(0))
    style = load_exemplar(*_drawing(tmp_path, points))
    even = pipeline.change_shape(person, style, StylizeSettings(symmetric=True))
    own = pipeline.change_shape(person, style, StylizeSettings(symmetric=False))
    right, left = _grown(even)
    assert left == pytest.approx(right, rel=0.03) and right > 1.15
    right, left = _grown(own)
    assert left > 1.3 * right
    moved = np.linalg.norm(own.targets - even.targets, axis=1)
    assert moved[list(lm.LEFT_EYE)].max() > 0.04
    mirrored = even.targets[lm.MIRROR] * [-1, 1, 1]
    assert np.linalg.norm(even.targets - mirrored, axis=1)[list(lm.ORGANS[0])].max() < 0.03


@pytest.mark.parametrize("strength", [0.7, 1.5])
def test_the_warp_folds_nowhere_in_the_heads_box(person, tmp_path, strength):
    """Determinant of the warp on a 26 x 26 x 26 grid: inside and outside the surface as well."""
    points = face_landmarks()
    for contour in (lm.LEFT_EYE + lm.LEFT_IRIS, lm.RIGHT_EYE + lm.RIGHT_IRIS):
        ids = list(contour)
        points[ids, :2] = points[ids, :2].mean(0) + 2.0 * (
            points[ids, :2] - points[ids, :2].mean(0)
        )
    chin = list(lm.FACE_OVAL)
    points[chin, 1] *= np.where(points[chin, 1] < 0, 0.7, 1.1)
    style = load_exemplar(*_drawing(tmp_path, points))
    change = pipeline.change_shape(person, style, StylizeSettings(strength=strength))
    assert _grown(change)[0] > 1.2
    local = person.frame.to_face(person.mesh.vertices)
    head = person.mesh.vertices[
        local[:, 1] > shape.complete_landmarks(change.landmarks)[:, 1].min() - 0.3
    ]
    axes = [np.linspace(head[:, i].min(), head[:, i].max(), 26) for i in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    assert change.field.determinant(grid).min() > 0
