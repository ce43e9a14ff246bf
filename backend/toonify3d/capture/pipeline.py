"""The capture from end to end: video in, aligned :class:`~toonify3d.scene.Scene` out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import write_bytes, write_image, write_json
from ..progress import Progress, SubProgress
from ..scene import ByteImage, Camera, FloatArray, Frame, Scene
from .adapters.depth_source import check_depth_source
from .align import Alignment, align, align_without_face, camera_yaw, goes_round, turned, with_front
from .cameras import SolvedCameras, moved, solve_cameras, undistort
from .depth import compute_depth
from .feature_masks import check_features_setting, feature_masks
from .findings import CheckReport
from .frame_store import stored
from .hull import visual_hull
from .landmarks import FaceLandmarker, FaceLandmarks
from .masks import compute_masks
from .measured import FINDINGS_FILE, judge_cameras, publish
from .object_start import circles_something
from .posed import is_posed
from .posed_frames import check_posed, solved_from_posed
from .probe import probe
from .selection import FrameChoice, choose_frames
from .settings import CaptureSettings
from .subject import measured_motion
from .user_data import check_mask_folder, exif_focal, user_masks
from .video import check_source as check_pictures
from .video import decode, image_files

__all__ = ["check_source", "run_capture"]

CHEST = -0.22
"""World height of the chest plane in metres: a hand under the collar bones. Busts that end higher
are kept whole."""
HIGHEST_CHEST = -0.12
"""The plane never rises above this, whatever the frames cut off: the neck has to stay."""
NOBODY = (
    "There is no face in the video, and the camera goes round nothing; film the head and shoulders "
    "of one person from all around."
)
WORK = "work"
"""Folder of what is only needed while the capture runs."""
FACE_SAMPLE = 24
"""Frames all round the circle of which at least one must show a face."""
SEEN_BY = 0.9
"""Share of the frames that must see the body at the height of the chest plane."""


def check_source(source: Path, min_frames: int = 12) -> None:
    """See in a second whether ``source`` can be a capture at all.

    Raises:
        InputError: See :func:`.video.check_source` and :func:`.posed.load_posed`.
    """
    if is_posed(source):
        check_posed(source, min_frames)
    else:
        check_pictures(source, min_frames)


def check_programs(settings: CaptureSettings) -> None:
    """See in a second whether what the settings name is there: masks, other programs, choices.

    Raises:
        InputError: See :func:`.user_data.check_mask_folder`,
            :func:`.adapters.depth_source.check_depth_source` and
            :func:`.feature_masks.check_features_setting`.
    """
    check_mask_folder(settings.masks)
    check_depth_source(settings.depth)
    check_features_setting(settings.features)


def run_capture(
    source: Path, root: Path, settings: CaptureSettings, device: str, progress: Progress
) -> Scene:
    """Turn a video or image folder into a scene under ``root``.

    Writes ``frames/ masks/ depth/ hull.npz sparse.ply report.json findings.json`` and, last of all,
    ``cameras.json``: the scene is complete when and only when that file exists. An interrupted
    capture starts over.

    Args:
        source: Video file, folder of images, COLMAP model with its images, or ``transforms.json``.
        root: ``JOB/capture``; what an earlier run left there is replaced.
        settings: See :class:`CaptureSettings`.
        device: Torch device for the depth.
        progress: Gets updates, warnings and a preview.

    Returns:
        The scene, in the aligned world.

    Raises:
        InputError: One sentence on what is wrong with the capture: codes ``missing``,
            ``not_a_video``, ``too_few_frames``, ``mixed_sizes``, ``unreadable_image``,
            ``no_person``, ``plain_background``, ``cameras_failed``, ``no_masks``, ``mask_size``,
            ``bad_cameras``, ``lens_model``, ``no_images``; and, when settings name other programs
            for masks or depth, theirs (:mod:`.adapters`).
        CancelledError: By ``progress``.
    """
    check_source(source, settings.min_frames)
    check_programs(settings)
    _clear(root)
    report = _Report(progress)
    with report.step("frames", 0.0, 0.05) as part:
        choice, images, known, given = _read(source, root, settings, part)
    with report.step("faces", 0.05, 0.12) as part:
        faces = _find_faces(images, part)
    with report.step("cameras", 0.12, 0.55) as part:
        solved = known or solve_cameras(
            images,
            root / "sfm",
            settings,
            part,
            ordered=source.is_file(),
            focal=exif_focal(source),
            pictures=_finer(source, choice, settings),
            masks=feature_masks(
                images, [given.get(i) for i in choice.indices], settings.features, part
            ),
            in_place=True,
        )
        del images
    with report.step("alignment", 0.55, 0.57) as part:
        faces = [_undistorted(faces[i], solved) for i in solved.kept]
        sources = [choice.indices[i] for i in solved.kept]
        alignment = _align(solved, faces, sources, settings, part)
        solved = moved(solved, alignment.similarity)
    with report.step("masks", 0.57, 0.8) as part:
        own = [given.get(choice.indices[i]) for i in solved.kept]
        masks = _masks(solved, own, settings, part)
        yours = sum(mask is not None for mask in own)
        report.facts["masks"] = {"source": settings.masks.source, "yours": yours}
    with report.step("writing", 0.8, 0.84) as part:
        scene = _write(root, choice, solved, masks, alignment, part)
        found = _judge(source.name, choice, solved, masks, alignment, settings)
        publish(found, root, part)
    with report.step("depth", 0.84, 1.0) as part:
        compute_depth(scene, settings.depth, device, part)
        maps = sum(1 for _ in (root / "depth").glob("*.npz"))
        report.facts["depth"] = {"source": settings.depth.source, "maps": maps}
    scene.notes = report.warnings
    report.write(root, choice, solved, alignment)
    del solved, known  # let go of the mapped frames
    shutil.rmtree(root / WORK, ignore_errors=True)
    scene.save()
    progress.update(1.0, "Capture done")
    return scene


def _read(
    source: Path, root: Path, settings: CaptureSettings, progress: Progress
) -> tuple[FrameChoice, list[ByteImage], SolvedCameras | None, dict[int, ByteImage]]:
    """The chosen frames, their cameras if the source has them, and the user's masks by index."""
    if is_posed(source):
        choice, known, given = solved_from_posed(source, settings, root / WORK, progress)
        return choice, known.images, known, given
    _say_hdr(source, progress)
    choice = choose_frames(source, settings, progress)
    images = _load(source, choice, settings, root / WORK)
    size = (images[0].shape[1], images[0].shape[0])
    files = image_files(source) if source.is_dir() else []
    return choice, images, None, user_masks(files, choice.indices, size, settings.masks)


