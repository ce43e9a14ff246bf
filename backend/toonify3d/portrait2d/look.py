"""Colours of one stylized frame, region by region (method_anchors B2b)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..scene import Float32Array, FloatArray
from .celtones import flat_marks, lit_share
from .colorspace import blur, fill_holes, sample, smooth_edges, smoothstep, to_lab
from .exemplar import RAMP_STEPS, Exemplar
from .exemplarmasks import ink_on_skin, light_in_hair
from .facelayer import FaceLayer
from .framewarp import WarpedFrame
from .hatching import sharp_label
from .paintedorgans import lit_features, own_features
from .regions import Regions
from .settings import StylizeSettings
from .surface import Observations
from .tones import PaintTones, kept_shading
from .transport import ColourMap, plane_transport

_BROAD = 0.12
"""Eye distances over which light counts as broad."""
CALM = {"toon": 0.3, "cel": 1.0, "paint": 0.7}
"""Share in hair of the colours that all views agree on; the rest are the photo's strands. A gloss
that wanders with the camera becomes another colour in a painting's tones."""
_AGREED_SKIN = 0.8
"""The same share in the skin of paintings and chalk drawings."""
_MARK = 5.0
"""CIELAB difference from skin that counts as drawn on a cel's skin."""
_MARKS_FULL = 0.6
"""Value of ``exemplar_detail`` from which on a cel's marks have their whole colour."""
_BORDER = {"cel": 1.0, "toon": 1.2, "colour": 2.0}
"""Width in pixels of the borders between skin, hair and clothes."""
_STRANDS = 0.35
"""Share of the person's own strands that stays in hair whose drawing is flat."""
_LIT_HAIR = 0.03
"""Share of an exemplar's hair left light from which on inked hair has lights."""
_INK_SHADE = 0.05
"""Share of an inked face that must be ink for its skin to have shadows of hatching."""
LINE_WIDTHS = (0.015, 0.035)
"""Narrowest and widest line of a drawing, face widths."""
_FINE_OF_TOONS = 0.55
"""Share of the finer light that stays on a toon's face (the wings of the nose, the lips' form)."""


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
        kind: One of ``LOOKS`` but not ``"auto"``.
        clothes_map: Clothes' colours to the exemplar's, or None to keep them.
        line_lab: ``(3,)`` colour of lines.
        tones: A painting's light and tones; None for all other looks.
        hair_lights: Inked hair has lights, as the exemplar's has.
        inked: Share of the exemplar's face that is ink (drawings).
        line_width: Of a drawing's lines, in face widths.
    """

    exemplar: Exemplar
    layer: FaceLayer
    settings: StylizeSettings
    skin_lab: Float32Array
    skin_gain: float
    hair_levels: Float32Array | None
    skin_mean: Float32Array
    depth_range: tuple[float, float]
    kind: str
    clothes_map: ColourMap | None
    line_lab: Float32Array
    tones: PaintTones | None = None
    hair_lights: bool = True
    inked: float = 1.0
    line_width: float = LINE_WIDTHS[0]

    @property
    def ink_shade(self) -> bool:
        """Inked skin has hatched shadows, as the exemplar's has."""
        return self.inked > _INK_SHADE

    @property
    def plain(self) -> bool:
        """Skin is smooth or flat, as toons and cels have it."""
        return self.kind in ("toon", "cel")


@dataclass(frozen=True)
class Painted:
    """One recoloured frame.

    Attributes:
        lab: ``(H, W, 3)`` CIELAB, continued beyond the person.
        labels: ``(H, W, 3)`` skin, hair, clothes; they sum to 1.
        drawn: ``(H, W)`` opacity of the exemplar's eyes, brows and lips.
        local: ``(H, W, 3)`` bent surface in the face frame.
        photo_light: ``(H, W)`` L of the bent photo.
        organs: ``(H, W)`` where eyes, brows and lips are drawn or kept.
        tone: ``(H, W)`` the person's relit L, what all views agree on (0 without tones).
        cover: ``(H, W)`` 0..1 the person.
        confidence: ``(H, W)`` 0..1 how far stage III should believe a pixel.
    """

    lab: Float32Array
    labels: Float32Array
    drawn: Float32Array
    local: Float32Array
    photo_light: Float32Array
    organs: Float32Array
    tone: Float32Array
    cover: Float32Array
    confidence: Float32Array


