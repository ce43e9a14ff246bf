"""Portraits that someone else stylized: ``DIR/NNNN.png``, NNNN the source frame's number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..progress import Progress, SilentProgress
from ..scene import ByteImage, Float32Array, Frame, Scene, StylizedView
from .colorspace import smoothstep
from .exemplar import read_working_image
from .picture import read_picture
from .settings import StylizeSettings
from .store import StylizedSet, palette_strip, save_palette, save_view

BoolImage = npt.NDArray[np.bool_]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
_MAX_ASPECT_ERROR = 0.02
_SAME = 10
"""Colour difference to the photo below which a pixel surely was left alone."""
_KEPT = 45
"""When 98 % of the far background differ by less than this, the background was left alone."""
_CLEAR = 2.0
"""How many times what the background differs by a pixel must, to be surely painted anew."""
_TOLD = 60.0
"""Least distance of colours between person and background that tells parts of a pixel."""
_SEARCH = 0.12
"""How far, in image heights, a stylizer may have moved the person's outline."""
_FLAT = 8
"""Range of colours of a blank page, noise of compression included."""
_BLANK = 0.1
"""A portrait with less than this share of the photo's person shows none."""


def load_folder_views(
    scene: Scene,
    directory: Path,
    exemplar: Path | None,
    settings: StylizeSettings,
    progress: Progress,
    folder: Path | None = None,
) -> StylizedSet:
    """Read stylized frames painted by an artist or made by another program.

    Pictures whose name ends in the number of a used source frame belong to it. Masks come from the
    picture's transparency, else from ``NNNN_mask.png``, else they are found anew in what was
    painted (a stylizer changes the outline, so the photo's mask does not fit).

    Args:
        scene: The finished capture.
        directory: Folder of pictures.
        exemplar: Gives the palette; None takes it from the portraits.
        settings: Unused but for symmetry with the other stylizers.
        progress: Listener.
        folder: Where to keep copies as the built-in stylizer does, or None.

    Raises:
        InputError: No such folder (``portraits_missing``), no name fits a frame
            (``portraits_names``), several fit one (``portraits_twice``), another aspect ratio
            (``portraits_size``), not a picture (``portraits_unreadable``), nobody in any of them
            (``portraits_blank``).
    """
    del settings
    pairs = match_pictures(scene, directory, progress)
    read = []
    for index, (frame, path) in enumerate(pairs):
        progress.update(index / len(pairs), f"reading portrait {path.name}")
        read.append((path.name, _read_view(scene, frame, path)))
    advice = "they may be blank; else say where the person is by transparency or NNNN_mask.png"
    views = without_blank(scene, read, advice, progress)
    if exemplar is not None:
        palette = palette_strip(read_working_image(exemplar))
    else:
        palette = views_palette(views)
    if folder is not None:
        for view in views:
            save_view(folder, view)
        save_palette(folder, palette)
    progress.update(1.0, f"{len(views)} portraits read")
    return StylizedSet(views, None, palette)


def check_portraits(directory: Path, scene: Scene | None) -> None:
    """See early whether :func:`load_folder_views` will take the pictures.

    Where the person is in them is left to that: it takes long.

    Args:
        directory: Folder of pictures.
        scene: The finished capture; None before, then no picture's frame is known yet.

    Raises:
        InputError: See :func:`load_folder_views`.
    """
    if scene is not None:
        for frame, path in match_pictures(scene, directory, SilentProgress()):
            _read_fitting(frame, path)
    elif all(_number(path) is None for path in _pictures(directory)):
        raise _misnamed(directory, 7)


