"""The room's light found on a studied person, and frames and colours without it.

The light is found once per capture (it does not depend on the style) and kept beside the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..progress import Progress
from ..raycast import MeshQuery, interpolate
from ..room_light import RoomLight, load_room_light, remove_light, save_room_light
from ..scene import ByteImage, Camera, Float32Array, FloatArray, Frame, Scene, SurfaceMesh
from ..srgb import to_linear
from .colorspace import blur, sample, smoothstep, to_lab
from .exemplar import Exemplar
from .exemplarkind import choose_look
from .facelayer import FaceLayer
from .light_fit import LightFit, LitPlaces, fit_light
from .regions import face_skin, skin_statistics
from .settings import StylizeSettings
from .surface import vertex_normals

if TYPE_CHECKING:
    from .pipeline import Person

LOOK_SHARE = {"paint": 0.6, "hatch": 0.6, "colour": 0.6}
"""Share of the light that a look takes out; 1 for all others. Brush and chalk looks keep some:
their exemplars model the form with light."""

_SPACING = 0.005
"""Metres between the places at which the light is judged."""
_DRAWN_LIGHT = 0.25
"""Eye distances over which a drawing's light on the skin is broad (a nose's drawing is finer)."""
_FADE = 0.04
"""Share of a frame's long side over which the light fades out beyond the person's outline."""
_VERSION = "1"
_LEAST_PLACES, _LEAST_SKIN = 500, 60
_LEAST_SPREAD = 0.02
"""Smallest variance of the normals along any axis: less shows the light from one side only."""
_LEAST_EXPLAINED, _MATTERS = 0.12, 0.05
"""A light that explains less than this of the shading, yet removes more than that, is a guess."""
_MOST_RESTLESS = 0.35
"""Share of neighbours on the face's skin with a jump of albedo (a scan with known albedo: 0.02)."""


def delight_strength(style: Exemplar, settings: StylizeSettings) -> float:
    """How much of the light is taken out for an exemplar, 0 to 1."""
    kind = choose_look(style.stats) if settings.look == "auto" else settings.look
    return settings.delight * LOOK_SHARE.get(kind, 1.0)


def even_layer(layer: FaceLayer, settings: StylizeSettings, kind: str) -> FaceLayer:
    """The exemplar's face without the light from one side that was drawn on it.

    A face's skin is much the same on both sides, so what differs broadly is light. Brush and chalk
    looks keep it: there it is the style.
    """
    if kind in LOOK_SHARE or settings.delight <= 0:
        return layer
    half = 0.5 * settings.delight
    skin = layer.skin_lab - half * (layer.skin_lab - _mirrored(layer, layer.skin_lab))
    broad = blur(layer.detail_lab, _DRAWN_LIGHT * layer.scale)
    detail = layer.detail_lab - half * (broad - _mirrored(layer, broad))
    return replace(layer, skin_lab=skin, detail_lab=np.asarray(detail, np.float32))


def _mirrored(layer: FaceLayer, image: Float32Array) -> Float32Array:
    height, width = image.shape[:2]
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    middle = float(layer.pixels(np.zeros(3))[0])
    return sample(image, np.stack([2 * middle - columns, rows], axis=-1))