def make_look(
    exemplar: Exemplar,
    layer: FaceLayer,
    regions: Regions,
    observed: Observations,
    depth_range: tuple[float, float],
    settings: StylizeSettings,
    kind: str,
    tones: PaintTones | None = None,
    facing: FloatArray | None = None,
) -> Look:
    """Measure the person's and the exemplar's ranges once for all frames.

    ``facing`` ``(V,)`` is the vertices' normal towards the face's front.
    """
    ramp = exemplar.skin_ramp[:, 0]
    exemplar_spread = float(ramp[int(0.84 * RAMP_STEPS)] - ramp[int(0.16 * RAMP_STEPS)]) / 2
    least = 0.2 if kind == "cel" else 0.3  # two tones of skin at most
    gain = np.clip(exemplar_spread / max(regions.skin_spread, 3.0), least, 0.7)
    levels = _hair_levels(regions, observed, facing)
    inked, line_width = _ink_on_skin(exemplar)
    return Look(
        exemplar,
        layer,
        settings,
        regions.skin_lab,
        float(gain) * settings.shading,
        levels,
        exemplar.skin_mean,
        depth_range,
        kind,
        _clothes_map(exemplar, regions, observed, kind),
        exemplar.line_lab,
        tones,
        light_in_hair(exemplar.labels, exemplar.points) > _LIT_HAIR,
        inked,
        float(np.clip(np.nan_to_num(line_width), *LINE_WIDTHS)),
    )


def _ink_on_skin(exemplar: Exemplar) -> tuple[float, float]:
    ink, paper = float(exemplar.line_lab[0]), float(exemplar.skin_mean[0])
    return ink_on_skin(exemplar.lab, exemplar.labels, exemplar.points, ink, paper)


def _hair_levels(
    regions: Regions, observed: Observations, facing: FloatArray | None
) -> Float32Array | None:
    """Quantiles ``(32,)`` of the hair's L as a picture from the front shows it; None when bald.

    An exemplar shows the front of the hair, not its dark nape, and what turns away is foreshortened
    in it.
    """
    hair = regions.hair > 0.7
    weight = np.ones(len(hair))
    if facing is not None and (hair & (facing > 0)).sum() > 30:
        hair, weight = hair & (facing > 0), facing
    if hair.sum() <= 30:
        return None
    order = np.argsort(observed.lab[hair, 0], kind="stable")
    light, share = observed.lab[hair, 0][order], np.cumsum(weight[hair][order])
    at = np.linspace(0.02, 0.98, RAMP_STEPS) * share[-1]
    levels = np.interp(at, share, light) + np.arange(RAMP_STEPS) * 1e-3
    return np.asarray(np.maximum.accumulate(levels), np.float32)


def _clothes_map(
    exemplar: Exemplar, regions: Regions, observed: Observations, kind: str
) -> ColourMap | None:
    """Paintings and drawings dress the person in their own colours; a toon leaves the clothes."""
    if kind == "colour":
        return plane_transport(observed.lab[::5], exemplar.rest_lab, 0.5)
    worn = observed.lab[regions.clothes > 0.6]
    if kind in ("toon", "cel") or len(worn) < 30:
        return None
    if kind == "hatch":  # all of a drawing is paper and pigment
        return plane_transport(worn, to_lab(exemplar.image).reshape(-1, 3)[::7], 0.8)
    rest = exemplar.rest_lab if len(exemplar.rest_lab) > 50 else exemplar.lab.reshape(-1, 3)[::7]
    return plane_transport(worn, rest, 0.6)


