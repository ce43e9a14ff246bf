"""A small renderer for previews and turntables that needs neither display nor GPU driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..raycast import Hits, MeshQuery, interpolate
from ..scene import ByteImage, Camera, Float32Array, FloatArray, SurfaceMesh
from .mesh import vertex_normals

IntArray = npt.NDArray[np.int64]
BACKGROUND = (232, 234, 238)
CLAY = (0.80, 0.76, 0.72)
# Directions towards the lights in the camera's axes (x right, y down, z forward), and strengths.
LIGHTS = (((-0.5, -0.6, -0.6), 0.55), ((0.7, -0.2, -0.5), 0.25), ((0.1, -0.5, 0.9), 0.15))
AMBIENT = 0.45
# Of the studio: a surface that faces the camera is about as bright as its colour.
EXPOSURE = 1.12
SHADINGS = ("flat", "soft", "clay", "normal")


@dataclass
class Renderable:
    """A mesh with its colours, prepared for ray casting.

    Attributes:
        mesh: In world metres.
        texture: sRGB ``(S, S, 3)``, or None for the mesh's vertex colours (or clay).
        uv: ``(N, 2)`` per atlas vertex; with ``texture``.
        uv_faces: ``(F, 3)`` atlas vertices; with ``texture``.
        device: Warp device.
        occlusion: Share of the sky that each vertex sees ``(V,)``, for ``studio``; or None.
    """

    mesh: SurfaceMesh
    texture: ByteImage | None = None
    uv: FloatArray | None = None
    uv_faces: IntArray | None = None
    device: str = "cpu"
    occlusion: FloatArray | None = None
    query: MeshQuery = field(init=False)
    normals: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Build the search tree."""
        self.query = MeshQuery(self.mesh.vertices, self.mesh.faces, self.device)
        self.normals = vertex_normals(self.mesh.vertices, self.mesh.faces)

    def colors(self, hits: Hits) -> FloatArray:
        """sRGB colours ``(N, 3)`` in 0..1 at hits."""
        if self.texture is not None and self.uv is not None and self.uv_faces is not None:
            place = interpolate(self.uv, self.uv_faces, hits)
            return sample_texture(self.texture, place)
        if self.mesh.colors is not None:
            return interpolate(self.mesh.colors / 255.0, self.mesh.faces, hits)
        return np.broadcast_to(np.array(CLAY), (len(hits.face), 3)).copy()


@dataclass(frozen=True)
class Buffers:
    """What each pixel of a view sees.

    Attributes:
        face: Triangle ``(H, W)`` or -1.
        weights: Barycentric coordinates ``(H, W, 3)``.
        depth: Along the camera's z ``(H, W)`` in metres, 0 where nothing is seen.
        normals: Smooth unit normals in the world ``(H, W, 3)``.
    """

    face: IntArray
    weights: FloatArray
    depth: Float32Array
    normals: FloatArray


def render_buffers(item: Renderable, camera: Camera) -> Buffers:
    """Cast one ray through every pixel centre."""
    hits, directions = _cast(item, camera)
    shape = (camera.height, camera.width)
    seen = hits.face >= 0
    forward = camera.c2w[:3, 2]
    depth = np.where(seen, hits.distance * (directions @ forward), 0.0)
    normals = _unit(interpolate(item.normals, item.mesh.faces, hits)) * seen[:, None]
    return Buffers(
        face=hits.face.reshape(shape),
        weights=hits.weights.reshape(*shape, 3),
        depth=depth.astype(np.float32).reshape(shape),
        normals=normals.reshape(*shape, 3),
    )


def render_view(
    item: Renderable,
    camera: Camera,
    shading: str = "soft",
    antialias: int = 2,
    background: tuple[int, int, int] = BACKGROUND,
) -> tuple[ByteImage, ByteImage]:
    """Render a view.

    Args:
        item: Mesh and texture.
        camera: Any pin-hole camera.
        shading: ``flat`` (the albedo as it is), ``soft`` (lit), ``clay`` (lit, uncoloured) or
            ``normal`` (camera-space normals as colours).
        antialias: Rays per pixel along each side.
        background: RGB behind the mesh.

    Returns:
        RGB ``(H, W, 3)`` and coverage ``(H, W)`` in 0..255.

    Raises:
        ValueError: Unknown shading.
    """
    if shading not in SHADINGS:
        raise ValueError(f"unknown shading {shading!r}")

    picture = render_strips(camera, antialias, lambda fine: strip_of_mesh(item, fine, shading))
    return over_background(picture, background)


