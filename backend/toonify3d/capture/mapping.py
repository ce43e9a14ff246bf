"""The steps of structure from motion with COLMAP: features, matches, mapping, refinement.

:mod:`.cameras` strings them together. Every call into COLMAP runs on a thread of its own, so that
progress and cancelling work meanwhile.
"""

from __future__ import annotations

import copy
import math
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..progress import Progress, SubProgress
from .agreement import drop_wrong
from .settings import CaptureSettings

SEED = 0
# Where features are blurred by upsampling is decided by the picture's size: below this long side
# the first octave is the doubled picture (costs three times as much, gives twice the points).
UPSAMPLE_BELOW = 800
GOOD_SHARE = 0.95
"""Share of the frames at which no other way of mapping is tried."""
FEW_FEATURES = 1000
"""With fewer features in the typical picture, fainter ones are taken too."""
RESCUE_PAIRS = 800
"""At most so many pairs are matched to find a place for lost frames (20 ms each)."""
FAINT_PEAK = 0.003
"""Contrast threshold of faint features (COLMAP's own: 0.0067): dark rooms, smooth surfaces."""


@dataclass(frozen=True)
class Work:
    """What the steps share.

    Attributes:
        folder: Working folder.
        images: Folder of the pictures.
        names: File names of the pictures in it, in input order.
        long_side: Of the pictures, in pixels.
        settings: See :class:`CaptureSettings`.
        lens: COLMAP's camera parameters to start from, or empty.
        ordered: Neighbours in the list are neighbours in space.
        masks: Folder of masks ``NAME.png``, features only where they are not black; or None.
    """

    folder: Path
    images: Path
    names: list[str]
    long_side: int
    settings: CaptureSettings
    lens: str = ""
    ordered: bool = True
    masks: Path | None = None

    @property
    def database(self) -> Path:
        """COLMAP's database."""
        return self.folder / "database.db"

    @property
    def threads(self) -> int:
        """COLMAP's way to say how many threads."""
        return self.settings.threads or -1