def _judge(
    name: str,
    choice: FrameChoice,
    solved: SolvedCameras,
    masks: Sequence[ByteImage],
    alignment: Alignment,
    settings: CaptureSettings,
) -> CheckReport:
    """What the solved cameras say about the capture."""
    motion = measured_motion(solved.images, solved.cameras, masks)
    yaws = np.array([camera_yaw(camera) for camera in solved.cameras])
    given = settings.front_frame >= 0
    return judge_cameras(name, len(choice.indices), yaws, alignment, motion, given)


@dataclass
class _Report:
    """Times the steps, and passes progress on while remembering the warnings."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, start: float, stop: float) -> Iterator[Progress]:
        began = time.monotonic()
        yield SubProgress(self, start, stop)
        self.seconds[name] = round(time.monotonic() - began, 2)

    def update(self, fraction: float, message: str = "") -> None:
        self.progress.update(fraction, message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.progress.warn(message)

    def preview(self, image: npt.NDArray[np.uint8]) -> None:
        self.progress.preview(image)

    def write(
        self, root: Path, choice: FrameChoice, solved: SolvedCameras, alignment: Alignment
    ) -> None:
        document: dict[str, Any] = {
            "frames": {
                "decoded": choice.decoded,
                "duplicates": choice.duplicates,
                "blurred": choice.blurred,
                "kept": len(choice.indices),
                "registered": len(solved.kept),
            },
            "cameras": {
                **solved.model,
                "reprojection_error_px": None if np.isnan(solved.error) else solved.error,
                "sparse_points": len(solved.points),
            },
            "face": {
                "views": alignment.views,
                "landmark_error_px": None if np.isnan(alignment.error) else alignment.error,
            },
            **self.facts,
            "seconds": self.seconds,
            "warnings": self.warnings,
        }
        write_json(root / "report.json", document)


def _clear(root: Path) -> None:
    """Take away what an earlier run wrote, the file that says "complete" first."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("cameras.json", "hull.npz", FINDINGS_FILE):
        (root / name).unlink(missing_ok=True)
    for name in ("frames", "masks", "depth", "sfm", WORK):
        shutil.rmtree(root / name, ignore_errors=True)


