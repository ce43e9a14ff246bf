"""Colours of one stylized frame, region by region (method_anchors B2b)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..scene import ByteImage, Float32Array, FloatArray
from .colorspace import blur, fill_holes, sample, smooth_edges, smoothstep, to_lab, to_rgb
from .exemplar import RAMP_STEPS, Exemplar
from .facelayer import FaceLayer
from .framewarp import WarpedFrame
from .regions import Regions
from .settings import StylizeSettings
from .surface import Observations

BACKGROUND = 245
ATTRIBUTES = 12
"""skin, hair, clothes, beard, local x y z, normal z, prior L a b, unused."""


@dataclass(frozen=True)
class Look:
    """Everything about colour that is the same for all frames.

    Attributes:
        exemplar: The picture taken apart.
        layer: Its face laid out on the stylized face.
        settings: The user's settings.
        skin_lab: The person's median skin colour.
        skin_gain: Person's light and shadow to the exemplar's range.
        hair_levels: ``(32,)`` quantiles of the person's hair L, or None when bald.
        skin_mean: ``(3,)`` exemplar's mean skin.
        depth_range: z of the face frame over which the face's own skin fades to the mean.
    """

    exemplar: Exemplar
    layer: FaceLayer
    settings: StylizeSettings
    skin_lab: Float32Array
    skin_gain: float
    hair_levels: Float32Array | None
    skin_mean: Float32Array
    depth_range: tuple[float, float]


def make_look(
    exemplar: Exemplar,
    layer: FaceLayer,
    regions: Regions,
    observed: Observations,
    depth_range: tuple[float, float],
    settings: StylizeSettings,
) -> Look:
    """Measure the person's and the exemplar's ranges once for all frames."""
    ramp = exemplar.skin_ramp[:, 0]
    exemplar_spread = float(ramp[int(0.84 * RAMP_STEPS)] - ramp[int(0.16 * RAMP_STEPS)]) / 2
    gain = np.clip(exemplar_spread / max(regions.skin_spread, 3.0), 0.3, 0.7)
    hair = regions.hair > 0.7
    levels = None
    if hair.sum() > 30:
        quantiles = np.linspace(0.02, 0.98, RAMP_STEPS)
        levels = np.quantile(observed.lab[hair, 0], quantiles).astype(np.float32)
        levels = np.maximum.accumulate(levels + np.arange(RAMP_STEPS) * 1e-3)
    return Look(
        exemplar,
        layer,
        settings,
        regions.skin_lab,
        float(gain) * settings.shading,
        levels,
        exemplar.skin_mean,
        depth_range,
    )


def paint(look: Look, warped: WarpedFrame) -> tuple[ByteImage, Float32Array]:
    """Stylize one bent frame.

    Returns:
        RGB ``(H, W, 3)`` on a plain background and confidence ``(H, W)`` in 0..1.
    """
    attributes = warped.attributes
    # Where thin shells of a surface cross each other, single pixels show the wrong side.
    skin, hair, clothes, beard = (_despeckle(attributes[..., i]) for i in range(4))
    local = attributes[..., 4:7].astype(np.float64)
    front = _front_weight(look, local, attributes[..., 7])
    photo = _subject_lab(warped, attributes[..., 8:11])
    at = look.layer.pixels(local)
    organs = sample(look.layer.organs, at) * front * (1 - hair)
    skin_colour = _skin(look, photo, at, front, organs)
    hair_colour = _hair(look, photo)
    beard_mix = (beard * (look.exemplar.hair_ramp is not None))[..., None]
    out = skin[..., None] * (skin_colour * (1 - beard_mix) + hair_colour * beard_mix)
    out = out + hair[..., None] * hair_colour + clothes[..., None] * _clothes(look, photo)
    out = out / np.maximum(skin + hair + clothes, 1e-3)[..., None]
    drawn = sample(look.layer.feature, at) * front * smoothstep(hair, 0.6, 0.3)
    out = out + (sample(look.layer.feature_lab, at) - out) * drawn[..., None]
    cover = warped.mask[..., None].astype(np.float32) / 255
    image = to_rgb(out).astype(np.float32) * cover + BACKGROUND * (1 - cover)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), _confidence(warped, hair)


def _front_weight(look: Look, local: FloatArray, normal: Float32Array) -> Float32Array:
    """1 on the face as seen from the front, 0 on the back of the head and the ears."""
    low, high = look.depth_range
    weight = smoothstep(local[..., 2], low, high) * smoothstep(normal, -0.1, 0.25)
    return blur(np.asarray(cv2.medianBlur(weight.astype(np.float32), 5)), 0.7)


def _despeckle(label: Float32Array) -> Float32Array:
    return blur(np.asarray(cv2.medianBlur(np.ascontiguousarray(label), 3)), 0.7)


def _subject_lab(warped: WarpedFrame, prior_lab: Float32Array) -> Float32Array:
    """The bent photo; where it shows something else, the colour all views agree on."""
    seen = warped.seen[..., None]
    return np.asarray(to_lab(warped.photo) * seen + prior_lab * (1 - seen), np.float32)


def _skin(
    look: Look,
    photo: Float32Array,
    at: FloatArray,
    front: Float32Array,
    organs: Float32Array,
) -> Float32Array:
    lit = fill_holes(photo, 1 - organs)
    lit = smooth_edges(lit, 7.0, 3.0)
    base = sample(look.layer.skin_lab, at)
    face = front[..., None]
    base = np.asarray(look.skin_mean + (base - look.skin_mean) * face, np.float32)
    detail = sample(look.layer.detail_lab, at) * face * look.settings.exemplar_detail
    shade = look.skin_gain * _soft_clip(lit[..., 0] - look.skin_lab[0], 30.0)
    out = base + detail
    light = np.clip(out[..., 0] + shade, 2, 98)
    ramp = look.exemplar.skin_ramp
    along = _ramp_chroma(ramp, light) - _ramp_chroma(ramp, out[..., 0])
    own = blur(lit[..., 1:] - look.skin_lab[1:], 1.5)
    chroma = out[..., 1:] + np.clip(along, -8, 8)
    chroma = chroma + look.settings.chroma_variation * np.clip(own, -12, 12)
    return np.asarray(np.concatenate([light[..., None], chroma], axis=2), np.float32)


def _soft_clip(values: Float32Array, limit: float) -> Float32Array:
    return np.asarray(limit * np.tanh(values / limit), np.float32)


def _ramp_chroma(ramp: Float32Array, light: Float32Array) -> Float32Array:
    levels = np.maximum.accumulate(ramp[:, 0] + np.arange(len(ramp)) * 1e-3)
    parts = [np.interp(light, levels, ramp[:, axis]) for axis in (1, 2)]
    return np.asarray(np.stack(parts, axis=-1), np.float32)


def _hair(look: Look, photo: Float32Array) -> Float32Array:
    smooth = smooth_edges(photo, 9.0, 2.0)
    ramp = look.exemplar.hair_ramp
    if ramp is None:
        return smooth
    if look.hair_levels is None:  # a beard on a bald head: its own light round the ramp's middle
        middle = ramp[RAMP_STEPS // 3]
        light = middle[0] + 0.4 * (smooth[..., 0] - look.skin_lab[0] + 15.0)
        chroma = np.broadcast_to(middle[1:], (*light.shape, 2))
        return np.asarray(np.concatenate([light[..., None], chroma], axis=2), np.float32)
    position = np.interp(smooth[..., 0], look.hair_levels, np.linspace(0, 1, RAMP_STEPS))
    channels = [
        np.interp(position, np.linspace(0, 1, RAMP_STEPS), ramp[:, axis]) for axis in range(3)
    ]
    out = np.stack(channels, axis=-1)
    # A flat drawing has no range of its own: keep some of the person's, so strands stay visible.
    own = smooth[..., 0] - np.median(look.hair_levels)
    flat = 1 - smoothstep(np.ptp(ramp[:, 0]), 6.0, 30.0)
    out[..., 0] += 0.35 * flat * look.settings.shading * own
    return np.asarray(out, np.float32)


def _clothes(look: Look, photo: Float32Array) -> Float32Array:
    smooth = smooth_edges(smooth_edges(photo, 10.0, 4.0), 10.0, 4.0)
    smooth[..., 1:] *= look.settings.clothes_saturation
    return smooth


def _confidence(warped: WarpedFrame, hair: Float32Array) -> Float32Array:
    """High on surfaces that face the camera, low at grazing angles, edges and unseen places."""
    inset = cv2.distanceTransform((warped.mask > 127).astype(np.uint8), cv2.DIST_L2, 5)
    sure = smoothstep(warped.facing, 0.12, 0.5) * smoothstep(inset, 0.5, 4.0)
    out = sure * (0.3 + 0.7 * warped.seen) * warped.hit * (1 - 0.2 * hair)
    return np.asarray(out, np.float32)
