"""More maps in the atlas' layout: ambient occlusion and the regions (skin, hair, clothes)."""

# Warp compiles the kernels from their text; its Python stubs do not describe what they may use.
# mypy: disable-error-code="untyped-decorator,misc,attr-defined,index,no-any-return"
# mypy: disable-error-code="var-annotated,valid-type,operator,arg-type"

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import warp as wp
from scipy.spatial import cKDTree

from ..raycast import MeshQuery
from ..scene import ByteImage, Float32Array, FloatArray, LabelledPoints
from .bake import BAND_TEXELS, dilate
from .raster import rasterize
from .unseen import spread
from .uv import Atlas

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Ambient occlusion is smooth: it is traced at most this large and enlarged.
AO_SIZE = 1024
AO_RAYS = 64
# How far (unit space) something may be and still shade: about 8 cm on a head.
AO_REACH = 0.3
# Colours of the ID map, far apart so that compression and filters cannot mix them up.
REGION_COLORS = {"skin": (255, 0, 0), "hair": (0, 255, 0), "clothes": (0, 0, 255)}


@wp.kernel
def _openness(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    rays: int,
    reach: float,
    lift: float,
    out: wp.array(dtype=float),
) -> None:
    i = wp.tid()
    n = normals[i]
    side = wp.vec3(1.0, 0.0, 0.0)
    if wp.abs(n[0]) > 0.7:
        side = wp.vec3(0.0, 1.0, 0.0)
    t = wp.normalize(wp.cross(n, side))
    b = wp.cross(n, t)
    start = origins[i] + lift * n
    seed = wp.rand_init(1234, i)
    turn = wp.randf(seed)
    open_rays = float(0.0)  # noqa: UP018 (Warp: a variable, not a constant)
    for k in range(rays):
        # Cosine-weighted directions on a Fibonacci spiral, turned at random at every texel.
        r = wp.sqrt((float(k) + 0.5) / float(rays))
        angle = 6.28318530718 * (float(k) * 0.61803398875 + turn)
        d = r * wp.cos(angle) * t + r * wp.sin(angle) * b + wp.sqrt(wp.max(0.0, 1.0 - r * r)) * n
        query = wp.mesh_query_ray(mesh, start, d, reach)
        if query.result:
            near = query.t / reach
            open_rays += near * near
        else:
            open_rays += 1.0
    out[i] = open_rays / float(rays)


def ambient_occlusion(
    query: MeshQuery,
    vertices: FloatArray,
    normals: FloatArray,
    atlas: Atlas,
    size: int,
) -> ByteImage:
    """How open the surface is to all sides, gray ``(S, S)``: 255 free, 0 enclosed.

    What shades is the full-resolution surface; what is nearer shades more.

    Args:
        query: The full-resolution surface, unit space.
        vertices: ``(V, 3)`` of the mesh, unit space.
        normals: ``(V, 3)`` unit.
        atlas: Its atlas.
        size: Side of the map.
    """
    small = min(size, AO_SIZE)
    owner, weights = rasterize(atlas.uv, atlas.faces, small, small, device=query.device)
    covered = owner >= 0
    corners = atlas.source[atlas.faces[owner[covered]]]
    bary = weights[covered].astype(np.float64)
    place = np.einsum("nk,nkc->nc", bary, vertices[corners])
    normal = np.einsum("nk,nkc->nc", bary, normals[corners])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    # Start above the decimated mesh's own error.
    lift = float(np.percentile(query.closest(place[::17]).distance, 95)) + 1e-3
    values = _trace(query, place, normal, lift)
    image = np.zeros((small, small), np.float32)
    image[covered] = values
    image = _smoothed(image, covered)
    gray = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None]
    gray = dilate(gray, covered)[..., 0]
    if small < size:
        gray = np.asarray(
            cv2.resize(gray, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
        )
    return gray


def _trace(query: MeshQuery, place: FloatArray, normal: FloatArray, lift: float) -> Float32Array:
    out: Any = wp.zeros(len(place), dtype=float, device=query.device)
    inputs = [query.mesh_id, query.vectors(place - query.center), query.vectors(normal)]
    wp.launch(
        _openness,
        dim=len(place),
        inputs=[*inputs, AO_RAYS, AO_REACH, lift, out],
        device=query.device,
    )
    return np.asarray(out.numpy(), dtype=np.float32)


def _smoothed(image: Float32Array, covered: BoolArray) -> Float32Array:
    """A small Gaussian inside the charts against the rays' noise."""
    inside = covered.astype(np.float32)
    total = cv2.GaussianBlur(image * inside, (0, 0), 1.2)
    weight = cv2.GaussianBlur(inside, (0, 0), 1.2)
    return np.asarray(np.where(covered, total / np.maximum(weight, 1e-6), 0), dtype=np.float32)


def region_map(
    regions: LabelledPoints,
    places: FloatArray,
    faces: IntArray,
    unseen: BoolArray | None,
    atlas: Atlas,
    size: int,
) -> tuple[ByteImage, dict[str, Any]]:
    """The regions as an ID map RGB ``(S, S, 3)`` of pure colours, and its legend.

    Args:
        regions: Labelled points of the real person.
        places: ``(V, 3)`` where each mesh vertex lies on the real person, world metres.
        faces: ``(F, 3)`` of the mesh.
        unseen: Vertices ``(V,)`` that no frame shows; they belong to what surrounds them.
        atlas: The mesh's atlas.
        size: Side of the map.

    Returns:
        The map, and per region ``color`` (hex) and ``percent`` of the chart texels.
    """
    _, nearest = cKDTree(regions.points).query(places, k=4)
    labels = regions.labels[nearest].mean(axis=1).astype(np.float64)
    if unseen is not None:
        labels = spread(faces, unseen, labels)
    palette = np.array([REGION_COLORS[name] for name in regions.names], dtype=np.uint8)
    image = np.zeros((size, size, 3), dtype=np.uint8)
    covered = np.zeros((size, size), dtype=bool)
    share = np.zeros(len(palette))
    rows = max(1, BAND_TEXELS // size)
    for start in range(0, size, rows):  # a whole 8k map at once would take gigabytes
        height = min(rows, size - start)
        owner, weights = rasterize(atlas.uv, atlas.faces, size, size, start, height)
        inside = owner >= 0
        corners = atlas.source[atlas.faces[owner[inside]]]
        number = np.einsum("nk,nkc->nc", weights[inside], labels[corners]).argmax(axis=1)
        covered[start : start + height] = inside
        image[start : start + height][inside] = palette[number]
        share += np.bincount(number, minlength=len(palette))
    share /= max(float(share.sum()), 1.0)
    legend = {
        name: {
            "color": "#{:02x}{:02x}{:02x}".format(*REGION_COLORS[name]),
            "percent": round(100.0 * float(part), 2),
        }
        for name, part in zip(regions.names, share, strict=True)
    }
    return dilate(image, covered), legend