def room_light(
    scene: Scene, prior_mesh: SurfaceMesh, cache: Path, progress: Progress, person: Person | None
) -> RoomLight | None:
    """The room's light on the person; None (with a warning) when it cannot be told.

    Its figures: ``direction`` (unit vector to the light, world), ``azimuth_degrees`` (0 in front
    of the face, positive on the person's left), ``elevation_degrees``, ``one_sided`` (0 even light,
    0.67 a single lamp), ``left_right`` (log light on the left half of the face against the right),
    ``mean_on_face`` (mean absolute log light), ``explained`` (share of the shading explained),
    ``places``.

    Args:
        scene: The capture.
        prior_mesh: The person's surface; decides with the frames whether ``cache`` still fits.
        cache: ``.npz`` that is read when it fits, and written otherwise.
        progress: Told what degrades.
        person: From :func:`.pipeline.study_person`; None studies the person when needed.
    """
    if scene.landmarks is None:
        progress.warn("No face was found, so the room's light stays in the colours.")
        return None
    key = f"{_VERSION} {len(prior_mesh.vertices)} {len(prior_mesh.faces)} {len(scene.frames)}"
    known = load_room_light(cache, key)
    if known is None:
        if person is None:
            from .pipeline import study_person  # it imports this module

            person = study_person(scene, prior_mesh, progress)
        known = find_light(scene, person)
        save_room_light(cache, known, key)
    if "uncertain" in known.figures:
        progress.warn(
            f"The room's light could not be told ({known.figures['uncertain']}), so it stays in"
            " the colours."
        )
        return None
    return known


def find_light(scene: Scene, person: Person) -> RoomLight:
    """Fit the light; ``figures["uncertain"]`` says why a fit is not to be believed."""
    places = lit_places(scene, person)
    reason = _too_little(places)
    if reason is not None:
        return RoomLight(places.points, np.zeros_like(places.points), {"uncertain": reason})
    fit = fit_light(places, person.caster)
    if fit is None:
        reason = "no material covers enough of the person"
        return RoomLight(places.points, np.zeros_like(places.points), {"uncertain": reason})
    figures = _figures(fit, places, person)
    if fit.restless > _MOST_RESTLESS:
        figures["uncertain"] = "the skin's own colours change from place to place"
    elif fit.explained < _LEAST_EXPLAINED and fit.removed > _MATTERS:
        figures["uncertain"] = f"it explains only {fit.explained:.0%} of the shading"
    return RoomLight(places.points, fit.gain, figures)


def lit_places(scene: Scene, person: Person) -> LitPlaces:
    """Vertices of the studied person about 5 mm apart, with what the fit needs."""
    mesh, regions, observed = person.mesh, person.regions, person.observed
    cell = np.floor(mesh.vertices / _SPACING).astype(np.int64)
    _, rows = np.unique(cell, axis=0, return_index=True)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    labels = np.stack([regions.skin, regions.hair, regions.clothes], axis=1)[rows]
    points = mesh.vertices[rows]
    sure = (observed.seen[rows] >= 2) & (labels.max(axis=1) > 0.6)
    sure &= points[:, 2] > scene.crop_z + 0.02  # the cut below the bust is not the person
    local = person.frame.to_face(mesh.vertices)
    turned = normals @ person.frame.rotation.T
    face = face_skin(local, turned, person.frame.to_face(person.world)) & (regions.skin > 0.7)
    return LitPlaces(
        points,
        normals[rows],
        linear_colors(observed.lab[rows]),
        labels.argmax(axis=1),
        np.minimum(observed.seen[rows] / 3.0, 1.0) * sure,
        face[rows],
    )


def _too_little(places: LitPlaces) -> str | None:
    used = places.weight > 0
    if int((used & places.reference).sum()) < _LEAST_SKIN:
        return "too little skin of the face is seen"
    if int(used.sum()) < _LEAST_PLACES:
        return "too little of the person is seen"
    spread = np.linalg.eigvalsh(np.cov(places.normals[used].T))
    if float(spread.min()) < _LEAST_SPREAD:
        return "the surface is seen from one side only"
    return None


def _figures(fit: LightFit, places: LitPlaces, person: Person) -> dict[str, Any]:
    mean = fit.mean_direction
    length = float(np.linalg.norm(mean))
    x, y, z = mean / max(length, 1e-9)
    face = places.reference & (places.weight > 0)
    side = (
        person.frame.to_face(places.points)[:, 0]
        - person.frame.to_face(person.world[[lm.NOSE_TIP]])[0, 0]
    )
    halves = [face & (side > 0.1), face & (side < -0.1)]
    level = [
        float(np.median(fit.gain[half].mean(axis=1))) if half.any() else 0.0 for half in halves
    ]
    return {
        "direction": [round(float(v), 3) for v in (x, y, z)],
        "azimuth_degrees": round(float(np.degrees(np.arctan2(x, -y))), 1),
        "elevation_degrees": round(float(np.degrees(np.arcsin(np.clip(z, -1, 1)))), 1),
        "one_sided": round(length, 3),
        "left_right": round(level[0] - level[1], 3),
        "mean_on_face": round(fit.removed, 3),
        "explained": round(fit.explained, 3),
        "places": int((places.weight > 0).sum()),
    }