def paint(look: Look, warped: WarpedFrame) -> Painted:
    """Recolour one bent frame."""
    attributes = warped.attributes
    skin, hair, clothes, beard = _borders(attributes, look.kind)
    local = attributes[..., 4:7].astype(np.float64)
    agreed = np.ascontiguousarray(attributes[..., 8:11])
    photo = _subject_lab(warped, agreed)
    if look.kind == "colour":
        return _paint_colours(look, warped, photo)
    ahead = smoothstep(local[..., 2], *look.depth_range)
    front = _front_weight(ahead, attributes[..., 7])
    at = look.layer.pixels(local)
    shown = front * (1 - hair)
    organs = sample(look.layer.organs, at) * shown
    bare = smoothstep(skin, 0.4, 0.8) * (1 - organs)
    toned = look.tones is not None and look.tones.coloured
    if look.kind == "cel":
        skin_colour = _cel_skin(look, at, front, attributes[..., 11])
    elif look.tones is None or not toned:
        skin_colour = _skin(look, photo, at, (front, ahead), bare if look.plain else 1 - organs)
    else:
        shared = photo + _AGREED_SKIN * (agreed - photo)
        skin_colour = _toned_skin(look, look.tones, shared, at, front, bare, attributes[..., 11])
    own = sample(look.layer.own, at) * shown[..., None]
    skin_colour = own_features(look, photo, skin_colour, own, organs)
    calm = CALM.get(look.kind, 0.0)
    hair_colour = _hair(look, photo + calm * (agreed - photo))
    beard_mix = (beard * (look.exemplar.hair_ramp is not None))[..., None]
    out = skin[..., None] * (skin_colour * (1 - beard_mix) + hair_colour * beard_mix)
    out = (
        out
        + hair[..., None] * hair_colour
        + clothes[..., None] * _clothes(look, agreed if look.plain else photo)
    )
    total = np.maximum(skin + hair + clothes, 1e-3)[..., None]
    out = out / total
    drawn = sample(look.layer.feature, at) * front * smoothstep(hair, 0.6, 0.3)
    features = sample(blur(look.layer.feature_lab, 0.7), at)
    if toned:
        features = lit_features(look, features, at, skin_colour)
    out = out + (features - out) * drawn[..., None]
    return Painted(
        np.asarray(out, np.float32),
        np.asarray(np.stack([skin, hair, clothes], 2) / total, np.float32),
        np.asarray(np.maximum(drawn, own.sum(2)), np.float32),
        np.asarray(local, np.float32),
        np.asarray(photo[..., 0], np.float32),
        organs,
        _agreed_tone(look, attributes),
        np.asarray(warped.mask / 255.0, np.float32),
        _confidence(warped, hair),
    )


def _paint_colours(look: Look, warped: WarpedFrame, photo: Float32Array) -> Painted:
    """The whole person in the picture's colours, no region told from another."""
    everything = np.zeros((*warped.mask.shape, 3), np.float32)
    everything[..., 2] = 1.0
    recoloured = photo if look.clothes_map is None else look.clothes_map(photo)
    return Painted(
        recoloured,
        everything,
        np.zeros(warped.mask.shape, np.float32),
        np.asarray(warped.attributes[..., 4:7], np.float32),
        np.asarray(photo[..., 0], np.float32),
        np.zeros(warped.mask.shape, np.float32),
        np.zeros(warped.mask.shape, np.float32),
        np.asarray(warped.mask / 255.0, np.float32),
        _confidence(warped, everything[..., 1]),
    )


def _agreed_tone(look: Look, attributes: Float32Array) -> Float32Array:
    if look.tones is None:
        return np.zeros(attributes.shape[:2], np.float32)
    tone = kept_shading(look.settings.shading) * attributes[..., 8] + attributes[..., 11]
    return blur(np.ascontiguousarray(tone), 1.0)