def match_pictures(scene: Scene, directory: Path, progress: Progress) -> list[tuple[Frame, Path]]:
    """Which picture belongs to which frame, in source order.

    Raises:
        InputError: See :func:`load_folder_views`.
    """
    files = _pictures(directory)
    frames = {frame.source_index: frame for frame in scene.frames}
    pairs, strangers = [], []
    for path in files:
        number = _number(path)
        frame = None if number is None else frames.get(number)
        if frame is None:
            strangers.append(path.name)
        else:
            pairs.append((frame, path))
    if not pairs:
        raise _misnamed(directory, scene.frames[0].source_index)
    _refuse_twins(pairs)
    if strangers:
        progress.warn(
            f"{len(strangers)} of {len(files)} pictures belong to no used frame and are left out "
            f"({few(strangers)})."
        )
    return sorted(pairs, key=lambda pair: pair[0].source_index)


def _pictures(directory: Path) -> list[Path]:
    """The pictures of a folder by name, without masks.

    Raises:
        InputError: No such folder, or none in it (``portraits_missing``).
    """
    if not directory.is_dir():
        raise InputError(
            f"The folder of portraits {directory} does not exist.", "portraits_missing"
        )
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.stem.endswith(("_mask", "_confidence"))
    )
    if not files:
        raise InputError(f"There is no picture in {directory}.", "portraits_missing")
    return files


def _number(path: Path) -> int | None:
    """The number that a picture's name ends in: of its source frame."""
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits.group(1)) if digits else None


def _misnamed(directory: Path, example: int) -> InputError:
    return InputError(
        f"No picture in {directory} is named after a used source frame (such as"
        f" {example:04d}.png).",
        "portraits_names",
    )


def _refuse_twins(pairs: Sequence[tuple[Frame, Path]]) -> None:
    """Two pictures of one frame: the plain name may be the photo, the other what was painted.

    Raises:
        InputError: There are such (``portraits_twice``).
    """
    names: dict[int, list[str]] = {}
    for frame, path in pairs:
        names.setdefault(frame.source_index, []).append(path.name)
    twins = [", ".join(group) for group in names.values() if len(group) > 1]
    if twins:
        more = f"; and so for {len(twins) - 3} frames more" if len(twins) > 3 else ""
        raise InputError(
            f"Several pictures belong to one frame ({'; '.join(twins[:3])}{more}): keep the one you"
            " want and move the others out of the folder.",
            "portraits_twice",
        )


def few(names: Sequence[str]) -> str:
    """The first three of some names for a sentence, with dots where there are more."""
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def without_blank(
    scene: Scene, views: Sequence[tuple[str, StylizedView]], advice: str, progress: Progress
) -> list[StylizedView]:
    """The views that show somebody; ``progress`` is told of the others.

    Args:
        scene: The finished capture.
        views: File name and view.
        advice: What to do when no view does.
        progress: Listener.

    Raises:
        InputError: No view does (``portraits_blank``).
    """
    blank = [name for name, view in views if _is_blank(view, scene.mask(view.frame))]
    told = few(blank)
    if len(blank) == len(views):
        raise InputError(
            f"No person is found in any of the {len(views)} portraits ({told}): {advice}.",
            "portraits_blank",
        )
    if blank:
        progress.warn(
            f"{len(blank)} of {len(views)} portraits show no person and are left out ({told})."
        )
    return [view for name, view in views if name not in blank]


def _is_blank(view: StylizedView, photo_mask: ByteImage) -> bool:
    return int((view.mask > 127).sum()) <= _BLANK * int((photo_mask > 127).sum())


def views_palette(views: Sequence[StylizedView]) -> ByteImage:
    """The colours of the people in the views; see :func:`.store.palette_strip`."""
    inner = np.concatenate([v.image[v.mask > 200] for v in views])
    if not len(inner):  # all of them half transparent
        inner = np.concatenate([v.image[v.mask > 127] for v in views])
    return palette_strip(inner[None])


def _read_view(scene: Scene, frame: Frame, path: Path) -> StylizedView:
    image, alpha = _read_fitting(frame, path)
    image = fit_picture(image, frame.camera.width, frame.camera.height)
    mask = _mask_of(scene, frame, path, image, alpha)
    return StylizedView(frame, image, mask, inset_confidence(mask))


