"""Eyes, lips and brows of paintings: the painted eyes in the person's light, the person's own lips
and brows in painted colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..scene import Float32Array, FloatArray
from .colorspace import blur, fill_holes, sample

if TYPE_CHECKING:
    from .look import Look

_EYE_SHADE, _EYE_CLARITY = 0.7, 0.4
"""How far eyes darken with the skin round them, and how much their contrast is raised."""
_LIP_LINE, _LIP_CRISP = 0.03, 1.4
"""Eye distances within which light on lips is their line and gloss, and how much of it is added:
painters draw it."""


def lit_features(
    look: Look, features: Float32Array, at: FloatArray, skin: Float32Array
) -> Float32Array:
    """Painted eyes in the light that falls on this face; whites and glints stay clear.

    Args:
        look: What the frames share.
        features: ``(H, W, 3)`` CIELAB of the exemplar's organs.
        at: ``(H, W, 2)`` place in the face layer.
        skin: ``(H, W, 3)`` the recoloured skin.
    """
    beside = sample(look.layer.skin_lab, at)
    ground = blur(skin, 3.0)
    ratio = np.clip(ground[..., :1] / np.maximum(beside[..., :1], 1.0), 0.3, 1.1) ** _EYE_SHADE
    light = features[..., :1] * ratio
    light = light + _EYE_CLARITY * (light - blur(light[..., 0], 2.0)[..., None])
    chroma = ground[..., 1:] + (features[..., 1:] - beside[..., 1:]) * ratio
    return np.concatenate([np.clip(light, 1, 99), chroma], axis=2, dtype=np.float32)


def own_features(
    look: Look,
    photo: Float32Array,
    skin_colour: Float32Array,
    own: Float32Array,
    organs: Float32Array,
) -> Float32Array:
    """The person's own lips and brows, in the exemplar's colours (paintings).

    Painted lips and brows are a few strokes in the light of another head: bent onto the person
    they fall apart, while the person's own ones in their colour read as painted at once.

    Args:
        look: What the frames share.
        photo: ``(H, W, 3)`` CIELAB of the bent photo.
        skin_colour: ``(H, W, 3)`` the recoloured skin.
        own: ``(H, W, 2)`` where lips and brows lie.
        organs: ``(H, W)`` all organs, beyond which the photo shows skin.
    """
    if not own.any():
        return skin_colour
    beside = fill_holes(photo, 1 - organs)
    structure = np.clip(photo - beside, -40, 25)
    structure[..., 1:] *= 0.5
    fine = structure[..., :1] - blur(structure[..., 0], _LIP_LINE * look.layer.scale / 2)[..., None]
    if look.kind == "hatch":  # darker is more pigment, nothing else
        structure[..., :1] += fine * own[..., 1:]  # whites and glints of eyes
        place = np.minimum(0.6 * own[..., :1] + own[..., 1:], 1)  # lips are a tone, not a shape
        dark = np.clip(-structure[..., :1] / 30.0, 0, 1) * place
        return np.asarray(skin_colour + (look.line_lab - skin_colour) * dark, np.float32)
    lips, brows = own[..., :1], own[..., 1:2]
    limit = np.array([9.0, 16.0, 16.0], np.float32)
    lip_shift = limit * np.tanh(look.exemplar.lip_shift / limit)
    brow_shift = np.minimum(look.exemplar.brow_shift, [0.0, 8.0, 8.0]) * 0.5
    # In the shadow of a painting red is dark too.
    lit = skin_colour[..., :1] / max(float(look.skin_mean[0]), 1.0)
    lip_shift = lip_shift * np.clip(lit, 0.3, 1.0)
    # Filmed lips have a colour of their own: beside the painted one it would count twice.
    own_lips = structure * np.array([0.6, 0.4, 0.4], np.float32)
    own_lips[..., :1] += _LIP_CRISP * fine
    out = skin_colour + lips * (own_lips + 0.8 * _darkening(lip_shift))
    return np.asarray(out + brows * (structure + brow_shift), np.float32)


def _darkening(shift: Float32Array) -> Float32Array:
    """A shift of colour that lightens nothing."""
    return np.concatenate([np.minimum(shift[..., :1], 0.0), shift[..., 1:]], axis=-1)
