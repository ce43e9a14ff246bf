"""Stage III: the stylized albedo on the frozen shape (paper 3.3.2).

Two ways behind one entrance: :mod:`.surface_texture` (fast presets) and :mod:`.volume_texture`
(networks rendered by volume, as published).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..progress import Progress
from ..scene import ByteImage, Scene, StylizedView
from ..snr.adapted import AdaptedGeometry
from ..snr.avatar import Albedo, AppearanceAlbedo, StylizedAvatar, StylizedShape
from ..snr.light_grid import LightGrid
from ..snr.rendering import render_view
from .adaption_loop import freeze, run_adaption
from .adaption_settings import TextureAdaptionSettings
from .stage_files import input_digest, load_state, read_finished, save_state, write_metrics
from .surface_texture import TextureAdaption, load_surface_texture, prepare
from .view_rays import check_views
from .volume_texture import VolumeAdaption, load_volume_texture

RESULT = "texture.pt"


def adapt_texture(
    scene: Scene,
    geometry: StylizedShape,
    views: list[StylizedView],
    palette: ByteImage,
    folder: Path,
    settings: TextureAdaptionSettings,
    device: torch.device | str,
    progress: Progress,
    light: LightGrid | None = None,
) -> StylizedAvatar:
    """Run (or resume, or just load) stage III.

    Args:
        scene: The capture.
        geometry: Stage II's result, frozen.
        views: Stylized portraits.
        palette: The exemplar, or its main colours; any RGB array ``(..., 3)``.
        folder: Receives ``texture.pt``, ``metrics.json`` and, while running, ``checkpoint.pt``.
        settings: See :class:`TextureAdaptionSettings`.
        device: Must be the geometry's.
        progress: Told where it is.
        light: The room's light as far as it was taken out of the portraits; the person's colours
            that F_tex starts from lose it too. None leaves them.

    Raises:
        InputError: No usable portrait.
        TrainingError: Diverged repeatedly.
        CancelledError: From ``progress``; the next call goes on where this one stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_views(views)
    freeze(geometry.prior)
    digest = input_digest(settings, views, palette, geometry.prior, geometry.module, light)
    if read_finished(folder, digest) and (folder / RESULT).exists():
        progress.update(1.0, "stylized colours are already there")
        return load_avatar(geometry, folder, device)
    (folder / "metrics.json").unlink(missing_ok=True)
    ready = _without_training(geometry, settings)
    if ready is not None:
        save_state(folder / RESULT, {"rendering": ready})
        write_metrics(folder, digest, {"steps": 0, "seconds": 0.0, "views": len(views)})
        return load_avatar(geometry, folder, device)
    adaption: TextureAdaption | VolumeAdaption
    if settings.rendering == "volume":
        progress.update(0.0, "starting the albedo from the person's colours")
        adaption = VolumeAdaption(scene, geometry, views, palette, settings, light)
    else:
        progress.update(0.0, "finding the surface behind every stylized pixel")
        adaption = prepare(scene, geometry, views, palette, settings, light)
    avatar = StylizedAvatar(geometry, adaption.texture)
    watch = _previewer(scene, avatar, views, settings.steps, progress)
    run_adaption(
        adaption,
        folder,
        RESULT,
        digest,
        progress,
        settings.steps,
        settings.lr_final,
        "learning the colours",
        watch,
    )
    return avatar


def load_avatar(
    geometry: StylizedShape, folder: Path, device: torch.device | str = "cpu"
) -> StylizedAvatar:
    """Stage III's result from ``folder``.

    Raises:
        FileNotFoundError: Stage III has not finished there.
    """
    state = load_state(folder / RESULT, device)
    texture: Albedo
    rendering = state.get("rendering", "surface")
    if rendering == "appearance":
        texture = AppearanceAlbedo()
    elif rendering == "joint":
        assert isinstance(geometry, AdaptedGeometry) and geometry.texture is not None
        texture = geometry.texture
    elif rendering == "volume":
        texture = load_volume_texture(state, device)
    else:
        texture = load_surface_texture(state, device)
    return StylizedAvatar(geometry, texture)


def _without_training(geometry: StylizedShape, settings: TextureAdaptionSettings) -> str | None:
    """Where the albedo comes from when there is nothing left to learn."""
    if not settings.adapt:
        return "appearance"
    if isinstance(geometry, AdaptedGeometry) and geometry.texture is not None:
        return "joint"
    return None


def _previewer(
    scene: Scene,
    avatar: StylizedAvatar,
    views: list[StylizedView],
    steps: int,
    progress: Progress,
) -> Callable[[int], None]:
    """Offers a small picture of the avatar twice during the run."""
    camera = views[0].frame.camera
    scale = 128.0 / max(camera.width, camera.height)
    small = camera.resized(round(camera.width * scale), round(camera.height * scale))
    moments = {steps // 3, 2 * steps // 3}

    def watch(number: int) -> None:
        if number in moments:
            progress.preview(render_view(avatar, small, scene.normalization).color)

    return watch