def _front_weight(ahead: Float32Array, normal: Float32Array) -> Float32Array:
    """1 on the face as seen from the front, 0 on the back of the head and the ears."""
    weight = ahead * smoothstep(normal, -0.1, 0.25)
    return blur(np.asarray(cv2.medianBlur(weight.astype(np.float32), 5)), 0.7)


def _borders(attributes: Float32Array, kind: str) -> Float32Array:
    """Skin, hair, clothes and beard ``(4, H, W)``; where a region is unsure it ends.

    Otherwise the hair's colour glows into the neck. Drawings in lines and paper tones keep the
    soft labels, which their marks need.
    """
    # Where thin shells of a surface cross each other, single pixels show the wrong side.
    soft = np.stack([_despeckle(attributes[..., i]) for i in range(4)])
    if kind in _BORDER:
        rest = [np.maximum(soft[(i + 1) % 3], soft[(i + 2) % 3]) for i in range(3)]
        ahead = [sharp_label(0.5 + 0.5 * (soft[i] - rest[i]), _BORDER[kind]) for i in range(3)]
        return np.stack([*ahead, soft[3] if kind == "cel" else smoothstep(soft[3], 0.25, 0.75)])
    if kind in ("ink", "hatch"):
        return soft
    return smoothstep(soft, 0.15, 0.85)  # painters soften borders


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
    weights: tuple[Float32Array, Float32Array],
    bare: Float32Array,
) -> Float32Array:
    front, ahead = weights
    lit = smooth_edges(fill_holes(photo, bare), 7.0, 3.0)
    if look.plain:  # a toon's skin has form, but no pores, folds and hollows
        broad = blur(lit, _BROAD * look.layer.scale / 2)
        fine = 1 - (1 - _FINE_OF_TOONS) * front[..., None]  # ears and neck are not drawn by anyone
        lit = broad + fine * (lit - broad)
    base = sample(look.layer.skin_lab, at)
    # By place alone: where a jaw turns under, a weight by direction leaves a streak of mean skin.
    base = np.asarray(look.skin_mean + (base - look.skin_mean) * ahead[..., None], np.float32)
    detail = sample(look.layer.detail_lab, at) * front[..., None] * look.settings.exemplar_detail
    shade = look.skin_gain * _soft_clip(lit[..., 0] - look.skin_lab[0], 30.0)
    out = base + detail
    light = np.clip(out[..., 0] + shade, 2, 98)
    ramp = look.exemplar.skin_ramp
    along = _ramp_chroma(ramp, light) - _ramp_chroma(ramp, out[..., 0])
    own = blur(lit[..., 1:] - look.skin_lab[1:], 1.5)
    chroma = out[..., 1:] + np.clip(along, -8, 8)
    chroma = chroma + look.settings.chroma_variation * np.clip(own, -12, 12)
    return np.asarray(np.concatenate([light[..., None], chroma], axis=2), np.float32)


