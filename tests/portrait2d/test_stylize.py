from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from portrait2d_person import draw_face, face_landmarks

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d import exemplar as ex
from toonify3d.portrait2d import pipeline, shape
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import load_stylized
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene


@pytest.fixture(scope="session")
def cartoon(tmp_path_factory):
    """A drawn exemplar with big eyes, and its landmark file (no detector needed)."""
    image, at = draw_face(face_landmarks(), 480, 110.0, eye=1.5)
    folder = tmp_path_factory.mktemp("exemplar")
    write_image(folder / "cartoon.png", image)
    (folder / "points.json").write_text(json.dumps(at.tolist()))
    return folder / "cartoon.png", folder / "points.json"


@pytest.fixture(scope="session")
def stylized(subject, cartoon, tmp_path_factory):
    scene, mesh = subject
    folder = tmp_path_factory.mktemp("portraits")
    progress = SilentProgress()
    result = pipeline.stylize_views(
        scene,
        mesh,
        cartoon[0],
        folder,
        # Of the made-up person the exemplar is the double with bigger eyes; both are unlike people.
        StylizeSettings(min_frames=2, max_frames=6, relative_to="person"),
        progress,
        landmarks_file=cartoon[1],
    )
    return result, folder, progress


def test_front_and_back_are_stylized(stylized, subject):
    result, _, _ = stylized
    yaws = np.array([view.frame.yaw for view in result.views])
    assert (np.abs(yaws) < 0.3).sum() >= 2
    assert (np.abs(yaws) > np.pi - 0.6).sum() >= 2
    for view in result.views:
        assert view.image.shape == (200, 160, 3)
        assert view.mask.shape == view.confidence.shape == (200, 160)
        assert view.confidence.min() >= 0 and view.confidence.max() <= 1
        assert view.confidence[view.mask < 10].max() == 0


def _mean_lab(view, rows, columns):
    return to_lab(view.image[rows, columns].reshape(-1, 3)).mean(0)


def test_skin_and_hair_take_the_exemplars_colours(stylized):
    views = stylized[0].views
    front = min(views, key=lambda v: abs(v.frame.yaw))
    back = max(views, key=lambda v: abs(v.frame.yaw))
    skin = _mean_lab(front, slice(98, 104), slice(70, 90))
    hair = _mean_lab(back, slice(60, 100), slice(60, 100))
    assert np.abs(skin - to_lab(np.array([240, 190, 150], np.uint8))).max() < 9
    assert np.abs(hair - to_lab(np.array([150, 70, 20], np.uint8))).max() < 12


def test_eyes_are_drawn_symmetrically_and_not_on_the_back(stylized, subject):
    scene, _ = subject
    views = stylized[0].views
    front = min(views, key=lambda v: abs(v.frame.yaw))
    white = (front.image.min(2) > 225) & (front.mask > 250)
    for side in (1, -1):
        frame = shape.face_frame(scene.landmarks)
        eye = frame.to_world(np.array([0.5 * side, 0.5, 0.0]))
        at = front.frame.camera.project(eye[None])[0][0].astype(int)
        assert white[at[1] - 8 : at[1] + 9, at[0] - 10 : at[0] + 11].sum() > 10
    back = max(views, key=lambda v: abs(v.frame.yaw))
    assert ((back.image.min(2) > 225) & (back.mask > 250)).sum() == 0


def test_neighbouring_frames_agree(stylized):
    """The same surface points have the same colour in the two most frontal frames."""
    result = stylized[0]
    one, two = sorted(result.views, key=lambda v: abs(v.frame.yaw))[:2]
    points = result.displacement.points + result.displacement.offsets
    facing = points[:, 1] < np.quantile(points[:, 1], 0.25)
    values = []
    for view in (one, two):
        at = view.frame.camera.project(points[facing])[0].astype(int)
        values.append(to_lab(view.image[at[:, 1], at[:, 0]]))
    assert np.median(np.linalg.norm(values[0] - values[1], axis=1)) < 3


def test_displacement_enlarges_the_eyes(stylized, subject):
    scene, _ = subject
    result = stylized[0]
    world = scene.landmarks
    ids = list(shape.COMPONENTS["left_eye"][:16])
    near = [
        int(np.linalg.norm(result.displacement.points - p, axis=1).argmin()) for p in world[ids]
    ]
    moved = result.displacement.points[near] + result.displacement.offsets[near]
    assert np.ptp(moved[:, 0]) > 1.1 * np.ptp(world[ids, 0])


def test_strength_zero_keeps_the_outline(subject, cartoon, tmp_path):
    scene, mesh = subject
    result = pipeline.stylize_views(
        scene,
        mesh,
        cartoon[0],
        tmp_path,
        StylizeSettings(strength=0.0, min_frames=1, max_frames=2),
        SilentProgress(),
        landmarks_file=cartoon[1],
    )
    assert np.abs(result.displacement.offsets).max() < 1e-6
    for view in result.views:
        changed = np.abs(view.mask.astype(int) - scene.mask(view.frame).astype(int)) > 128
        assert changed.mean() < 0.002


def test_what_was_written_is_read_back(stylized, subject):
    result, folder, _ = stylized
    again = load_stylized(folder, subject[0])
    assert [v.frame.name for v in again.views] == [v.frame.name for v in result.views]
    for old, new in zip(result.views, again.views, strict=True):
        assert np.array_equal(old.image, new.image)
        assert np.array_equal(old.mask, new.mask)
        assert np.abs(old.confidence - new.confidence).max() < 0.003
    assert np.allclose(again.displacement.offsets, result.displacement.offsets)
    assert np.array_equal(again.palette, result.palette)