def extract(work: Work, progress: Progress) -> None:
    """Find features; where a sample of the pictures has few, faint ones as well."""
    sample = work.names[:: max(1, len(work.names) // 6)]
    trial = work.folder / "sample.db"
    _extract(work, trial, sample, None, SubProgress(progress, 0.0, 0.1))
    faint = feature_count(trial) < FEW_FEATURES
    rest = SubProgress(progress, 0.1, 1.0)
    _extract(work, work.database, work.names, FAINT_PEAK if faint else None, rest)


def _extract(
    work: Work, database: Path, names: list[str], peak: float | None, progress: Progress
) -> None:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = bool(pycolmap.has_cuda)
    options.num_threads = work.threads
    options.sift.max_num_features = work.settings.max_features
    options.sift.first_octave = -1 if work.long_side < UPSAMPLE_BELOW else 0
    if peak is not None:
        options.sift.peak_threshold = peak
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_RADIAL"
    if work.lens:
        reader.camera_params = work.lens
    if work.masks is not None:
        reader.mask_path = work.masks
    _run(
        pycolmap.extract_features,
        progress,
        "Cameras: finding features",
        0.25 * len(names),
        database_path=database,
        image_path=work.images,
        image_names=names,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=options,
    )


def feature_count(path: Path) -> float:
    """Median number of features of the pictures in a database."""
    with pycolmap.Database.open(path) as database:
        counts = [database.num_keypoints_for_image(i.image_id) for i in database.read_all_images()]
    return float(np.median(counts))


def check_features(work: Work) -> None:
    """See whether there is anything to hold on to.

    Raises:
        InputError: ``plain_background``.
    """
    typical = round(feature_count(work.database))
    if typical < 80:
        raise InputError(
            f"The pictures show too little texture to find the camera (about {typical} points to "
            "hold on to in each); film in a lit room with things in the background, in focus.",
            "plain_background",
        )


def match(
    work: Work, pairs: list[tuple[int, int]], progress: Progress, guided: bool = False
) -> None:
    """Match pairs of pictures (positions) and verify them geometrically.

    Pictures in no order are few and far apart: there the found geometry guides a second, denser
    matching (on 66 photos of a skull the verified pairs with 30 matches rose from 134 to 233).
    """
    listing = work.folder / "pairs.txt"
    listing.write_text(
        "".join(f"{work.names[i]} {work.names[j]}\n" for i, j in pairs), encoding="utf-8"
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu = bool(pycolmap.has_cuda)
    matching.num_threads = work.threads
    matching.guided_matching = guided or not work.ordered
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


def find_model(work: Work, progress: Progress) -> Any:
    """The model with the most trusted images of several tries, refined; None without any.

    Incremental mapping first, global mapping second: it needs no first pair and joins parts that
    hang together by few matches, but takes images in that do not belong (see :func:`drop_wrong`).
    A bad first pair ends an incremental try after a few images and a second, so other starts are
    cheap. What is still lost is matched with everything and offered to the best model again.
    """
    best, needed = None, GOOD_SHARE * len(work.names)
    tries: list[Callable[[Progress], dict[int, Any]]] = [
        lambda part: _incremental(work, part, 8.0),
        lambda part: _global(work, part),
        lambda part: _incremental(work, part, 16.0, retry=True),
        lambda part: _incremental(work, part, 4.0, retry=True),
    ]
    for number, attempt in enumerate(tries):
        part = SubProgress(progress, 0.2 * number, 0.2 * (number + 1))
        models = attempt(part).values()
        if not models:
            continue
        model = max(models, key=lambda item: int(item.num_reg_images()))
        model = _settle(model, work, part)
        if best is None or model.num_reg_images() > best.num_reg_images():
            best = model
        if best.num_reg_images() >= needed:
            return best
    if best is None:
        return None
    return _with_lost(best, work, SubProgress(progress, 0.8, 1.0))


def _settle(model: Any, work: Work, progress: Progress) -> Any:
    """The model refined, without what the matches contradict."""
    model = refine(model, work, progress)
    if drop_wrong(model, work.database, work.long_side):
        model = refine(model, work, progress)
    return model


def _with_lost(model: Any, work: Work, progress: Progress) -> Any:
    """The model grown by frames that found no place, or as it is when that makes it no better.

    Between two parts of a walk (a fast turn, a plain wall) the usual distances find too few
    matches: the lost frames are matched with all others, guided by the geometry found, and a
    frame may then join by fewer points than COLMAP asks for. :func:`drop_wrong` has the last word.
    """
    names = {item.name for item in model.images.values() if item.has_pose}
    lost = [i for i, name in enumerate(work.names) if name not in names]
    kept = [i for i, name in enumerate(work.names) if name in names]
    pairs = rescue_pairs(lost, kept, len(work.names), work.ordered)
    match(work, pairs, SubProgress(progress, 0.0, 0.4), guided=True)
    before, error = model.num_reg_images(), model.compute_mean_reprojection_error()
    start = work.folder / "best"
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir()
    model.write(start)
    grown = max(
        _resumed(work, start, SubProgress(progress, 0.4, 0.9)).values(),
        key=lambda item: int(item.num_reg_images()),
        default=None,
    )
    if grown is None or grown.num_reg_images() <= before:
        return model
    grown = _settle(grown, work, SubProgress(progress, 0.9, 1.0))
    still = {item.name for item in grown.images.values() if item.has_pose}
    worse = grown.compute_mean_reprojection_error() > max(1.25 * error, _usual_error(work))
    return model if worse or not names < still else grown


def _usual_error(work: Work) -> float:
    """Half a pixel at 560 pixels; features are about as exact as their picture is fine."""
    return 0.5 * max(1.0, work.long_side / 1120)


def rescue_pairs(
    lost: Sequence[int], kept: Sequence[int], count: int, ordered: bool
) -> list[tuple[int, int]]:
    """Pairs of lost frames with all others, at most :data:`RESCUE_PAIRS`.

    Args:
        lost: Positions of the frames without a camera.
        kept: Positions of the others.
        count: Of all frames.
        ordered: Neighbours in the list are neighbours in space: the nearest (round the circle) go
            first.
    """
    pairs = {(min(i, j), max(i, j)) for i in lost for j in (*kept, *lost) if i != j}
    if len(pairs) <= RESCUE_PAIRS:
        return sorted(pairs)

    def apart(pair: tuple[int, int]) -> int:
        return min(pair[1] - pair[0], count - pair[1] + pair[0])

    nearest = sorted(pairs, key=lambda pair: (apart(pair) if ordered else 0, pair))
    return sorted(nearest[:: 1 if ordered else -(-len(pairs) // RESCUE_PAIRS)][:RESCUE_PAIRS])


def _incremental(
    work: Work, progress: Progress, angle: float, retry: bool = False
) -> dict[int, Any]:
    options = _incremental_options(work)
    options.mapper.init_min_tri_angle = angle
    options.multiple_models = retry
    # A second model starts elsewhere and may take in all that the first has: where the parts of a
    # walk hang together by little, it depends on the start whether one finds to the other.
    options.max_model_overlap = len(work.names) if retry else options.max_model_overlap
    options.min_model_size = max(3, len(work.names) // 3) if retry else 3
    return _incremental_mapping(work, options, progress)


def _resumed(work: Work, start: Path, progress: Progress) -> dict[int, Any]:
    options = _incremental_options(work)
    options.multiple_models = False
    options.mapper.abs_pose_min_num_inliers = 20
    options.mapper.abs_pose_min_inlier_ratio = 0.2
    return _incremental_mapping(work, options, progress, input_path=start)


def _incremental_options(work: Work) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = work.threads
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.extract_colors = False
    # The final adjustment does this work better; here it only has to stay on track.
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.4
    options.ba_global_max_refinements = 2
    options.ba_local_max_refinements = 1
    return options


def _incremental_mapping(
    work: Work, options: Any, progress: Progress, **more: Any
) -> dict[int, Any]:
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
        **more,
    )


def _global(work: Work, progress: Progress) -> dict[int, Any]:
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = work.threads
    options.random_seed = SEED
    return _mapping(work, pycolmap.global_mapping, progress, None, options=options)


def _mapping(
    work: Work,
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


def refine(model: Any, work: Work, progress: Progress) -> Any:
    """The model after the final bundle adjustment: Cauchy loss, tracks of three or more.

    In a walk round a head, focal length and distortion make up for one another: on lps, rendered
    without distortion, k = 0.0068 fitted better by 0.004 % of the cost, made the focal length
    0.9 % too long and the head 0.95 % too small against the circle of cameras. So the lens keeps a
    distortion only where the matches ask for it: where the gain in log-likelihood exceeds twice
    what the Bayesian information criterion demands (the features of a track are no independent
    witnesses). Made-up distortions of 0.01 on lps and f2 exceed it.
    """
    for identifier in [i for i, p in model.points3D.items() if p.track.length() < 3]:
        model.delete_point3D(identifier)
    bent = _adjust(model, work, True, SubProgress(progress, 0.0, 0.6))
    model.update_point_3d_errors()
    simple = copy.deepcopy(model)
    for lens in simple.cameras.values():
        lens.params = [*lens.params[:3], 0.0]
    plain = _adjust(simple, work, False, SubProgress(progress, 0.6, 1.0))
    simple.update_point_3d_errors()
    gain = (plain.final_cost - bent.final_cost) / _variance(model)
    return model if gain > math.log(max(bent.num_residuals, 2)) else simple


def _variance(model: Any) -> float:
    """Variance of a feature's coordinate in square pixels, from the typical error of a point."""
    typical = float(np.median([point.error for point in model.points3D.values()] or [1.0]))
    return float(2.0 / math.pi * max(typical, 1e-3) ** 2)  # mean of a Rayleigh distribution


def _adjust(model: Any, work: Work, distortion: bool, progress: Progress) -> Any:
    """Bundle adjustment with or without the lens's distortion; Ceres' summary."""
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_extra_params = distortion
    ceres = options.ceres
    ceres.use_gpu = False
    ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    ceres.loss_function_scale = _usual_error(work)
    ceres.solver_options.max_num_iterations = 80
    ceres.solver_options.function_tolerance = 1e-7
    ceres.solver_options.num_threads = work.threads
    config = pycolmap.BundleAdjustmentConfig()
    for identifier in model.reg_image_ids():
        config.add_image(identifier)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, model)
    summary = _run(adjuster.solve, progress, "Cameras: refining", 0.08 * len(work.names))
    return summary.ceres_summary


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
