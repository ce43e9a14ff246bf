"""Cameras from pictures: structure from motion with COLMAP (pycolmap), then undistortion.

SIFT features, pairs at growing distances along the orbit with the circle closed, incremental
mapping (global mapping as the last resort), and a final bundle adjustment with a Cauchy loss over
points seen at least three times. That last step matters: the mapper's own adjustment stops early
and leaves focal length and distortion trading against each other (measured on two captures with
known cameras: rotation error 0.20 -> 0.08 and 0.14 -> 0.07 degrees).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pycolmap

from ..errors import InputError
from ..files import write_image
from ..progress import Progress, SubProgress
from ..scene import ByteImage, Camera, FloatArray
from .settings import CaptureSettings

OFFSETS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Frame distances that are matched, for 96 frames per turn; stretched when there are more."""
SEED = 0
# Where features are blurred by upsampling is decided by the picture's size: below this long side
# the first octave is the doubled picture (costs three times as much, gives twice the points).
UPSAMPLE_BELOW = 800
GOOD_SHARE = 0.9
"""Share of the frames at which no other way of mapping is tried."""


@dataclass(frozen=True)
class SolvedCameras:
    """What structure from motion found.

    Attributes:
        cameras: Undistorted cameras of the registered images, in input order.
        kept: Positions of the registered images in the input.
        images: Undistorted registered images, RGB.
        points: ``(N, 3)`` sparse points in the cameras' (arbitrary) world.
        colors: ``(N, 3)`` uint8 RGB of the points.
        error: Mean reprojection error in pixels.
        model: What the lens was found to be, for the report.
    """

    cameras: list[Camera]
    kept: list[int]
    images: list[ByteImage]
    points: FloatArray
    colors: ByteImage
    error: float
    model: dict[str, Any]