def test_too_few_front_frames_warn(subject):
    scene, _ = subject
    few = Scene(scene.root, scene.frames[::2], scene.normalization, scene.landmarks)
    progress = SilentProgress()
    frames = pipeline.select_frames(few, StylizeSettings(max_yaw=0.05, min_frames=2), progress)
    assert len(frames) >= 2
    assert any("front" in w or "back" in w for w in progress.warnings)


def test_the_sides_are_painted_too(subject):
    scene, _ = subject
    settings = StylizeSettings(max_frames=4, min_frames=1)
    ends = pipeline.select_frames(scene, settings, SilentProgress())
    assert pipeline.with_sides(scene, ends, 0) == ends
    frames = pipeline.with_sides(scene, ends, 6)
    assert [f.source_index for f in frames] == sorted(f.source_index for f in frames)
    sides = [frame.yaw for frame in frames if frame not in ends]
    for wanted in (-135, -90, -45, 45, 90, 135):
        turns = np.abs(np.angle(np.exp(1j * (np.array(sides) - np.radians(wanted)))))
        assert turns.min() < 0.3
    assert len(sides) == 6 and len({frame.name for frame in frames}) == len(frames)
    half = Scene(
        scene.root,
        [frame for frame in scene.frames if frame.yaw <= 0.2],
        scene.normalization,
        scene.landmarks,
    )
    assert all(f.yaw <= 0.2 for f in pipeline.with_sides(half, half.frames[:1], 6))


def test_capture_without_a_face(subject, cartoon, tmp_path):
    scene, mesh = subject
    blind = Scene(scene.root, scene.frames, scene.normalization, None)
    with pytest.raises(InputError) as caught:
        pipeline.stylize_views(
            blind, mesh, cartoon[0], tmp_path, StylizeSettings(), SilentProgress(), cartoon[1]
        )
    assert caught.value.code == "no_face"


def _code(path, points=None):
    with pytest.raises(InputError) as caught:
        ex.load_exemplar(path, points)
    assert str(caught.value).count("\n") == 0
    return caught.value.code


def test_bad_exemplars_say_what_is_wrong(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / "tiny.png")
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "lie.png").write_text("this is no picture")
    (tmp_path / "draw.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "svg.png").write_text("<?xml version='1.0'?><svg/>")
    frames = [Image.fromarray(np.full((90, 90), v, np.uint8)) for v in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 3])
    assert _code(tmp_path / "none.png") == "exemplar_missing"
    assert _code(tmp_path / "tiny.png") == "exemplar_too_small"
    assert _code(tmp_path / "black.png") == "exemplar_no_face"
    assert _code(tmp_path / "lie.png") == "exemplar_unreadable"
    assert _code(tmp_path / "half.png") == "exemplar_unreadable"
    assert _code(tmp_path / "draw.svg") == "exemplar_format"
    assert _code(tmp_path / "svg.png") == "exemplar_format"
    assert _code(tmp_path / "moving.gif") == "exemplar_format"


def test_bad_landmark_file(tmp_path, cartoon):
    (tmp_path / "five.json").write_text("[[1, 2], [3, 4]]")
    assert _code(cartoon[0], tmp_path / "five.json") == "exemplar_landmarks"
    (tmp_path / "text.json").write_text("nose here")
    assert _code(cartoon[0], tmp_path / "text.json") == "exemplar_landmarks"


@pytest.mark.parametrize("mode", ["RGBA", "L", "CMYK", "P", "I;16", "rotated"])
def test_any_kind_of_picture_is_read_upright(tmp_path, cartoon, mode):
    image = np.asarray(Image.open(cartoon[0]).convert("RGB"))
    picture = Image.fromarray(image)
    path = tmp_path / "picture.png"
    if mode == "RGBA":
        alpha = np.where((image == 255).all(2), 0, 255).astype(np.uint8)
        Image.fromarray(np.dstack([image, alpha])).save(path)
    elif mode == "I;16":
        Image.fromarray(image[..., 1].astype(np.uint16) * 257).save(path)
    elif mode == "rotated":
        path = tmp_path / "picture.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(path, exif=exif, quality=95)
    else:
        path = path.with_suffix(".tif") if mode == "CMYK" else path
        picture.convert(mode).save(path)
    out = ex.read_working_image(path)
    assert out.shape == image.shape and out.dtype == np.uint8
    gray, want = out.astype(float).mean(2), image.astype(float).mean(2)
    assert np.corrcoef(gray.ravel(), want.ravel())[0, 1] > 0.95


def test_drawn_eyes_are_measured_where_the_detector_sees_small_ones(cartoon):
    """Landmarks of the same face with human eyes are pulled onto the drawn, bigger ones."""
    image = np.asarray(Image.open(cartoon[0]).convert("RGB"))
    _, small = draw_face(face_landmarks(), 480, 110.0, eye=1.0)
    _, true = draw_face(face_landmarks(), 480, 110.0, eye=1.5)
    ids = list(shape.COMPONENTS["left_eye"][:16])
    found = ex.analyse(image, None, small).points
    assert np.ptp(found[ids, 0]) == pytest.approx(np.ptp(true[ids, 0]), rel=0.1)
    assert np.ptp(found[ids, 0]) > 1.3 * np.ptp(small[ids, 0])