# -- without it -------------------------------------------------------------------------------


@dataclass
class DelitScene(Scene):
    """A scene whose frames show the person without the room's light (what is round them stays).

    Attributes:
        caster: Rays against the person.
        faces: ``(F, 3)`` of that mesh.
        gain: ``(V, 3)`` log light at its vertices, already times the wanted strength.
    """

    caster: MeshQuery | None = None
    faces: npt.NDArray[np.int64] | None = None
    gain: FloatArray | None = None

    def image(self, frame: Frame) -> ByteImage:
        """See :meth:`Scene.image`."""
        photo = super().image(frame)
        assert self.caster is not None and self.faces is not None and self.gain is not None
        gain = light_image(self.caster, self.faces, self.gain, frame.camera)
        return np.asarray(255.0 * remove_light(photo / 255.0, gain) + 0.5, np.uint8)


def light_image(
    caster: MeshQuery, faces: npt.NDArray[np.int64], gain: FloatArray, camera: Camera
) -> FloatArray:
    """Log light ``(H, W, 3)`` as the camera sees it; beyond the person's outline it fades out."""
    height, width = camera.height, camera.width
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    origins, directions = camera.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    hits = caster.cast(origins, directions)
    seen = (hits.face >= 0).reshape(height, width)
    if not seen.any():
        return np.zeros((height, width, 3))
    away, label = cv2.distanceTransformWithLabels(
        (~seen).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(label.max()) + 1, np.int64)
    source[label[seen]] = np.flatnonzero(seen)
    filled = interpolate(gain, faces, hits)[source[label]]
    fade = _FADE * max(height, width)
    return np.asarray(filled * smoothstep(away, fade, 0.25 * fade)[..., None], np.float64)


def without_light(
    scene: Scene, person: Person, light: RoomLight, strength: float
) -> tuple[Scene, Person]:
    """The same capture and person with ``strength`` (0..1) of the light taken out.

    Regions keep their labels; the person's skin colour and its spread are measured again.
    """
    if strength <= 0:
        return scene, person
    gain = light.at(person.mesh.vertices) * strength
    parts = {name: getattr(scene, name) for name in Scene.__dataclass_fields__}
    shown = DelitScene(**parts, caster=person.caster, faces=person.mesh.faces, gain=gain)
    lab = _delit_lab(person.observed.lab, gain)
    observed = replace(person.observed, lab=lab)
    normals = vertex_normals(person.mesh.vertices, person.mesh.faces) @ person.frame.rotation.T
    local = person.frame.to_face(person.mesh.vertices)
    face = person.frame.to_face(person.world)
    skin, spread = skin_statistics(local, normals, observed, face)
    regions = replace(person.regions, skin_lab=skin, skin_spread=spread)
    return shown, replace(person, observed=observed, regions=regions)


def _delit_lab(lab: Float32Array, gain: FloatArray) -> Float32Array:
    return to_lab(255.0 * remove_light(_srgb(lab), gain))


def linear_colors(lab: Float32Array) -> FloatArray:
    """Linear RGB ``(..., 3)`` of CIELAB."""
    return to_linear(_srgb(lab))


def _srgb(lab: Float32Array) -> FloatArray:
    flat = np.ascontiguousarray(lab, np.float32).reshape(-1, 1, 3)
    rgb = cv2.cvtColor(flat, cv2.COLOR_LAB2RGB).reshape(lab.shape)
    return np.clip(rgb.astype(np.float64), 0.0, 1.0)