def _cel_skin(
    look: Look, at: FloatArray, front: Float32Array, lit_side: Float32Array
) -> Float32Array:
    """Two tones, the exemplar's skin and its shadow, and on them what is drawn on its face."""
    ramp = look.exemplar.skin_ramp
    deep = ramp[1] - ramp[RAMP_STEPS // 2]
    deep = deep * np.clip(deep[0], -14.0, -7.0) / min(float(deep[0]), -1.0)
    shaded = 1 - lit_share(np.ascontiguousarray(lit_side))
    marks = np.linalg.norm(look.layer.detail_lab, axis=2)
    marks = marks[marks > _MARK]
    drawn = sample(look.layer.detail_lab, at) * front[..., None]
    if len(marks):
        drawn = flat_marks(drawn, float(np.quantile(marks, 0.8)))
    drawn *= min(look.settings.exemplar_detail / _MARKS_FULL, 1.0)
    out = look.skin_mean + drawn + deep * min(look.settings.shading, 2.0) * shaded[..., None]
    return np.asarray(out, np.float32)


def _toned_skin(
    look: Look,
    tones: PaintTones,
    photo: Float32Array,
    at: FloatArray,
    front: Float32Array,
    bare: Float32Array,
    relit: Float32Array,
) -> Float32Array:
    """Skin of a painting: the person's form in the painted light, in the painting's tones.

    Only broad light goes through the curve; folds and sockets, which it would deepen, are added.
    Of the painted face's own drawing only the colour comes: its shadows lie in its own light.
    """
    lit = smooth_edges(fill_holes(photo, bare), 7.0, 2.0)
    broad = blur(lit[..., 0], _BROAD * look.layer.scale / 2)
    kept = kept_shading(look.settings.shading)
    light = tones.skin.light(kept * broad + relit) + kept * (lit[..., 0] - broad)
    # Redness is the person's; a shine on the photo's skin is not, and would turn blue or green.
    own = np.clip(blur(lit[..., 1:] - look.skin_lab[1:], 1.5), -5, 16)
    drawn = sample(look.layer.detail_lab, at)[..., 1:] * front[..., None]
    chroma = tones.skin.colour(light) + drawn * look.settings.exemplar_detail
    chroma += look.settings.chroma_variation / 0.33 * tones.chroma_gain * own
    return np.concatenate([np.clip(light, 1, 99)[..., None], chroma], axis=2, dtype=np.float32)


def _soft_clip(values: Float32Array, limit: float) -> Float32Array:
    return np.asarray(limit * np.tanh(values / limit), np.float32)


def _ramp_chroma(ramp: Float32Array, light: Float32Array) -> Float32Array:
    levels = np.maximum.accumulate(ramp[:, 0] + np.arange(len(ramp)) * 1e-3)
    parts = [np.interp(light, levels, ramp[:, axis]) for axis in (1, 2)]
    return np.asarray(np.stack(parts, axis=-1), np.float32)


def _hair(look: Look, photo: Float32Array) -> Float32Array:
    smooth = smooth_edges(photo, 9.0, 2.0)
    if look.tones is not None and look.tones.coloured and look.tones.hair is not None:
        return look.tones.hair(smooth[..., 0])
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
    broad = blur(smooth[..., 0], _BROAD * look.layer.scale / 2)
    cel = look.kind == "cel"  # strands would be specks of tone there
    own = broad - np.median(look.hair_levels) if cel else smooth[..., 0] - broad
    flat = 1 - smoothstep(np.ptp(ramp[:, 0]), 6.0, 30.0)
    out[..., 0] += _STRANDS * flat * look.settings.shading * _soft_clip(own, 30.0)
    return np.asarray(out, np.float32)


def _clothes(look: Look, photo: Float32Array) -> Float32Array:
    smooth = smooth_edges(smooth_edges(photo, 10.0, 4.0), 10.0, 4.0)
    if look.tones is not None and look.tones.coloured and look.tones.clothes is not None:
        return look.tones.clothes(smooth[..., 0])
    if look.clothes_map is not None:
        return look.clothes_map(smooth)
    # Beside a gray drawing no clothes are colourful.
    colourful = smoothstep(look.exemplar.stats.chroma, 2.0, 14.0)
    smooth[..., 1:] *= look.settings.clothes_saturation * colourful
    return smooth


def _confidence(warped: WarpedFrame, hair: Float32Array) -> Float32Array:
    """High on surfaces that face the camera, low at grazing angles, edges and unseen places."""
    inset = cv2.distanceTransform((warped.mask > 127).astype(np.uint8), cv2.DIST_L2, 5)
    sure = smoothstep(warped.facing, 0.12, 0.5) * smoothstep(inset, 0.5, 4.0)
    out = sure * (0.3 + 0.7 * warped.seen) * warped.hit * (1 - 0.2 * hair)
    return np.asarray(out, np.float32)
