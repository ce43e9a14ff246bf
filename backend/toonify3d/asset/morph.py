"""Both faces in one mesh: every stylized vertex knows its place on the real person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..raycast import MeshQuery
from ..scene import FloatArray, Normalization, Scene, SurfaceMesh
from .follow import POSITIONS, Person, fit_person, flipped_faces, sampled
from .levelset import ClippedField, Field

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# The name of the morph target (GLB) and of the shape key (Blender): 0 is the style, 1 the person.
PHOTOREAL = "Photoreal"
# Unit space round the cut's plane in which vertices may belong to it (its edge is chamfered by a
# cell of the level set), and how deep inside the field these lie at least.
PLANE_REACH, SURFACE_SLACK = 0.02, 1e-3
# Metres by which faces of the cut may be off its height.
LEVEL = 1e-5
# Metres round the cut in which the way to the person is looked at.
NEAR_CUT = 0.015


@dataclass(frozen=True)
class Bottom:
    """The flat cut under the bust, which belongs to no surface of the real person.

    Attributes:
        height: World metres.
        inner: Vertices ``(V,)`` of the cut that do not lie on the field's own surface.
    """

    height: float
    inner: BoolArray

    @classmethod
    def of(
        cls, field: ClippedField, vertices: FloatArray, normalization: Normalization
    ) -> Bottom | None:
        """The cut of a mesh's vertices ``(V, 3)`` in unit space; None without one."""
        inner = np.abs(vertices[:, 2] - field.crop_z) < PLANE_REACH
        if not inner.any():
            return None
        with torch.no_grad():
            points = torch.as_tensor(vertices[inner], dtype=torch.float32)
            depth = field.field.sdf(points.to(field.field.device)).cpu().numpy().reshape(-1)
        inner[inner] = depth < -SURFACE_SLACK
        height = field.height(normalization)
        return cls(height, inner) if height is not None and inner.any() else None

    def faces(self, vertices: FloatArray, faces: IntArray) -> BoolArray:
        """Faces ``(F,)`` of the cut: those with an inner vertex, or with all three at its height.

        ``vertices (V, 3)`` in world metres, slider at the style.
        """
        level = np.abs(vertices[:, 2] - self.height) < LEVEL
        return np.asarray(self.inner[faces].any(axis=1) | level[faces].all(axis=1))


def on_the_person(
    avatar: Field,
    vertices: FloatArray,
    normalization: Normalization,
) -> FloatArray | None:
    """Where each vertex ``(V, 3)`` (unit space) lies on the real person, in the world.

    Only a field that knows the way back (stage II's deformation) can say; None otherwise.
    """
    to_prior = getattr(avatar, "to_prior", None)
    if to_prior is None:
        return None
    with torch.no_grad():
        points = torch.as_tensor(vertices, dtype=torch.float32, device=avatar.device)
        return normalization.to_world(to_prior(points).cpu().numpy().astype(np.float64))


def person_of(
    avatar: Field, prior_mesh: SurfaceMesh, normalization: Normalization
) -> Person | None:
    """What the mesh has to follow besides the style; None when the field does not know the way.

    Args:
        avatar: The stylized field.
        prior_mesh: The real person's surface, world metres.
        normalization: To unit space.
    """
    if getattr(avatar, "to_prior", None) is None:
        return None

    def way(vertices: FloatArray) -> FloatArray:
        person = on_the_person(avatar, vertices, normalization)
        assert person is not None
        return normalization.to_unit(person)

    return Person.of(prior_mesh, normalization, way)


def persons_end(
    person: Person,
    vertices: FloatArray,
    faces: IntArray,
    bottom: Bottom | None,
    normalization: Normalization,
) -> FloatArray:
    """The slider's other end ``(V, 3)`` in world metres, fitted to the person's surface.

    Args:
        person: Their surface.
        vertices: ``(V, 3)`` of the finished mesh, unit space.
        faces: ``(F, 3)``.
        bottom: Its flat cut, which is not fitted.
        normalization: To world metres.
    """
    wall = np.ones(len(faces), dtype=bool)
    if bottom is not None:
        wall = ~bottom.faces(normalization.to_world(vertices), faces)
    fitted = fit_person(vertices, person.way(vertices), faces, wall, person)
    return normalization.to_world(fitted)


def above_the_persons_cut(
    avatar: Field, prior_mesh: SurfaceMesh, scene: Scene, bottom: float | None
) -> float | None:
    """The height of the style's cut at which the slider stays above the person's own cut.

    Where the style's shape lies higher than the person's, the rim of a cut at the same height goes
    below the person's surface, to where there is none.

    Args:
        avatar: Knows the way back, or there is nothing to do.
        prior_mesh: The person, world metres.
        scene: The capture, with the height of the person's cut.
        bottom: Wanted height of the style's cut, world metres; None for the scene's.
    """
    height = scene.crop_z if bottom is None else max(bottom, scene.crop_z)
    lowest = float(prior_mesh.vertices[:, 2].min())
    near = prior_mesh.vertices[np.abs(prior_mesh.vertices[:, 2] - height) < NEAR_CUT]
    if not np.isfinite(scene.crop_z) or not len(near):
        return bottom
    person = on_the_person(avatar, scene.normalization.to_unit(near), scene.normalization)
    if person is None:
        return bottom
    deepest = float((person[:, 2] - near[:, 2]).min())
    return max(height, min(lowest - deepest, height + NEAR_CUT))


def morph_figures(
    style: FloatArray,
    person: FloatArray,
    faces: IntArray,
    prior: SurfaceMesh,
    bottom: Bottom | None = None,
) -> dict[str, Any]:
    """How good the slider is: the person's end against the prior's surface, and its way there.

    Args:
        style: ``(V, 3)`` world metres, slider at 0.
        person: ``(V, 3)``, slider at 1.
        faces: ``(F, 3)``.
        prior: The real person's surface.
        bottom: The flat cut, if the mesh has one; it is left out of the distances.

    Returns:
        ``surface_median, surface_p95, surface_max``: distance of 13 places of every face
        (:data:`.follow.SAMPLES`) to the prior's surface in percent of the diagonal of its bounding
        box; ``flipped_faces`` on the way, looked at in ``positions`` places; ``travel_max`` in
        percent.
    """
    diagonal = float(np.linalg.norm(np.ptp(prior.vertices, axis=0)))
    wall = faces if bottom is None else faces[~bottom.faces(style, faces)]
    points = sampled(person, wall).reshape(-1, 3)
    distance = 100.0 * MeshQuery(prior.vertices, prior.faces).closest(points).distance / diagonal
    return {
        "surface_median": float(np.median(distance)),
        "surface_p95": float(np.percentile(distance, 95)),
        "surface_max": float(distance.max()),
        "flipped_faces": int(flipped_faces(style, person, faces).sum()),
        "positions": POSITIONS,
        "travel_max": 100.0 * float(np.linalg.norm(person - style, axis=1).max()) / diagonal,
    }