def _read_fitting(frame: Frame, path: Path) -> tuple[ByteImage, ByteImage | None]:
    """A portrait as it was painted, RGB and alpha.

    Raises:
        InputError: Not a picture (``portraits_unreadable``), another aspect ratio than its frame's
            (``portraits_size``).
    """
    try:
        image, alpha = read_picture(path)
    except InputError as error:
        raise InputError(
            f"The portrait {path.name} cannot be read as a picture: save it again as PNG.",
            "portraits_unreadable",
        ) from error
    width, height = frame.camera.width, frame.camera.height
    if not same_aspect(image, width, height):
        raise InputError(
            f"The portrait {path.name} is {image.shape[1]} x {image.shape[0]}, but its frame is "
            f"{width} x {height}: keep the frame's aspect ratio.",
            "portraits_size",
        )
    return image, alpha


def same_aspect(image: ByteImage, width: int, height: int) -> bool:
    """Whether the picture has the aspect ratio of a frame (to 2 %)."""
    ratio = (image.shape[1] / image.shape[0]) / (width / height)
    return abs(ratio - 1) <= _MAX_ASPECT_ERROR


def fit_picture(image: ByteImage, width: int, height: int) -> ByteImage:
    """The picture at a frame's size."""
    if image.shape[:2] == (height, width):
        return image
    shrink = image.shape[0] > height
    how = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def _mask_of(
    scene: Scene, frame: Frame, path: Path, image: ByteImage, alpha: ByteImage | None
) -> ByteImage:
    width, height = frame.camera.width, frame.camera.height
    beside = path.with_name(f"{path.stem}_mask{path.suffix}")
    if alpha is not None and (alpha < 128).mean() > 0.02:
        return fit_picture(alpha, width, height)
    if beside.is_file():
        painted = read_picture(beside)[0]
        return fit_picture(np.ascontiguousarray(painted[..., 0]), width, height)
    return painted_mask(image, scene.image(frame), scene.mask(frame))


