"""Stage II: from the person's shape to the stylized one (paper 3.3.1).

Two methods behind one entrance: :mod:`.bending` (a smooth deformation of the frozen prior, fast
presets) and :mod:`.finetune` (F_geo and F_app go on learning, as published).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..progress import Progress
from ..scene import Camera, Displacement, Normalization, Scene, StylizedView
from ..snr.avatar import PriorLike, StylizedGeometry, StylizedShape
from ..snr.deformation import Deformation
from ..snr.rendering import render_view
from .adaption_loop import freeze, run_adaption
from .adaption_settings import GeometryAdaptionSettings
from .bending import GeometryAdaption, load_bend, start_lattice
from .finetune import FieldFinetune, learn_without_prior, load_finetuned
from .joint_colors import JointTexture
from .settings import PriorSettings
from .stage_files import input_digest, load_state, read_finished, save_state, write_metrics
from .view_rays import check_views

RESULT = "geometry.pt"


def adapt_geometry(
    scene: Scene,
    prior: PriorLike,
    views: list[StylizedView],
    displacement: Displacement | None,
    folder: Path,
    settings: GeometryAdaptionSettings,
    device: torch.device | str,
    progress: Progress,
    training: PriorSettings | None = None,
    texture: JointTexture | None = None,
) -> StylizedShape:
    """Run (or resume, or just load) stage II.

    Args:
        scene: The capture; frames, normalization and crop height are read.
        prior: Stage I's field; its parameters are frozen.
        views: Stylized portraits.
        displacement: The stylizer's own shape change as the start, or None; fine-tuning has no use
            for it (nor has the paper).
        folder: Receives ``geometry.pt``, ``metrics.json`` and, while running, ``checkpoint.pt``.
        settings: See :class:`GeometryAdaptionSettings`.
        device: Must be the prior's.
        progress: Told where it is.
        training: Stage I's settings, which the ablation "without prior" needs.
        texture: What stage III will be given, which the ablation "without PSA" needs.

    Raises:
        ValueError: One of these ablations is asked for without what it needs.
        InputError: No usable portrait.
        TrainingError: Diverged repeatedly.
        CancelledError: From ``progress``; the next call goes on where this one stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    freeze(prior)
    check_views(views)
    if not settings.without_prior:
        training = None
    elif training is None:
        raise ValueError("learning without prior needs stage I's settings")
    if not settings.joins:
        texture = None
    elif texture is None:
        raise ValueError("joint training needs what stage III is given")
    digest = input_digest(settings, views, displacement, prior, training, *(texture or ()))
    if read_finished(folder, digest) and (folder / RESULT).exists():
        progress.update(1.0, "stylized shape is already there")
        return load_geometry(prior, folder, device)
    (folder / "metrics.json").unlink(missing_ok=True)
    if not settings.adapt:
        save_state(folder / RESULT, {"method": "none"})
        write_metrics(folder, digest, {"steps": 0, "seconds": 0.0, "views": len(views)})
    elif training is not None:
        state, figures = learn_without_prior(
            scene, views, prior, settings, training, folder, progress
        )
        save_state(folder / RESULT, state)
        write_metrics(folder, digest, figures | {"views": len(views)})
    else:
        _train(scene, prior, views, displacement, folder, settings, texture, digest, progress)
    return load_geometry(prior, folder, device)


def load_geometry(
    prior: PriorLike, folder: Path, device: torch.device | str = "cpu"
) -> StylizedShape:
    """Stage II's result from ``folder``.

    Raises:
        FileNotFoundError: Stage II has not finished there.
    """
    state = load_state(folder / RESULT, device)
    freeze(prior)
    method = state.get("method", "deformation")
    if method == "none":
        still = Deformation()
        torch.nn.init.zeros_(still.out.weight)
        return StylizedGeometry(prior, still.requires_grad_(False).to(device))
    if method == "finetune":
        return load_finetuned(prior, state, device)
    return load_bend(prior, state, device)


def _train(
    scene: Scene,
    prior: PriorLike,
    views: list[StylizedView],
    displacement: Displacement | None,
    folder: Path,
    settings: GeometryAdaptionSettings,
    texture: JointTexture | None,
    digest: str,
    progress: Progress,
) -> None:
    adaption: GeometryAdaption | FieldFinetune
    # A joint run replaces both stages, so it takes the steps of both.
    steps = settings.steps + (0 if texture is None else texture.settings.steps)
    if settings.finetunes:
        adaption = FieldFinetune(scene, prior, views, settings, texture)
        message = "fine-tuning the shape"
    else:
        lattice = start_lattice(scene, displacement, settings, progress)
        adaption = GeometryAdaption(scene, prior, views, lattice, settings)
        message = "bending the shape"
    watch = previewer(
        views[0].frame.camera,
        scene.normalization,
        steps,
        progress,
        lambda: _Shaded(adaption.geometry()),
    )
    run_adaption(
        adaption,
        folder,
        RESULT,
        digest,
        progress,
        steps,
        settings.lr_final,
        message,
        watch,
    )
    if isinstance(adaption, GeometryAdaption) and adaption.smallest_determinant() <= 0.0:
        progress.warn("The bent shape folds over itself somewhere; a lower strength avoids it.")


def previewer(
    camera: Camera,
    normalization: Normalization,
    steps: int,
    progress: Progress,
    field: Callable[[], _Shaded],
) -> Callable[[int], None]:
    """Offers a small picture of the stylized shape's normals twice during the run."""
    scale = 128.0 / max(camera.width, camera.height)
    small = camera.resized(round(camera.width * scale), round(camera.height * scale))
    moments = {steps // 3, 2 * steps // 3}

    def watch(number: int) -> None:
        if number in moments:
            progress.preview(render_view(field(), small, normalization).normal)

    return watch


class _Shaded:
    """A stylized shape in stage II's colours, for previews."""

    def __init__(self, geometry: StylizedShape) -> None:
        self.geometry = geometry
        self.device = geometry.device

    def sdf(self, y: Tensor) -> Tensor:
        return self.geometry.sdf(y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        return self.geometry.sdf_gradient(y)

    def color(self, y: Tensor) -> Tensor:
        return self.geometry.styled_color(y)
