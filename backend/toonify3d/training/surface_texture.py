"""Stage III of the fast presets: albedo on surface points that are found once.

The shape is frozen, so every pixel's surface point and what the prior says there are computed once;
training touches colours only. Eq. 10: the colour of a pixel is ``s * c_tex`` at its surface point
(the weights of a ray concentrate there); eq. 11: a palette discriminator on patches; eq. 13: masked
L1 to the portraits; ``s`` is what the person's F_app shows along the ray over its mean, as far as
the portraits keep it, times a small learned factor. Of eq. 12 the silhouette and eikonal terms have
no gradient here and are left out.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..scene import ByteImage, Frame, Scene, StylizedView
from ..snr.avatar import StylizedShape
from ..snr.light_grid import LightGrid
from ..snr.texture import BeliefMaps, GlobalColorMap, LocalResidual, Reflection, TextureField
from .adaption_settings import TextureAdaptionSettings
from .discriminator import PaletteDiscriminator, adversarial_terms, adversarial_weight, as_patches
from .packed_rows import PackedRows
from .palette import Posterize, style_palette
from .surface_cache import SurfacePoints, camera_points, dominance, portrait_points
from .volume_texture import reflection_penalty

# Longest side of the pictures of frames without a portrait.
SIDE_PIXELS = 224
# Learning rate of the one number that says how much of the person's highlights the style keeps.
STRENGTH_RATE = 5e-2
# Difference of two channels up to which portraits are black and white.
GRAY_STYLE = 0.1
# Share of black and white (to EXTREME) from which on portraits are ink on paper; how much faster
# their residual learns: from white to black are 10 logits, between two tones of a painting 2. Other
# styles get grain from such a rate (lps, fluent_man: 38.5 to 37.8 dB).
TWO_TONES, EXTREME = 0.85, 0.12
INK_RATE = 2.5
# Smaller batches than this would not learn anything.
LEAST_POINTS = 512


class Shape(NamedTuple):
    """What the kernels of a step depend on.

    Attributes:
        points: Surface points of the batch.
        judged: Whether it is the discriminator's turn.
    """

    points: int
    judged: bool


class TextureAdaption:
    """One run of stage III: everything a step needs.

    Args:
        points: Surface points of the portraits.
        belief: Their belief maps.
        sides: Surface points of frames without portraits, or None.
        palette: Posterize colours ``(K, 3)``.
        settings: See :class:`TextureAdaptionSettings`.
        light: What the points' colours are without; the texture keeps it.
    """

    def __init__(
        self,
        points: SurfacePoints,
        belief: BeliefMaps,
        sides: SurfacePoints | None,
        palette: ByteImage,
        settings: TextureAdaptionSettings,
        light: LightGrid | None = None,
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
        colourful = _colourful(points.target, points.trust)
        self.texture = TextureField(global_map, local, belief, light, colourful).to(device)
        self.reflection = Reflection(width).to(device)
        self.texture.reflection = self.reflection
        self.inked = _two_toned(points.target, points.trust)
        self.discriminator = PaletteDiscriminator(settings.discriminator_width).to(device)
        self.posterize = Posterize(palette)
        self.weight = points.belief * dominance(belief, points, settings.view_sharpness)
        given = {field.name: getattr(points, field.name) for field in fields(points)}
        arrays = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        self._rows = PackedRows(arrays | {"weight": self.weight})
        packed: dict[str, Any] = self._rows.columns()
        self.weight = packed["weight"]
        self.points = points = replace(points, **{name: packed[name] for name in arrays})
        self.blend = _together(belief, points.y)
        self.side_blend = None if sides is None else _together(belief, sides.y)
        self.windows = _windows(points, settings.patch)
        nowhere = self.windows[:0]
        self.side_windows = nowhere if sides is None else _windows(sides, settings.patch)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.count = settings.points
        self._style_weight = torch.zeros((), device=device)
        self._shape = Shape(0, False)
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

    def optimizer(self) -> torch.optim.Optimizer:
        """See :class:`.adaption_loop.Adaption`."""
        rate = self.settings.map_learning_rate
        grid_rate = self.settings.grid_learning_rate * (INK_RATE if self.inked else 1.0)
        return torch.optim.Adam(
            [
                {"params": self.texture.global_map.parameters(), "lr": rate},
                {"params": [self.reflection.strength], "lr": STRENGTH_RATE},
                {
                    "params": [
                        *self.reflection.hidden.parameters(),
                        *self.reflection.out.parameters(),
                    ],
                    "lr": rate / 3.0,
                },
                {"params": self.texture.local.parameters(), "lr": grid_rate},
                {"params": self.discriminator.parameters(), "lr": 5e-4},
            ],
            betas=(0.9, 0.99),
            eps=1e-10,
            fused=True,
        )

    def generators(self) -> dict[str, torch.Generator | np.random.Generator]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"points": self.generator}

    def shrink(self) -> int | None:
        """See :class:`.adaption_loop.Adaption`."""
        if self.count <= LEAST_POINTS:
            return None
        self.count //= 2
        return self.count

    def step_state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"calls": self._calls, "points": self.count}

    def restore_step_state(self, state: dict[str, Any]) -> None:
        """See :class:`.adaption_loop.Adaption`."""
        self._calls = int(state["calls"])
        self.count = min(self.count, int(state["points"]))

    def state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`; :func:`load_surface_texture` reads it."""
        local, light = self.texture.local, self.texture.light
        return {
            "rendering": "surface",
            "light": None if light is None else light.export_state(),
            "colourful": self.texture.colourful,
            "weights": self.texture.belief.weights,
            "depths": self.texture.belief.depths,
            "projections": self.texture.belief.projections,
            "features": self.texture.global_map.features,
            "global_map": self.texture.global_map.state_dict(),
            "reflection": self.reflection.state_dict(),
            "grid": list(local.shape),
            # Half precision is a thousandth of a logit here, a tenth of a grey level.
            "local": {name: value.half() for name, value in local.state_dict().items()},
        }

    def figures(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {
            "portrait_psnr": self.portrait_psnr(),
            "points": len(self.points),
            "highlights_kept": round(float(self.reflection.strength.detach()), 3),
            "palette": self.posterize.palette.tolist(),
        }

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 12 on one batch, ``fraction`` 0 to 1 of the way through the run."""
        self.prepare(fraction)
        return self.batch_losses()

    def prepare(self, fraction: float) -> Shape:
        """See :class:`.adaption_loop.Recordable`."""
        settings = self.settings
        self._calls += 1
        turn = settings.discriminator_weight > 0 and len(self.windows) > 0
        turn = turn and self._calls % settings.discriminator_every == 0
        self._style_weight.fill_(
            adversarial_weight(fraction, settings) * settings.discriminator_every
        )
        self._shape = Shape(self.count, turn)
        return self._shape

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`.adaption_loop.Recordable`."""
        points, settings = self.points, self.settings
        device = points.y.device
        rows = torch.randint(
            len(points), (self._shape.points,), generator=self.generator, device=device
        )
        row = self._rows.take(rows)
        target = row["target"]
        gate = torch.rand((len(rows), 1), generator=self.generator, device=device)
        seen = self.blend[rows]
        base = self.texture.global_map(
            row["color"],
            row["feature"],
            seen,
            (gate > settings.feature_dropout).to(target.dtype),
        )
        local = self.texture.local(row["y"])
        logits = self.reflection.network(row["feature"], row["normal"], row["direction"])
        # How much of the highlights stays is learned with the global map alone: portraits within
        # 0.2 rad of an end leave a texture that is free everywhere nothing to tell a highlight by.
        gloss = self.reflection.factor(logits.detach(), row["glance"])
        shading = self.reflection.factor(logits, row["glance"], learns=False)
        trust, weight = row["trust"], row["weight"]
        coarse = _weighted_l1(gloss * torch.sigmoid(base) - target, trust)
        # The residual learns the full correction of what the map says with all its inputs (with
        # some hidden, it would turn a painted shadow black); belief scales it where it is used.
        with torch.no_grad():
            whole = self.texture.global_map(row["color"], row["feature"], seen)
        full = torch.sigmoid(whole + local)
        color = _weighted_l1(shading * full - target, weight)
        small = local.square().mean()
        # The person's own highlights are 1 in the mean over directions: nothing to penalise.
        shade, chroma = reflection_penalty(2.0 * torch.sigmoid(logits))
        total = (
            coarse
            + color
            + settings.residual_weight * small
            + settings.reflection_weight * shade
            + settings.monochrome_weight * chroma
        )
        values = {"color": color, "global": coarse, "reflection": shade, "total": coarse + color}
        if self._shape.judged:
            adversarial, values["palette"] = self._adversarial()
            total = total + adversarial
        return total, {name: value.detach() for name, value in values.items()}

    def _adversarial(self) -> tuple[Tensor, Tensor]:
        """Both sides of eq. 11 in one loss; D is a constant where the fields are concerned."""
        settings = self.settings
        real_rows = self._draw(self.windows, settings.patches)
        target = self.points.target[real_rows.reshape(-1)]
        real = as_patches(self.posterize(target), settings.patch)
        fake = self._fake()
        own, judged = adversarial_terms(self.discriminator, real, fake, settings.r1_weight)
        return own + self._style_weight * judged, judged

    def _fake(self) -> Tensor:
        """Patches ``(B, 3, P, P)`` of ``s * c_tex``, from portraits and from side frames."""
        half = self.settings.patches // 2 if len(self.side_windows) else 0
        parts = [(self.points, self.blend, self._draw(self.windows, self.settings.patches - half))]
        if self.sides is not None and self.side_blend is not None and half:
            parts.append((self.sides, self.side_blend, self._draw(self.side_windows, half)))
        patches = []
        for points, blend, windows in parts:
            rows = windows.reshape(-1)
            seen = blend[rows]
            logits = self.texture.global_map(points.color[rows], points.feature[rows], seen)
            logits = logits + seen[:, None] * self.texture.local(points.y[rows])
            shading = self.reflection(
                points.feature[rows],
                points.normal[rows],
                points.direction[rows],
                points.glance[rows],
            )
            patches.append(as_patches(shading * torch.sigmoid(logits), self.settings.patch))
        return torch.cat(patches)

    def _draw(self, windows: Tensor, count: int) -> Tensor:
        """``count`` windows of point rows, ``(B, P, P)``, mirrored at random."""
        random, device = self.generator, windows.device
        chosen = windows[torch.randint(len(windows), (count,), generator=random, device=device)]
        mirrored = torch.rand((count, 1, 1), generator=random, device=device) < 0.5
        return torch.where(mirrored, chosen.flip(2), chosen)

    @torch.no_grad()
    def portrait_psnr(self, count: int = 60_000) -> float:
        """PSNR in dB of the albedo against the portraits, weighted by belief."""
        rows = torch.arange(0, len(self.points), max(1, len(self.points) // count))
        seen = self.blend[rows]
        base = self.texture.global_map(self.points.color[rows], self.points.feature[rows], seen)
        logits = base + seen[:, None] * self.texture.local(self.points.y[rows])
        error = (torch.sigmoid(logits) - self.points.target[rows]).square().mean(1)
        weight = self.points.belief[rows]
        mean = float((error * weight).sum() / weight.sum().clamp(min=1e-6))
        return -10.0 * math.log10(max(mean, 1e-9))


def load_surface_texture(state: dict[str, Any], device: torch.device | str) -> TextureField:
    """The texture that :meth:`TextureAdaption.state` described."""
    maps = BeliefMaps(state["weights"], state["depths"], state["projections"])
    global_map = GlobalColorMap(state["features"])
    local = LocalResidual(*state["grid"])
    global_map.load_state_dict(state["global_map"])
    local.load_state_dict({name: value.float() for name, value in state["local"].items()})
    light = LightGrid.from_state(state.get("light"))
    colourful = float(state.get("colourful", 1.0))  # not in results of earlier versions
    texture = TextureField(global_map, local, maps, light, colourful).to(device)
    if "reflection" in state:  # not in results of earlier versions
        texture.reflection = Reflection(state["features"]).to(device)
        # Earlier versions kept none of the person's highlights.
        texture.reflection.load_state_dict({"strength": torch.zeros(()), **state["reflection"]})
    texture.requires_grad_(False)
    return texture


def prepare(
    scene: Scene,
    geometry: StylizedShape,
    views: list[StylizedView],
    palette: ByteImage,
    settings: TextureAdaptionSettings,
    light: LightGrid | None = None,
) -> TextureAdaption:
    """Find the surface behind every portrait pixel and set up the training."""
    points, belief = portrait_points(geometry, views, scene.normalization, settings, light)
    cameras = [frame.camera for frame in side_frames(scene, views, settings.side_views)]
    sides = None
    if cameras and settings.discriminator_weight > 0:
        sides = camera_points(geometry, cameras, scene.normalization, SIDE_PIXELS, light)
    colors = style_palette(palette, views, settings.palette_colors, settings.seed)
    return TextureAdaption(points, belief, sides, colors, settings, light)


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


def _colourful(target: Tensor, trust: Tensor) -> float:
    """Largest difference of two channels in a style without colours, 1 in any other."""
    shown = target[trust > 0.2]
    if len(shown) == 0:
        return 1.0
    shown = shown[:: max(1, len(shown) // 100_000)]
    most = float(torch.quantile(shown.amax(dim=1) - shown.amin(dim=1), 0.999))
    return most if most < GRAY_STYLE else 1.0


def _two_toned(target: Tensor, trust: Tensor) -> bool:
    """Whether portraits are black and white alone."""
    shown = target[trust > 0.2].mean(dim=1)
    ends = (shown < EXTREME) | (shown > 1.0 - EXTREME)
    return len(shown) > 0 and float(ends.to(target.dtype).mean()) > TWO_TONES


def _together(belief: BeliefMaps, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([belief(part) for part in y.split(1 << 16)])


def _weighted_l1(difference: Tensor, weight: Tensor) -> Tensor:
    """Eq. 13 with soft masks: mean over channels, weighted mean over points.

    Rounded off below 0.02: the bare L1 keeps the grid jittering round its optimum.
    """
    rounded = (difference.square() + 4e-4).sqrt() - 0.02
    return (rounded.mean(1) * weight).sum() / weight.sum().clamp(min=1e-3)


def _windows(points: SurfacePoints, side: int) -> Tensor:
    """Windows ``(W, side, side)`` of point rows without a gap, at half overlap, over all views."""
    out = [torch.zeros((0, side, side), dtype=torch.int64)]
    for index in points.index:
        if min(index.shape) < side:
            continue
        tiles = index.unfold(0, side, side // 2).unfold(1, side, side // 2)
        tiles = tiles.reshape(-1, side, side)
        out.append(tiles[(tiles >= 0).flatten(1).all(1)])
    return torch.cat(out).to(points.y.device)