def painted_mask(image: ByteImage, photo: ByteImage, photo_mask: ByteImage) -> ByteImage:
    """Find the person in a stylized frame.

    A plain background is told by its colour; a background left as in the photo by its likeness to
    the photo; else GrabCut with the photo's mask as a start decides.

    Args:
        image: Stylized frame ``(H, W, 3)``.
        photo: The frame it was made of.
        photo_mask: The person in the photo ``(H, W)``.

    Returns:
        ``(H, W)``, 0 to 255; empty when the picture is blank.
    """
    low, high = np.percentile(image.reshape(-1, 3), (1, 99), axis=0)
    if (high - low).max() < _FLAT:  # GrabCut would give back the photo's mask
        return np.zeros(image.shape[:2], np.uint8)
    reach = max(3, round(_SEARCH * image.shape[0]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    far = cv2.dilate((photo_mask > 127).astype(np.uint8), kernel) == 0
    plain = _plain_background(image, far)
    if plain is not None:
        return plain
    difference = cv2.absdiff(image, photo).max(2)
    steady = np.asarray(cv2.medianBlur(difference, 3))
    # Video compression leaves more difference in a busy room than on a plain wall.
    unrest = max(_SAME, float(np.quantile(steady[far], 0.98)) if far.any() else 255.0)
    if unrest >= _KEPT:
        return _grab_cut(image, photo_mask, far, np.zeros_like(far))
    old = photo_mask > 127
    # Opened together with the old person: a rim of a pixel or two round him is no speck.
    grown = _opened(old | (steady > _CLEAR * unrest)) & ~old
    cut = _grab_cut(image, photo_mask, far | ((steady <= unrest) & ~old), grown)
    # Bites of a few pixels are where GrabCut takes shade for wall; who shrank shows a wider rim.
    bitten = old & (cut < 128)
    lost = bitten & ~_opened(bitten)
    return _matted(_largest(lost | (cut > 127)), image, photo, ~old)


def _plain_background(image: ByteImage, far: BoolImage) -> ByteImage | None:
    pixels = image[far].astype(np.float32)
    if len(pixels) < 50:
        return None
    color = np.median(pixels, axis=0)
    if (np.abs(pixels - color).max(1) < 8).mean() < 0.97:
        return None
    difference = np.abs(image.astype(np.float32) - color).max(2)
    # Light skin may equal a white wall: only what hangs together with the frame's border is wall.
    wall = (difference < 10).astype(np.uint8)
    _, labels = cv2.connectedComponents(wall)
    outside = np.isin(labels, np.unique(labels[far & (wall > 0)])) & (wall > 0)
    return _largest(np.asarray(~outside))


def _grab_cut(
    image: ByteImage, photo_mask: ByteImage, wall: BoolImage, grown: BoolImage
) -> ByteImage:
    """GrabCut from the photo's mask; ``wall`` is surely background, ``grown`` surely person."""
    old = photo_mask > 127
    inside = cv2.distanceTransform(old.astype(np.uint8), cv2.DIST_L2, 5)
    labels = np.where(old, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[wall] = cv2.GC_BGD
    labels[grown | (inside > 0.03 * image.shape[0])] = cv2.GC_FGD
    cv2.setRNGSeed(7)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(
        np.ascontiguousarray(image[..., ::-1]),
        labels,
        (0, 0, 1, 1),
        background,
        foreground,
        4,
        cv2.GC_INIT_WITH_MASK,
    )
    return _largest(np.isin(labels, [cv2.GC_FGD, cv2.GC_PR_FGD]))


def _matted(mask: ByteImage, image: ByteImage, photo: ByteImage, known: BoolImage) -> ByteImage:
    """The mask with its edge at parts of a pixel where the photo shows the background behind it.

    There ``image = a person + (1 - a) photo`` is solved for ``a``, the person's colour being the
    mean of what lies just inside. Without it an outline is half a pixel off, which is a
    millimetre on a head.
    """
    hard = (mask > 127).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    core = cv2.erode(hard, square, iterations=2).astype(np.float32)
    ring = (cv2.dilate(hard, square, iterations=2) > 0) & (core == 0) & known
    near = cv2.blur(core, (9, 9))
    person = cv2.blur(image.astype(np.float32) * core[..., None], (9, 9))
    person = person / np.maximum(near, 1e-3)[..., None]
    behind = photo.astype(np.float32)
    across = person - behind
    contrast = (across**2).sum(2)
    share = ((image - behind) * across).sum(2) / np.maximum(contrast, 1.0)
    told = ring & (near > 0.01) & (contrast > _TOLD**2)
    alpha = np.clip(255.0 * share, 0.0, 255.0).round().astype(np.uint8)
    return np.where(told, alpha, mask)


def _opened(mask: BoolImage) -> BoolImage:
    """Without what is narrower than 1 % of the picture's height."""
    side = 1 + 2 * max(1, round(0.0045 * mask.shape[0]))
    square = np.ones((side, side), np.uint8)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, square) > 0)


def _largest(mask: BoolImage) -> ByteImage:
    """The largest component without holes, its edge softened by a pixel."""
    whole = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(whole)
    if count <= 1:
        return np.zeros(mask.shape, np.uint8)
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    body = (labels == best).astype(np.uint8)
    contours, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(body, contours, -1, (1,), cv2.FILLED)
    return np.asarray(cv2.GaussianBlur(body * np.uint8(255), (3, 3), 0), np.uint8)


def inset_confidence(mask: ByteImage) -> Float32Array:
    """0 at the mask's edge, where a painted outline is least sure, to 1 four pixels inside."""
    inset = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5)
    return smoothstep(inset, 0.5, 4.0)