def strip_of_mesh(item: Renderable, camera: Camera, shading: str) -> FloatArray:
    """Colour over black and coverage ``(H * W, 4)``, one ray per pixel of ``camera``."""
    hits, _ = _cast(item, camera)
    seen = hits.face >= 0
    out = np.zeros((len(seen), 4))
    picked = Hits(hits.face[seen], hits.distance[seen], hits.weights[seen])
    out[seen, :3] = _shade(item, picked, camera, shading)
    out[seen, 3] = 1.0
    return out


def over_background(
    picture: FloatArray, background: tuple[int, int, int]
) -> tuple[ByteImage, ByteImage]:
    """RGB ``(H, W, 3)`` on a background and coverage ``(H, W)``, from ``(H, W, 4)`` over black."""
    image = picture[..., :3] + (1 - picture[..., 3:]) * (np.array(background) / 255.0)
    return (
        np.round(np.clip(image, 0, 1) * 255).astype(np.uint8),
        np.round(np.clip(picture[..., 3], 0, 1) * 255).astype(np.uint8),
    )


def render_strips(
    camera: Camera,
    antialias: int,
    render: Callable[[Camera], FloatArray],
    margin: int = 0,
    rays: int = 1 << 20,
) -> FloatArray:
    """A picture made of strips of rows, so that memory does not grow with its size.

    Args:
        camera: Of the whole picture.
        antialias: Rays per pixel along each side.
        render: Gets the camera of a strip with ``antialias`` times as many pixels along each side
            and returns colour over black and coverage ``(N, 4)`` in 0..1 of its pixels.
        margin: Rows above and below that a strip needs to see but does not answer for.
        rays: Most rays of a strip, about.

    Returns:
        ``(H, W, 4)``: colour over black and coverage in 0..1.
    """
    rows = max(1, rays // (camera.width * antialias**2))
    parts = []
    for top in range(0, camera.height, rows):
        bottom = min(camera.height, top + rows)
        first, last = max(0, top - margin), min(camera.height, bottom + margin)
        K = camera.K.copy()
        K[1, 2] -= first
        part = Camera(K, camera.c2w, camera.width, last - first)
        fine = part.resized(part.width * antialias, part.height * antialias)
        shape = (part.height, antialias, part.width, antialias, 4)
        picture = render(fine).reshape(shape).mean(axis=(1, 3))
        parts.append(picture[top - first : bottom - first])
    return np.concatenate(parts)


def orbit_camera(
    center: FloatArray,
    distance: float,
    azimuth: float,
    elevation: float = 0.0,
    width: int = 512,
    height: int = 640,
    fov: float = 0.42,
) -> Camera:
    """A camera on a circle round ``center``, looking at it.

    Args:
        center: ``(3,)`` metres.
        distance: Metres from it.
        azimuth: Radians; 0 in front of the face (-Y), positive towards the person's left (+X).
        elevation: Radians above the horizon.
        width: Pixels.
        height: Pixels.
        fov: Vertical field of view in radians.
    """
    horizontal = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    outward = np.cos(elevation) * horizontal + np.sin(elevation) * np.array([0.0, 0.0, 1.0])
    forward = -outward
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2] = right, np.cross(forward, right), forward
    c2w[:3, 3] = center + distance * outward
    focal = height / 2 / np.tan(fov / 2)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera(K, c2w, width, height)


def turntable(
    mesh: SurfaceMesh,
    azimuths: list[float],
    width: int,
    height: int,
    elevation: float = 0.05,
    whole: bool = True,
) -> list[Camera]:
    """Cameras round the mesh at one distance.

    Args:
        mesh: What they look at.
        azimuths: See :func:`orbit_camera`.
        width: Pixels.
        height: Pixels.
        elevation: Radians.
        whole: Show all of it; otherwise like a portrait: the head fills the height and the
            shoulders may run out of the picture at the sides.
    """
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    center = (low + high) / 2
    fov = 0.42
    around = np.linalg.norm((mesh.vertices - center)[:, :2], axis=1).max()
    tall = (high[2] - low[2]) / 2
    wide = np.tan(fov / 2) * width / height
    distance = tall / np.tan(fov / 2) * 1.12
    if whole:
        distance = max(distance, around / wide * 1.06) + around * 0.6
    return [
        orbit_camera(center, distance, azimuth, elevation, width, height, fov)
        for azimuth in azimuths
    ]