def solve_cameras(
    images: Sequence[ByteImage],
    folder: Path,
    settings: CaptureSettings,
    progress: Progress,
    ordered: bool = True,
    focal: float | None = None,
) -> SolvedCameras:
    """Find camera, pose and sparse points of pictures of a scene that stands still.

    Args:
        images: RGB pictures of one size from one camera.
        folder: Working folder; emptied first, removed afterwards.
        settings: See :class:`CaptureSettings`.
        progress: Gets updates and a warning when some frames find no camera.
        ordered: Neighbours in the list are neighbours in space (a video); else all pairs are tried.
        focal: Focal length to start from, as a share of the long side (EXIF); None: COLMAP's guess.

    Raises:
        InputError: Too few pictures found a camera (``cameras_failed``), or nothing to hold on to
            in them (``plain_background``).
        CancelledError: By ``progress``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    picture_folder = folder / "images"
    names = [f"{index:05d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        write_image(picture_folder / name, image)
    height, width = images[0].shape[:2]
    lens = f"{focal * max(width, height)},{width / 2},{height / 2},0" if focal else ""
    work = _Work(folder, picture_folder, names, max(width, height), settings, lens)
    try:
        _extract(work, SubProgress(progress, 0.0, 0.35))
        _check_features(work)
        _match(work, candidate_pairs(len(images), ordered), SubProgress(progress, 0.35, 0.55))
        model = _map(work, SubProgress(progress, 0.55, 0.9))
        _check_registered(model, len(images), settings, progress)
        _refine(model, work, SubProgress(progress, 0.9, 0.98))
        return _collect(model, names, images)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def candidate_pairs(count: int, ordered: bool) -> list[tuple[int, int]]:
    """Which pictures to match with which, as ``(i, j)`` with ``i < j``.

    Ordered pictures: at the distances :data:`OFFSETS`, stretched with the number of frames and
    counted round the circle, so that the last frames meet the first; and a coarse subset with
    itself, so that a second turn meets the first. Unordered: every pair up to 120 pictures.
    """
    if not ordered and count <= 120:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    stretch = max(1.0, count / 96)
    offsets = sorted({1, 2, *(round(offset * stretch) for offset in OFFSETS)})
    pairs = {(i, (i + offset) % count) for i in range(count) for offset in offsets}
    coarse = range(0, count, max(1, count // (12 if ordered else 40)))
    pairs |= {(i, j) for i in coarse for j in coarse}
    return sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j})


def undistort(image: ByteImage, camera: Camera, k: float) -> ByteImage:
    """Resample a picture of a SIMPLE_RADIAL lens to the pin-hole ``camera`` of the same size.

    Args:
        image: ``(H, W, 3)``.
        camera: The pin-hole; same intrinsics as the lens.
        k: Radial distortion: ``x_d = x (1 + k r^2)`` in normalised coordinates (COLMAP).
    """
    columns = (np.arange(camera.width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    rows = (np.arange(camera.height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    x, y = np.meshgrid(columns, rows)
    factor = 1.0 + k * (x**2 + y**2)
    moved = np.abs((factor - 1.0) * np.hypot(x, y)).max() * camera.K[0, 0]
    if moved < 0.05:  # not worth a resampling
        return image
    map_x = (x * factor * camera.K[0, 0] + camera.K[0, 2] - 0.5).astype(np.float32)
    map_y = (y * factor * camera.K[1, 1] + camera.K[1, 2] - 0.5).astype(np.float32)
    return np.asarray(
        cv2.remap(image, map_x, map_y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


@dataclass(frozen=True)
class _Work:
    folder: Path
    images: Path
    names: list[str]
    long_side: int
    settings: CaptureSettings
    lens: str = ""

    @property
    def database(self) -> Path:
        return self.folder / "database.db"

    @property
    def threads(self) -> int:
        return self.settings.threads or -1


def _extract(work: _Work, progress: Progress) -> None:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = bool(pycolmap.has_cuda)
    options.num_threads = work.threads
    options.sift.max_num_features = work.settings.max_features
    options.sift.first_octave = -1 if work.long_side < UPSAMPLE_BELOW else 0
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL"
    if work.lens:
        reader.camera_params = work.lens
    _run(
        pycolmap.extract_features,
        progress,
        "Cameras: finding features",
        0.25 * len(work.names),
        database_path=work.database,
        image_path=work.images,
        image_names=work.names,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=options,
    )


def _check_features(work: _Work) -> None:
    with pycolmap.Database.open(work.database) as database:
        counts = [database.num_keypoints_for_image(i.image_id) for i in database.read_all_images()]
    typical = round(float(np.median(counts)))
    if typical < 80:
        raise InputError(
            f"The pictures show too little texture to find the camera (about {typical} points to "
            "hold on to in each); film in a lit room with things in the background, in focus.",
            "plain_background",
        )


def _match(work: _Work, pairs: list[tuple[int, int]], progress: Progress) -> None:
    listing = work.folder / "pairs.txt"
    listing.write_text(
        "".join(f"{work.names[i]} {work.names[j]}\n" for i, j in pairs), encoding="utf-8"
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu = bool(pycolmap.has_cuda)
    matching.num_threads = work.threads
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listing
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    _run(
        pycolmap.match_image_pairs,
        progress,
        "Cameras: matching frames",
        0.012 * len(pairs),
        database_path=work.database,
        matching_options=matching,
        pairing_options=pairing,
        verification_options=verification,
    )


def _map(work: _Work, progress: Progress) -> Any:
    """The largest model of several tries, or None.

    A bad first pair ends a try after a few images and a second, so other starts are cheap; global
    mapping needs no first pair but takes longest, so it comes last.
    """
    best, needed = None, GOOD_SHARE * len(work.names)
    tries: list[Callable[[], dict[int, Any]]] = [
        lambda: _incremental(work, progress, 8.0),
        lambda: _incremental(work, progress, 16.0, retry=True),
        lambda: _incremental(work, progress, 4.0, retry=True),
        lambda: _global(work, progress),
    ]
    for attempt in tries:
        for model in attempt().values():
            if best is None or model.num_reg_images() > best.num_reg_images():
                best = model
        if best is not None and best.num_reg_images() >= needed:
            break
    return best


def _incremental(
    work: _Work, progress: Progress, angle: float, retry: bool = False
) -> dict[int, Any]:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = work.threads
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.extract_colors = False
    options.mapper.init_min_tri_angle = angle
    options.multiple_models = retry
    options.min_model_size = max(3, len(work.names) // 3) if retry else 3
    # The final adjustment does this work better; here it only has to stay on track.
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.4
    options.ba_global_max_refinements = 2
    options.ba_local_max_refinements = 1
    registered = 0

    def count() -> None:
        nonlocal registered
        registered += 1

    return _mapping(
        work,
        pycolmap.incremental_mapping,
        progress,
        lambda: registered / len(work.names),
        options=options,
        next_image_callback=count,
    )


def _global(work: _Work, progress: Progress) -> dict[int, Any]:
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = work.threads
    options.random_seed = SEED
    return _mapping(work, pycolmap.global_mapping, progress, None, options=options)


def _mapping(
    work: _Work,
    function: Callable[..., dict[int, Any]],
    progress: Progress,
    fraction: Callable[[], float] | None,
    **arguments: Any,
) -> dict[int, Any]:
    output = work.folder / "models"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    found: dict[int, Any] = _run(
        function,
        progress,
        "Cameras: solving",
        0.5 * len(work.names),
        fraction,
        database_path=work.database,
        image_path=work.images,
        output_path=output,
        **arguments,
    )
    return found


def _check_registered(
    model: Any, count: int, settings: CaptureSettings, progress: Progress
) -> None:
    registered = 0 if model is None else model.num_reg_images()
    if registered < max(settings.min_frames, settings.min_registered * count):
        raise InputError(
            f"Only {registered} of {count} frames found their camera; film one slow, steady turn "
            "in a lit room with things standing around, and let nothing move in it.",
            "cameras_failed",
        )
    if registered < count:
        progress.warn(
            f"{count - registered} of {count} frames did not find their camera and are left out."
        )


def _refine(model: Any, work: _Work, progress: Progress) -> None:
    """Final bundle adjustment: Cauchy loss, tracks of three or more, to convergence."""
    for identifier in [i for i, p in model.points3D.items() if p.track.length() < 3]:
        model.delete_point3D(identifier)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    ceres = options.ceres
    ceres.use_gpu = False
    ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    # Half a pixel at 560 pixels; features are about as exact as their picture is fine.
    ceres.loss_function_scale = 0.5 * max(1.0, work.long_side / 1120)
    ceres.solver_options.max_num_iterations = 80
    ceres.solver_options.function_tolerance = 1e-7
    ceres.solver_options.num_threads = work.threads
    config = pycolmap.BundleAdjustmentConfig()
    for identifier in model.reg_image_ids():
        config.add_image(identifier)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, model)
    _run(adjuster.solve, progress, "Cameras: refining", 0.08 * len(work.names))
    model.update_point_3d_errors()


def _collect(model: Any, names: list[str], images: Sequence[ByteImage]) -> SolvedCameras:
    (lens,) = model.cameras.values()
    focal, cx, cy, k = (float(value) for value in lens.params)
    K = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
    by_name = {image.name: image for image in model.images.values() if image.has_pose}
    cameras, kept, undistorted = [], [], []
    for position, name in enumerate(names):
        if name not in by_name:
            continue
        w2c = np.eye(4)
        w2c[:3] = by_name[name].cam_from_world().matrix()
        camera = Camera(K, _inverse(w2c), lens.width, lens.height)
        cameras.append(camera)
        kept.append(position)
        undistorted.append(undistort(images[position], camera, k))
    points = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    error = float(model.compute_mean_reprojection_error())
    description = {"model": "SIMPLE_RADIAL", "focal_px": focal, "k": k}
    colors = point_colors(points, cameras, undistorted)
    return SolvedCameras(cameras, kept, undistorted, points, colors, error, description)


def point_colors(
    points: FloatArray, cameras: Sequence[Camera], images: Sequence[ByteImage]
) -> ByteImage:
    """Median colour ``(N, 3)`` of points over some views that contain them (ignoring occlusion)."""
    views = range(0, len(cameras), max(1, len(cameras) // 12))
    samples: npt.NDArray[np.float32] = np.full((len(views), len(points), 3), np.nan, np.float32)
    for row, index in enumerate(views):
        place, depth = cameras[index].project(points)
        column, line = np.floor(place).astype(np.int64).T
        height, width = images[index].shape[:2]
        inside = (depth > 0) & (column >= 0) & (line >= 0) & (column < width) & (line < height)
        samples[row, inside] = images[index][line[inside], column[inside]]
    seen = ~np.isnan(samples[..., 0]).all(0)
    colors = np.full((len(points), 3), 128, np.uint8)
    if seen.any():
        colors[seen] = np.nanmedian(samples[:, seen], axis=0).astype(np.uint8)
    return colors


def moved(solved: SolvedCameras, similarity: FloatArray) -> SolvedCameras:
    """The same cameras and points after a ``(4, 4)`` similarity of the world."""
    return replace(
        solved,
        cameras=[camera.transformed(similarity) for camera in solved.cameras],
        points=solved.points @ similarity[:3, :3].T + similarity[:3, 3],
    )


def _inverse(rigid: FloatArray) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = rigid[:3, :3].T
    out[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return out


def _run(
    function: Callable[..., Any],
    progress: Progress,
    message: str,
    seconds: float,
    fraction: Callable[[], float] | None = None,
    **arguments: Any,
) -> Any:
    """Call into COLMAP on a thread, so that progress and cancelling work meanwhile.

    COLMAP releases Python's lock, says nothing while it works, and stops at its own next chance
    after a cancel. ``seconds`` is a guess that moves the progress bar where ``fraction`` is not
    known.
    """
    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR.value)
    pycolmap.set_random_seed(SEED)
    token = None
    if function.__name__ not in ("solve", "global_mapping"):
        token = pycolmap.CancellationToken()
        arguments["cancellation_token"] = token
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function(**arguments))
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, name="colmap", daemon=True)
    thread.start()
    elapsed, tick = 0.0, 0.2
    try:
        while thread.is_alive():
            thread.join(tick)
            elapsed += tick
            done = fraction() if fraction else elapsed / (elapsed + seconds)
            progress.update(min(done, 1.0), message)
    except BaseException:
        if token is not None:
            token.cancel()
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome[0]