def _say_hdr(source: Path, progress: Progress) -> None:
    hdr = probe(source).hdr if source.is_file() else None
    if hdr:
        progress.warn(f"The video is HDR ({hdr}); its colours were converted to sRGB.")


def _load(
    source: Path, choice: FrameChoice, settings: CaptureSettings, folder: Path
) -> list[ByteImage]:
    wanted = set(choice.indices)
    found = (image for index, image in decode(source, settings.long_side) if index in wanted)
    return stored(found, len(wanted), folder / "frames.raw")


def _finer(
    source: Path, choice: FrameChoice, settings: CaptureSettings
) -> Iterator[ByteImage] | None:
    """The pictures of an image folder as fine as cameras need them; None when they are already."""
    if source.is_file() or settings.photo_side <= settings.long_side:
        return None
    wanted = set(choice.indices)
    return (image for index, image in decode(source, settings.photo_side) if index in wanted)


def _find_faces(images: Sequence[ByteImage], progress: Progress) -> list[FaceLandmarks | None]:
    """Landmarks of every frame.

    Raises:
        InputError: No face in any frame, and the camera goes round nothing (``no_person``).
    """
    faces: list[FaceLandmarks | None] = [None] * len(images)
    # A picture without a face takes five times as long as one with: where some all round the
    # circle show none, the others are not looked at.
    first = sorted({*np.linspace(0, len(images) - 1, FACE_SAMPLE).round().astype(int).tolist()})
    rest = [index for index in range(len(images)) if index not in set(first)]
    with closing(FaceLandmarker()) as landmarker:
        for done, index in enumerate([*first, *rest]):
            if done == len(first) and not any(faces):
                break
            faces[index] = landmarker.detect(images[index])
            progress.update((done + 1) / len(images), "Looking for the face")
    if not any(faces) and circles_something(images) is False:
        raise InputError(NOBODY, "no_person")
    return faces


def _undistorted(face: FaceLandmarks | None, solved: SolvedCameras) -> FaceLandmarks | None:
    """The landmarks in the undistorted image (inverse of COLMAP's SIMPLE_RADIAL)."""
    if face is None:
        return None
    K, k = solved.cameras[0].K, float(solved.model["k"])
    distorted = (face.points[:, :2] - K[:2, 2]) / np.diag(K)[:2]
    plain = distorted.copy()
    for _ in range(10):  # a contraction for the small distortions of phones
        plain = distorted / (1.0 + k * (plain**2).sum(1, keepdims=True))
    points = np.concatenate([plain * np.diag(K)[:2] + K[:2, 2], face.points[:, 2:]], axis=1)
    return FaceLandmarks(points, face.score, face.width, face.height)


