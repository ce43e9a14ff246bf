"""Stage III: the stylized albedo on the frozen shape (paper 3.3.2).

The shape is frozen, so every pixel's surface point and what the prior says there are computed once;
training touches colours only. Eq. 10: the colour of a pixel is ``s * c_tex`` at its surface point
(the weights of a ray concentrate there); eq. 11: a palette discriminator on patches; eq. 13: masked
L1 to the portraits. Of eq. 12 the silhouette and eikonal terms have no gradient here and are left
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..progress import Progress
from ..scene import ByteImage, Frame, Scene, StylizedView
from ..snr.avatar import StylizedAvatar, StylizedGeometry
from ..snr.rendering import render_view
from ..snr.texture import BeliefMaps, GlobalColorMap, LocalResidual, Reflection, TextureField
from .adaption_loop import (
    AdaptionLoop,
    freeze,
    input_digest,
    load_state,
    read_finished,
    save_state,
    write_metrics,
)
from .adaption_settings import TextureAdaptionSettings
from .discriminator import (
    PaletteDiscriminator,
    discriminator_loss,
    field_loss,
    r1_penalty,
)
from .palette import Posterize, style_palette
from .surface_cache import SurfacePoints, camera_points, dominance, portrait_points
from .view_rays import check_views

# Longest side of the pictures of frames without a portrait.
SIDE_PIXELS = 224


class TextureAdaption:
    """One run of stage III: everything a step needs.

    Args:
        points: Surface points of the portraits.
        belief: Their belief maps.
        sides: Surface points of frames without portraits, or None.
        palette: Posterize colours ``(K, 3)``.
        settings: See :class:`TextureAdaptionSettings`.
    """

    def __init__(
        self,
        points: SurfacePoints,
        belief: BeliefMaps,
        sides: SurfacePoints | None,
        palette: ByteImage,
        settings: TextureAdaptionSettings,
    ) -> None:
        self.points, self.sides, self.settings = points, sides, settings
        device = points.y.device
        torch.manual_seed(settings.seed)
        width = points.feature.shape[1]
        global_map = GlobalColorMap(width)
        global_map.fit_range(points.color, points.feature, points.trust)
        local = LocalResidual(
            settings.levels,
            settings.base_resolution,
            settings.finest_resolution,
            settings.log2_table,
        )
        self.texture = TextureField(global_map, local, belief).to(device)
        self.reflection = Reflection(width).to(device)
        self.discriminator = PaletteDiscriminator().to(device)
        self.posterize = Posterize(palette)
        self.weight = points.belief * dominance(belief, points, settings.view_sharpness)
        self.blend = _together(belief, points.y)
        self.side_blend = None if sides is None else _together(belief, sides.y)
        self.windows = _windows(points, settings.patch)
        self.side_windows = [] if sides is None else _windows(sides, settings.patch)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.random = np.random.default_rng(settings.seed)
        self._calls = 0

    def modules(self) -> nn.ModuleDict:
        """What is optimised."""
        return nn.ModuleDict(
            {
                "global_map": self.texture.global_map,
                "local": self.texture.local,
                "reflection": self.reflection,
                "discriminator": self.discriminator,
            }
        )

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, float]]:
        """Eq. 12 on one batch, ``fraction`` 0 to 1 of the way through the run."""
        points, settings = self.points, self.settings
        device = points.y.device
        rows = torch.randint(
            len(points), (settings.points,), generator=self.generator, device=device
        )
        target = points.target[rows]
        gate = torch.rand((len(rows), 1), generator=self.generator, device=device)
        base = self.texture.global_map(
            points.color[rows],
            points.feature[rows],
            (gate > settings.feature_dropout).to(target.dtype),
        )
        local = self.texture.local(points.y[rows])
        shading = self.reflection(points.feature[rows], points.normal[rows], points.direction[rows])
        trust, weight = points.trust[rows], self.weight[rows]
        coarse = _weighted_l1(shading.detach() * torch.sigmoid(base) - target, trust)
        # The residual learns the full correction; belief scales it where it is used.
        full = torch.sigmoid(base.detach() + local)
        color = _weighted_l1(shading * full - target, weight)
        small = local.square().mean()
        shade = (shading - 1.0).abs().mean()
        chroma = (shading - shading.mean(1, keepdim=True)).abs().mean()
        total = (
            coarse
            + color
            + settings.residual_weight * small
            + settings.reflection_weight * shade
            + settings.monochrome_weight * chroma
        )
        values = {"color": float(color.detach()), "global": float(coarse.detach())}
        values["reflection"] = float(shade.detach())
        self._calls += 1
        if settings.discriminator_weight > 0 and self._calls % settings.discriminator_every == 0:
            adversarial, palette = self._adversarial(fraction)
            total = total + adversarial
            values["palette"] = palette
        values["total"] = float(coarse.detach() + color.detach())
        return total, values

    def _adversarial(self, fraction: float) -> tuple[Tensor, float]:
        """Both sides of eq. 11 in one loss; D is a constant where the fields are concerned."""
        settings = self.settings
        real_rows = self._draw(self.windows, settings.patches)
        if not len(real_rows):
            return self.points.y.new_zeros(()), 0.0
        target = self.points.target[real_rows.reshape(-1)]
        real = _as_patches(self.posterize(target), settings.patch)
        fake = self._fake()
        own = discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
        own = own + settings.r1_weight * r1_penalty(self.discriminator, real)
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        judged = torch.func.functional_call(self.discriminator, frozen, (fake,))
        fields = field_loss(judged)
        ramp = min(1.0, max(0.0, (fraction - 0.2) / 0.3))
        scale = settings.discriminator_weight * ramp * settings.discriminator_every
        return own + scale * fields, float(fields.detach())

    def _fake(self) -> Tensor:
        """Patches ``(B, 3, P, P)`` of ``s * c_tex``, from portraits and from side frames."""
        half = self.settings.patches // 2 if self.side_windows else 0
        parts = [(self.points, self.blend, self._draw(self.windows, self.settings.patches - half))]
        if self.sides is not None and self.side_blend is not None and half:
            parts.append((self.sides, self.side_blend, self._draw(self.side_windows, half)))
        patches = []
        for points, blend, windows in parts:
            rows = windows.reshape(-1)
            logits = self.texture.global_map(points.color[rows], points.feature[rows])
            logits = logits + blend[rows, None] * self.texture.local(points.y[rows])
            shading = self.reflection(
                points.feature[rows], points.normal[rows], points.direction[rows]
            )
            patches.append(_as_patches(shading * torch.sigmoid(logits), self.settings.patch))
        return torch.cat(patches)

    def _draw(self, windows: list[Tensor], count: int) -> Tensor:
        """``count`` windows of point rows, ``(B, P, P)``, flipped at random."""
        if not windows:
            return torch.zeros((0, self.settings.patch, self.settings.patch), dtype=torch.int64)
        chosen = [windows[i] for i in self.random.integers(0, len(windows), count)]
        flips = self.random.random(count) < 0.5
        return torch.stack(
            [window.flip(1) if flip else window for window, flip in zip(chosen, flips, strict=True)]
        )

    @torch.no_grad()
    def portrait_psnr(self, count: int = 60_000) -> float:
        """PSNR in dB of the albedo against the portraits, weighted by belief."""
        rows = torch.arange(0, len(self.points), max(1, len(self.points) // count))
        base = self.texture.global_map(self.points.color[rows], self.points.feature[rows])
        logits = base + self.blend[rows, None] * self.texture.local(self.points.y[rows])
        error = (torch.sigmoid(logits) - self.points.target[rows]).square().mean(1)
        weight = self.points.belief[rows]
        mean = float((error * weight).sum() / weight.sum().clamp(min=1e-6))
        return -10.0 * math.log10(max(mean, 1e-9))


def adapt_texture(
    scene: Scene,
    geometry: StylizedGeometry,
    views: list[StylizedView],
    palette: ByteImage,
    folder: Path,
    settings: TextureAdaptionSettings,
    device: torch.device | str,
    progress: Progress,
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

    Raises:
        InputError: No usable portrait.
        TrainingError: Diverged repeatedly.
        CancelledError: From ``progress``; the next call goes on where this one stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_views(views)
    freeze(geometry.prior)
    digest = input_digest(settings, views, palette, geometry.prior, geometry.deformation)
    if read_finished(folder, digest) and (folder / "texture.pt").exists():
        progress.update(1.0, "stylized colours are already there")
        return load_avatar(geometry, folder, device)
    (folder / "metrics.json").unlink(missing_ok=True)
    progress.update(0.0, "finding the surface behind every stylized pixel")
    adaption = _prepare(scene, geometry, views, palette, settings)
    loop = AdaptionLoop(
        folder,
        digest,
        adaption.modules(),
        _optimizer(adaption, settings),
        {"points": adaption.generator, "patches": adaption.random},
        progress,
    )
    avatar = StylizedAvatar(geometry, adaption.texture)
    watch = _previewer(scene, avatar, views, settings.steps, progress)
    result = loop.run(settings.steps, adaption.losses, "learning the colours", watch)
    _save_texture(folder, adaption.texture)
    adaption.texture.requires_grad_(False)
    write_metrics(
        folder,
        digest,
        {
            "steps": settings.steps,
            "seconds": result.seconds,
            "losses": result.losses,
            "rollbacks": result.rollbacks,
            "portrait_psnr": adaption.portrait_psnr(),
            "points": len(adaption.points),
            "views": len(views),
            "palette": adaption.posterize.palette.tolist(),
        },
    )
    loop.finish()
    return avatar


def load_avatar(
    geometry: StylizedGeometry, folder: Path, device: torch.device | str = "cpu"
) -> StylizedAvatar:
    """Stage III's result from ``folder``.

    Raises:
        FileNotFoundError: Stage III has not finished there.
    """
    state = load_state(folder / "texture.pt", device)
    maps = BeliefMaps(state["weights"], state["depths"], state["projections"])
    global_map = GlobalColorMap(state["features"])
    local = LocalResidual(*state["grid"])
    global_map.load_state_dict(state["global_map"])
    local.load_state_dict({name: value.float() for name, value in state["local"].items()})
    texture = TextureField(global_map, local, maps).to(device)
    texture.requires_grad_(False)
    return StylizedAvatar(geometry, texture)


def _save_texture(folder: Path, texture: TextureField) -> None:
    local = texture.local
    state = {
        "weights": texture.belief.weights,
        "depths": texture.belief.depths,
        "projections": texture.belief.projections,
        "features": texture.global_map.features,
        "global_map": texture.global_map.state_dict(),
        "grid": list(local.shape),
        # Half precision is a thousandth of a logit here, a tenth of a grey level.
        "local": {name: value.half() for name, value in local.state_dict().items()},
    }
    save_state(folder / "texture.pt", state)


def _prepare(
    scene: Scene,
    geometry: StylizedGeometry,
    views: list[StylizedView],
    palette: ByteImage,
    settings: TextureAdaptionSettings,
) -> TextureAdaption:
    points, belief = portrait_points(geometry, views, scene.normalization, settings)
    cameras = [frame.camera for frame in side_frames(scene, views, settings.side_views)]
    sides = None
    if cameras and settings.discriminator_weight > 0:
        sides = camera_points(geometry, cameras, scene.normalization, SIDE_PIXELS)
    colors = style_palette(palette, views, settings.palette_colors, settings.seed)
    return TextureAdaption(points, belief, sides, colors, settings)


def side_frames(scene: Scene, views: list[StylizedView], count: int) -> list[Frame]:
    """Up to ``count`` frames far (over 0.35 rad) from every portrait, evenly spread by yaw."""
    covered = np.array([view.frame.yaw for view in views])

    def away(frame: Frame) -> float:
        turn = np.angle(np.exp(1j * (covered - frame.yaw)))
        return float(np.abs(turn).min())

    far = sorted((f for f in scene.frames if away(f) > 0.35), key=lambda frame: frame.yaw)
    if len(far) <= count:
        return far
    return [far[int((i + 0.5) * len(far) / count)] for i in range(count)]


def _optimizer(adaption: TextureAdaption, settings: TextureAdaptionSettings) -> torch.optim.Adam:
    rate = settings.map_learning_rate
    return torch.optim.Adam(
        [
            {"params": adaption.texture.global_map.parameters(), "lr": rate},
            {"params": adaption.reflection.parameters(), "lr": rate / 3.0},
            {"params": adaption.texture.local.parameters(), "lr": settings.grid_learning_rate},
            {"params": adaption.discriminator.parameters(), "lr": 5e-4},
        ],
        betas=(0.9, 0.99),
        eps=1e-10,
        fused=True,
    )


def _together(belief: BeliefMaps, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([belief(part) for part in y.split(1 << 16)])


def _weighted_l1(difference: Tensor, weight: Tensor) -> Tensor:
    """Eq. 13 with soft masks: mean over channels, weighted mean over points.

    Rounded off below 0.02: the bare L1 keeps the grid jittering round its optimum.
    """
    rounded = (difference.square() + 4e-4).sqrt() - 0.02
    return (rounded.mean(1) * weight).sum() / weight.sum().clamp(min=1e-3)


def _as_patches(colors: Tensor, side: int) -> Tensor:
    return colors.reshape(-1, side, side, 3).permute(0, 3, 1, 2)


def _windows(points: SurfacePoints, side: int) -> list[Tensor]:
    """Windows ``(side, side)`` of point rows without a gap, at half overlap, over all views."""
    out = []
    for index in points.index:
        if min(index.shape) < side:
            continue
        tiles = index.unfold(0, side, side // 2).unfold(1, side, side // 2)
        tiles = tiles.reshape(-1, side, side)
        whole = (tiles >= 0).flatten(1).all(1)
        out += list(tiles[whole].to(points.y.device))
    return out


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