def sample_texture(texture: ByteImage, uv: FloatArray) -> FloatArray:
    """Bilinear lookup of ``(N, 2)`` UV (origin lower left), ``(N, 3)`` in 0..1."""
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    bottom = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    return np.asarray((top * (1 - fy) + bottom * fy) / 255.0)


def _cast(item: Renderable, camera: Camera) -> tuple[Hits, FloatArray]:
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, directions = camera.rays(np.stack([x, y], axis=-1).reshape(-1, 2))
    return item.query.cast(origins, directions), directions


def _shade(item: Renderable, hits: Hits, camera: Camera, shading: str) -> FloatArray:
    if shading == "flat":
        return item.colors(hits)
    normals = interpolate(item.normals, item.mesh.faces, hits) @ camera.c2w[:3, :3]
    albedo = None if shading in ("clay", "normal") else item.colors(hits)
    if shading != "studio" or albedo is None:
        return shade(albedo, normals, shading)
    open_ = np.ones(len(normals))
    if item.occlusion is not None:
        open_ = interpolate(item.occlusion[:, None], item.mesh.faces, hits)[:, 0]
    return studio_light(albedo, normals, open_)


def studio_light(albedo: FloatArray, normals: FloatArray, open_: FloatArray) -> FloatArray:
    """Colours ``(N, 3)`` as a studio shows them: a large key, a dome, a rim; nothing burns out.

    Args:
        albedo: sRGB ``(N, 3)`` in 0..1.
        normals: ``(N, 3)`` in the camera's axes, any length.
        open_: Share of the dome that is seen ``(N,)``.
    """
    normals = _unit(normals)
    key = np.array([-0.55, -0.62, -0.56])
    wrap = np.clip((normals @ key + 0.35) / 1.35, 0.0, 1.0)
    dome = 0.5 - 0.5 * normals[:, 1]
    light = open_ * (0.46 + 0.24 * dome) + (0.35 + 0.65 * open_) * 0.58 * wrap
    rim = np.clip(1.0 + normals[:, 2], 0.0, 1.0) ** 4 * np.clip(0.4 - normals[:, 1], 0.0, 1.0)
    linear = (
        np.clip(albedo, 0, 1) ** 2.2 * light[:, None] * EXPOSURE + (0.10 * rim * open_)[:, None]
    )
    # A soft shoulder instead of clipping: bright skin keeps its hue.
    linear = np.where(linear > 0.8, 0.8 + 0.2 * np.tanh((linear - 0.8) / 0.2), linear)
    return np.asarray(np.clip(linear, 0, 1) ** (1 / 2.2))


def shade(albedo: FloatArray | None, normals: FloatArray, shading: str) -> FloatArray:
    """Colours ``(N, 3)`` in 0..1 of surface points under the lights that hang on the camera.

    Args:
        albedo: sRGB ``(N, 3)`` in 0..1; not needed for ``clay`` and ``normal``.
        normals: ``(N, 3)`` in the camera's axes (x right, y down, z forward), any length.
        shading: One of :data:`SHADINGS`.
    """
    if shading == "flat" and albedo is not None:
        return albedo
    normals = _unit(normals)
    if shading == "normal":
        return np.asarray(normals * [0.5, -0.5, -0.5] + 0.5)
    if shading == "clay" or albedo is None:
        albedo = np.broadcast_to(np.array(CLAY), normals.shape)
    light = np.full(len(normals), AMBIENT)
    for direction, strength in LIGHTS:
        toward = np.array(direction) / np.linalg.norm(direction)
        # Half-Lambert: soft, without a hard terminator.
        light += strength * (0.5 + 0.5 * np.clip(normals @ toward, -1, 1)) ** 2
    linear = np.clip(albedo, 0, 1) ** 2.2 * light[:, None] * 1.15
    return np.asarray(np.clip(linear, 0, 1) ** (1 / 2.2))


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
