"""Eyes, lips and brows of paintings."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.paintedorgans import own_features
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress

SKIN = np.array([70.0, 12.0, 16.0], np.float32)


def _look(kind="paint"):
    exemplar = SimpleNamespace(
        lip_shift=np.array([-5.0, 10.0, 4.0]), brow_shift=np.array([-8.0, 0.0, 0.0])
    )
    return SimpleNamespace(
        kind=kind, exemplar=exemplar, skin_mean=SKIN, layer=SimpleNamespace(scale=90.0)
    )


def _mouth():
    """Photo, own and organs of lips 20 pixels high with a line between them."""
    photo = np.tile(SKIN, (60, 60, 1))
    own = np.zeros((60, 60, 2), np.float32)
    own[20:40, 10:50, 0] = 1.0
    photo[20:40, 10:50] += np.array([-6.0, 14.0, 2.0], np.float32)
    photo[29:31, 10:50, 0] -= 14.0
    return photo.astype(np.float32), own, own[..., 0]


def test_the_line_between_painted_lips_is_not_softer_than_the_filmed_one():
    photo, own, organs = _mouth()
    out = own_features(_look(), photo, np.tile(SKIN, (60, 60, 1)), own, organs)
    line, lips = out[29:31, 20:40, 0].mean(), out[22:26, 20:40, 0].mean()
    filmed = photo[22:26, 20:40, 0].mean() - photo[29:31, 20:40, 0].mean()
    assert lips - line >= filmed
    # Only the line: the lips themselves do not get the filmed colour on top of the painted one.
    assert SKIN[0] - lips < 10.0
    assert np.array_equal(out[:15], np.tile(SKIN, (15, 60, 1)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_black_stays_black_when_a_painted_face_is_brought_into_the_light(tmp_path, side):
    """Vermeer's shaded iris came out gray: her skin's light was added to it."""
    image, at = draw_face(face_landmarks(), 400, 92.0)
    across = 0.25 + 0.75 / (1 + np.exp((np.arange(400.0) - 200) / 15))[None, :, None]
    image = (image * (across if side == "right" else across[:, ::-1])).astype(np.uint8)
    write_image(tmp_path / "e.png", image)
    (tmp_path / "e.json").write_text(json.dumps(at.tolist()))
    style = load_exemplar(tmp_path / "e.png", tmp_path / "e.json", "paint")
    assert style.painted > 0.5

    eye = lm.RIGHT_EYE if side == "left" else lm.LEFT_EYE
    x, y = at[list(eye), :2].mean(0).astype(int)
    iris, cheek = (
        (slice(y - 2, y + 2), slice(x - 2, x + 2)),
        (slice(y + 40, y + 44), slice(x, x + 4)),
    )
    original = to_lab(image)[..., 0]
    assert np.median(style.lab[cheek][..., 0]) > np.median(original[cheek]) + 8.0
    assert np.median(style.lab[iris][..., 0]) < np.median(original[iris]) + 6.0


@pytest.mark.parametrize("region", ["hair", "skin"])
def test_a_gloss_that_one_frame_shows_hardly_changes_a_painting(
    subject, tmp_path, monkeypatch, region
):
    """It wanders with the camera: in a painting's tones it is another colour in every frame."""
    scene, mesh = subject
    person = pipeline.study_person(scene, mesh, SilentProgress())
    frame = min(scene.frames, key=lambda f: abs(f.yaw - 0.02))
    path = tmp_path / "e.png"
    image, at = draw_face(face_landmarks(), 400, 92.0)
    stripes = 16 * np.sin(2 * np.pi * np.arange(400) / 7.0)[None, :, None]
    write_image(path, np.clip(image * 0.85 + stripes + 10, 0, 255).astype(np.uint8))
    path.with_suffix(".json").write_text(json.dumps(at.tolist()))
    x, y = frame.camera.project(person.world[[10]])[0][0].astype(int)  # middle of the hairline
    rows = slice(y - 9, y - 5) if region == "hair" else slice(y + 6, y + 12)
    window = (rows, slice(x - 8, x + 8))
    filmed = scene.image

    def glossy(wanted):
        photo = filmed(wanted).astype(int)
        photo[window] += 60
        return np.clip(photo, 0, 255).astype(np.uint8)

    def painted(shown):
        monkeypatch.setattr(scene, "image", shown)
        settings = StylizeSettings(look="paint", strokes=0.0, strength=0.0)
        done = pipeline.stylize_views(
            scene, mesh, path, tmp_path / "out", settings, SilentProgress(),
            landmarks_file=path.with_suffix(".json"), frames=[frame], person=person,
        )  # fmt: skip
        return to_lab(done.views[0].image)[window][..., 0].mean()

    filmed_light = to_lab(filmed(frame))[window][..., 0].mean()
    gloss = to_lab(glossy(frame))[window][..., 0].mean() - filmed_light
    assert gloss > 15
    assert abs(painted(glossy) - painted(filmed)) < 0.3 * gloss
