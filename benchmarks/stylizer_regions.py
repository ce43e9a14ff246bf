"""Region maps of exemplars and of frames, for :mod:`stylizer_style`.

The person's regions are those decided in 3D, seen through the surface that the picture shows. The
exemplar's are what the stylizer itself finds, with lines on a white face given back to the face and
everything that is neither sure skin nor sure hair above the chin (a drawn ear) left out.
Both end a little below the chin but for hair and clothes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from stylizer_style import (
    BROWS,
    CLOTHES,
    EYES,
    HAIR,
    LIPS,
    NOBODY,
    OTHER,
    SKIN,
    ByteArray,
    FloatArray,
    Portrait,
)

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.exemplar import Exemplar, person_mask
from toonify3d.portrait2d.exemplarmasks import face_outline, like_wall, polygon
from toonify3d.portrait2d.framewarp import BentSurface, warp_frame
from toonify3d.portrait2d.outline import opened
from toonify3d.portrait2d.pipeline import Person
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Camera

BELOW_CHIN = 0.1
"""Face widths below the chin at which skin ends, and it is no wider than the face there: exemplars
show more or less of neck and shoulders."""
CLOTHES_BELOW = 0.15
LINE = 0.02
"""Half the width (face widths) of what counts as a line and not as hair."""
GROWN = {EYES: 0.025, BROWS: 0.02, LIPS: 0.02}
_PARTS = {
    BROWS: (lm.LEFT_BROW, lm.RIGHT_BROW),
    EYES: (lm.LEFT_EYE, lm.RIGHT_EYE),
    LIPS: (lm.LIPS_OUTER,),
}


def exemplar_portrait(style: Exemplar) -> Portrait:
    """The exemplar at the common face width."""
    image, points, unit = style.image, style.points, style.face_width
    person, face = exemplar_person(style), _face(image.shape, points)
    labels = style.labels
    hair = opened(((labels[..., 1] > 0.5) & person).astype(np.uint8), LINE * unit) > 0
    skin = (labels[..., 0] > 0.5) | (face & ~hair)
    worn = (labels[..., 2] > 0.5) & ~face & ~like_wall(to_lab(image), person)
    return Portrait(image, _region_map(person, skin, hair, worn, points, unit)).at_width(unit)


def exemplar_person(style: Exemplar) -> npt.NDArray[np.bool_]:
    """Where ``(H, W)`` the person is: a white face on white paper is no background."""
    return person_mask(style.image, None, style.points) | _face(style.image.shape, style.points)


def frame_portrait(
    person: Person, camera: Camera, image: ByteArray, mask: ByteArray, moved: FloatArray | None
) -> Portrait:
    """A frame at the common face width.

    Args:
        person: Whose surface it shows.
        camera: From where.
        image: Photo or stylized picture.
        mask: Of the person in it.
        moved: ``(V, 3)`` offsets of the surface, then ``(478, 3)`` of the landmarks; None for a
            photo.
    """
    mesh, regions = person.mesh, person.regions
    bent, world, caster = mesh.vertices, person.world, person.caster
    if moved is not None:
        bent, world = bent + moved[: len(bent)], world + moved[len(bent) :]
        caster = MeshQuery(bent, mesh.faces)
    labels = np.stack([regions.skin, regions.hair, regions.clothes, regions.beard], 1)
    surface = BentSurface(mesh, bent, person.caster, caster, labels.astype(np.float32), False)
    seen = warp_frame(surface, camera, image, mask).attributes
    winner = seen[..., :3].argmax(2)
    points = camera.project(world)[0]
    unit = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    hair = (winner == 1) | ((winner == 0) & (seen[..., 3] > 0.5))
    codes = _region_map(mask > 200, (winner == 0) & ~hair, hair, winner == 2, points, unit)
    return Portrait(image, codes).at_width(unit)


def _region_map(
    person: npt.NDArray[np.bool_],
    skin: npt.NDArray[np.bool_],
    hair: npt.NDArray[np.bool_],
    worn: npt.NDArray[np.bool_],
    points: FloatArray,
    unit: float,
) -> ByteArray:
    rows, columns = np.arange(person.shape[0])[:, None], np.arange(person.shape[1])
    chin, sides = points[lm.CHIN, 1], points[list(lm.FACE_OVAL), 0]
    throat = (columns > sides.min()) & (columns < sides.max()) & (rows < chin + BELOW_CHIN * unit)
    out = np.full(person.shape, OTHER, np.uint8)
    out[worn & (rows > chin + CLOTHES_BELOW * unit)] = CLOTHES
    out[skin & ((rows < chin) | throat)] = SKIN
    out[hair] = HAIR
    fringe = hair & ~_face(person.shape, points)
    for organ, contours in _PARTS.items():
        for contour in contours:
            inside = polygon(person.shape, points[list(contour), :2], GROWN[organ] * unit)
            out[(inside > 0) & ~fringe] = organ
    out[~person] = NOBODY
    return out


def _face(shape: tuple[int, ...], points: FloatArray) -> npt.NDArray[np.bool_]:
    return polygon(shape, face_outline(points), 0.0) > 0
