from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from portrait2d_person import draw_face, face_landmarks

from toonify3d import plan
from toonify3d.capture import landmarks as lm
from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d import clicks, shape
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.service.job import JobFolder
from toonify3d.service.request import Request
from toonify3d.settings import preset_settings

PLACES = {
    "right_eye": [90.0, 100.0],
    "left_eye": [150.0, 110.0],
    "nose": [118.0, 140.0],
    "mouth_right": [95.0, 165.0],
    "mouth_left": [135.0, 172.0],
}


def _file(folder, document, name="face.json"):
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_the_mean_face_is_a_symmetric_face():
    face = clicks.mean_face()
    assert np.abs(face - shape.symmetrize(face)).max() < 1e-3
    frame = shape.face_frame(face)
    assert frame.unit == pytest.approx(1.0, abs=0.01)
    assert min(shape.eye_opening(face)) > shape.CLOSED_OPENING
    assert face[lm.CHIN, 1] < face[lm.NOSE_TIP, 1] < face[lm.FOREHEAD, 1]


def test_the_bent_face_passes_through_the_clicks(tmp_path):
    points = clicks.read_landmarks(_file(tmp_path, PLACES), 0.5)
    assert points.shape == (478, 3)
    for name, ids in (("right_eye", lm.RIGHT_EYE), ("left_eye", lm.LEFT_EYE), ("nose", (1,))):
        assert np.allclose(points[list(ids), :2].mean(0), np.array(PLACES[name]) / 2, atol=1.0)
    assert points[lm.CHIN, 1] > points[61, 1] > points[1, 1]


def test_a_clicked_chin_is_where_the_face_ends(tmp_path):
    points = clicks.read_landmarks(_file(tmp_path, PLACES | {"chin": [112.0, 260.0]}), 1.0)
    assert np.allclose(points[lm.CHIN, :2], [112, 260], atol=0.1)


@pytest.mark.parametrize(
    "document",
    [
        {k: v for k, v in PLACES.items() if k != "nose"},
        PLACES | {"nose": [1, 2, 3]},
        PLACES | {"nose": ["a", 2]},
        PLACES | {"nose": 7},
        PLACES | {"nose": [float("nan"), 2]},
        PLACES | {"right_eye": PLACES["left_eye"], "left_eye": PLACES["right_eye"]},
        PLACES | {"mouth_right": PLACES["mouth_left"], "mouth_left": PLACES["mouth_right"]},
        PLACES | {"nose": PLACES["right_eye"]},
        PLACES | {"mouth_right": PLACES["nose"], "mouth_left": PLACES["nose"]},
        [["a", 1]] * 478,
        [[1, 2, 3, 4]] * 478,
        [[1, None]] * 478,
        "five places",
        {},
    ],
)
def test_wrong_landmark_files_say_what_is_wrong(tmp_path, document):
    with pytest.raises(InputError) as caught:
        clicks.read_landmarks(_file(tmp_path, document), 1.0)
    assert caught.value.code == "exemplar_landmarks"
    assert "\n" not in str(caught.value)


def test_places_outside_the_picture_are_refused(tmp_path):
    image, _ = draw_face(face_landmarks(), 200, 40.0)
    write_image(tmp_path / "a.png", image)
    far = {name: [x + 300, y] for name, (x, y) in PLACES.items()}
    with pytest.raises(InputError, match="outside the picture"):
        load_exemplar(tmp_path / "a.png", _file(tmp_path, far))


def test_five_clicks_find_the_drawn_eyes(tmp_path):
    """The drawn eyes are half as big again as the mean face's: they are measured, not guessed."""
    image, at = draw_face(face_landmarks(), 480, 110.0, eye=1.5)
    write_image(tmp_path / "a.png", image)
    middle = {
        "right_eye": at[list(lm.RIGHT_EYE), :2].mean(0).tolist(),
        "left_eye": at[list(lm.LEFT_EYE), :2].mean(0).tolist(),
        "nose": at[lm.NOSE_TIP, :2].tolist(),
        "mouth_right": at[61, :2].tolist(),
        "mouth_left": at[291, :2].tolist(),
    }
    middle["nose"] = [240.0, 240.0]
    found = load_exemplar(tmp_path / "a.png", _file(tmp_path, middle)).points
    for contour in (lm.RIGHT_EYE, lm.LEFT_EYE):
        true, got = at[list(contour), :2], found[list(contour), :2]
        assert np.ptp(got[:, 0]) == pytest.approx(np.ptp(true[:, 0]), rel=0.15)


def test_the_landmark_file_goes_with_the_style(tmp_path):
    image, at = draw_face(face_landmarks(), 300, 70.0)
    write_image(tmp_path / "cartoon.png", image)
    places = _file(tmp_path, at[:, :2].tolist())
    request = Request("stylize", exemplar=str(tmp_path / "cartoon.png"), preset="preview")
    settings, style_settings = preset_settings("preview")
    with_file = Request(**{**request.__dict__, "exemplar_landmarks": str(places)})
    style = plan._style_from_request(with_file, style_settings)
    capture = tmp_path / "capture.mp4"
    capture.write_bytes(b"film")
    job = JobFolder(tmp_path / "job")
    job.create(capture, {})
    kept = plan._record_style(job, style, None)
    assert kept.landmarks is not None and kept.landmarks.parent == job.style(kept.name)
    keys = plan.step_keys(job, settings, kept)
    places.write_text(json.dumps((at[:, :2] + 1).tolist()))
    other = plan._style_from_request(with_file, style_settings)
    assert plan.step_keys(job, settings, other)["portraits"] != keys["portraits"]
    assert json.loads(kept.landmarks.read_text()) == at[:, :2].tolist()


def _refused(path, look="auto"):
    with pytest.raises(InputError) as caught:
        load_exemplar(path, None, look)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return caught.value


def test_pictures_of_the_wrong_kind(tmp_path):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (128, 128, 3), np.uint8)
    Image.fromarray(noise).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(noise).save(tmp_path / "really.jpg")
    (tmp_path / "really.jpg").rename(tmp_path / "named.png")
    Image.new("1", (20000, 12000)).save(tmp_path / "huge.png")
    Image.new("RGBA", (100, 100)).save(tmp_path / "clear.png")
    assert _refused(tmp_path / "huge.png").code == "exemplar_too_large"
    assert _refused(tmp_path / "clear.png").code == "exemplar_unreadable"
    # A readable picture whatever its name says or its colours are; there is just no face in it.
    for name in ("cmyk.jpg", "named.png"):
        error = _refused(tmp_path / name)
        assert error.code == "exemplar_no_face"
        assert "--exemplar-landmarks" in str(error) and "stylize.look=colour" in str(error)
        assert load_exemplar(tmp_path / name, None, "colour").image.shape == (128, 128, 3)


def test_twelve_thousand_pixels_are_read(tmp_path):
    image, at = draw_face(face_landmarks(), 300, 70.0)
    Image.fromarray(image).resize((12000, 12000), Image.Resampling.NEAREST).save(
        tmp_path / "big.jpg"
    )
    places = _file(tmp_path, (at[:, :2] * 40).tolist())
    style = load_exemplar(tmp_path / "big.jpg", places)
    assert max(style.image.shape) == 640
    assert np.abs(style.points[:, :2] / 640 - at[:, :2] / 300).max() < 0.06