def _align(
    solved: SolvedCameras,
    faces: Sequence[FaceLandmarks | None],
    sources: Sequence[int],
    settings: CaptureSettings,
    progress: Progress,
) -> Alignment:
    """Align by the face, without one by gravity and orbit; then the user's own front, if given.

    Raises:
        InputError: No face, and nothing that the cameras go round (``no_person``).
    """
    alignment = align(solved.cameras, faces, settings.interpupillary_distance)
    if alignment is None:
        if not goes_round(solved.cameras):
            raise InputError(NOBODY, "no_person")
        alignment = align_without_face(solved.cameras)
    if settings.front_frame >= 0:
        alignment = with_front(alignment, solved.cameras, sources, settings.front_frame)
    alignment = turned(alignment, np.radians(settings.front_yaw))
    for note in alignment.notes:
        progress.warn(note)
    return alignment


def _masks(
    solved: SolvedCameras,
    given: Sequence[ByteImage | None],
    settings: CaptureSettings,
    progress: Progress,
) -> list[ByteImage]:
    """The user's masks, undistorted like the images; computed ones for the other frames."""
    missing = sum(mask is None for mask in given)
    computed: Sequence[ByteImage | None] = [None] * len(given)
    if missing:
        computed = compute_masks(
            solved.images, solved.cameras, solved.points, settings.masks, progress
        )
        if missing < len(given):
            progress.warn(f"{missing} of {len(given)} frames have no mask of yours; computed.")
    k = float(solved.model["k"])
    out = []
    for own, other, camera in zip(given, computed, solved.cameras, strict=True):
        mask = other if own is None else undistort(own, camera, k)
        assert mask is not None
        out.append(mask)
    return out


def _write(
    root: Path,
    choice: FrameChoice,
    solved: SolvedCameras,
    masks: Sequence[ByteImage],
    alignment: Alignment,
    progress: Progress,
) -> Scene:
    frames = []
    for position, camera, image, mask in zip(
        solved.kept, solved.cameras, solved.images, masks, strict=True
    ):
        index = choice.indices[position]
        frame = Frame(f"{index:04d}", index, camera, camera_yaw(camera))
        write_image(root / "frames" / f"{frame.name}.png", image)
        write_image(root / "masks" / f"{frame.name}.png", mask)
        frames.append(frame)
        progress.update(len(frames) / len(solved.kept), "Writing frames")
    write_bytes(root / "sparse.ply", point_cloud_ply(solved.points, solved.colors))
    progress.preview(_contact(solved, masks))
    hull = visual_hull(list(masks), solved.cameras, chest_plane(solved.cameras))
    hull.save(root / "hull.npz")
    return Scene(root, frames, hull.normalization, alignment.landmarks, hull.crop_z)


def chest_plane(cameras: Sequence[Camera]) -> float:
    """World height at which the bust is cut off.

    Where most frames end above a height, nothing tells body from room there and the surface frays:
    the plane rises from :data:`CHEST` to where nearly all frames see the axis through the neck.
    """
    for height in np.arange(CHEST, HIGHEST_CHEST, 0.01):
        axis = np.array([[0.0, 0.0, height]])
        seen = [camera.project(axis)[0][0, 1] < camera.height for camera in cameras]
        if np.mean(seen) >= SEEN_BY:
            return float(height)
    return HIGHEST_CHEST


def _contact(solved: SolvedCameras, masks: Sequence[ByteImage]) -> ByteImage:
    """A few frames side by side with the background dimmed."""
    chosen = np.linspace(0, len(masks) - 1, 6).round().astype(int)
    tiles = [
        (solved.images[i] * (0.3 + 0.7 * masks[i][..., None] / 255.0)).astype(np.uint8)
        for i in chosen
    ]
    step = max(1, tiles[0].shape[0] // 360)
    return np.ascontiguousarray(np.concatenate([tile[::step, ::step] for tile in tiles], axis=1))


def point_cloud_ply(points: FloatArray, colors: ByteImage) -> bytes:
    """Points ``(N, 3)`` with RGB colours ``(N, 3)`` as a binary PLY file."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    kind = [("xyz", "<f4", 3), ("rgb", "u1", 3)]
    table = np.zeros(len(points), dtype=kind)
    table["xyz"], table["rgb"] = points, colors
    return header.encode("ascii") + table.tobytes()
