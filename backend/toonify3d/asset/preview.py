"""The picture of the result: photo and exemplar beside four views of the stylized head."""

from __future__ import annotations

import cv2
import numpy as np

from ..scene import ByteImage, Camera, Float32Array, FloatArray, Frame, Scene, SurfaceMesh
from .render import Renderable, orbit_camera, over_background, render_strips, strip_of_mesh

# Front, three-quarter, side, back.
AZIMUTHS = (0.0, 0.7, np.pi / 2, np.pi)
ELEVATION, FOV = 0.06, 0.30
# What a picture shows of a bust, in metres from the top of the head down; never its lower rim.
SHOWN, MARGIN, RIM = 0.37, 0.035, 0.88
PAPER = (246, 246, 248)
# Of the cards behind the views: middle and corner colour.
LIGHT, DARK = (238, 239, 242), (205, 209, 217)
RAYS = 48


def preview_sheet(
    item: Renderable, scene: Scene, exemplar: ByteImage, tile: int = 480
) -> ByteImage:
    """Photo over exemplar on the left; right, the lit textured head from four sides.

    Args:
        item: The textured avatar.
        scene: Gives the photo taken nearest to the front.
        exemplar: RGB.
        tile: Half of the height of the picture in pixels is four thirds of this.
    """
    side, gap = tile * 4 // 3, max(4, tile // 30)
    item.occlusion = vertex_occlusion(item)
    cards = [_view_card(item, camera, side) for camera in bust_cameras(item.mesh, side)]
    taken = _photo_of_head(scene, item.mesh, side)
    photo = _card(side) if taken is None else taken
    columns = [[photo, fit_card(exemplar, side)], [cards[0], cards[2]], [cards[1], cards[3]]]
    height, width = 2 * side + 3 * gap, 3 * side + 4 * gap
    sheet = np.empty((height, width, 3), dtype=np.uint8)
    sheet[:] = PAPER
    corner = _rounded(side, max(4, tile // 20))[..., None]
    for c, column in enumerate(columns):
        for r, card in enumerate(column):
            y, x = gap + r * (side + gap), gap + c * (side + gap)
            blend = card * corner + (1.0 - corner) * np.array(PAPER)
            sheet[y : y + side, x : x + side] = np.round(blend).astype(np.uint8)
    return sheet


def bust_cameras(mesh: SurfaceMesh, side: int) -> list[Camera]:
    """Square cameras that show the head and the shoulders' upper part, from :data:`AZIMUTHS`."""
    top, tall = mesh.vertices[:, 2].max(), float(np.ptp(mesh.vertices[:, 2]))
    shown = min(SHOWN, RIM * tall)
    head = mesh.vertices[mesh.vertices[:, 2] > top - 0.6 * shown]
    middle = (head.min(axis=0) + head.max(axis=0)) / 2
    margin = MARGIN * shown / SHOWN
    center = np.array([middle[0], middle[1], top + margin - (shown + margin) / 2])
    distance = (shown + margin) / 2 / np.tan(FOV / 2)
    return [
        orbit_camera(center, distance, azimuth, ELEVATION, side, side, FOV) for azimuth in AZIMUTHS
    ]


def vertex_occlusion(item: Renderable, rays: int = RAYS) -> FloatArray:
    """Share of the sky ``(V,)`` that each vertex sees, cosine weighted, within a head's width."""
    vertices, normals = item.mesh.vertices, item.normals
    random = np.random.default_rng(0)
    reach = 0.35 * float(np.ptp(vertices[:, 2]))
    origins = vertices + 0.002 * reach * normals
    open_ = np.zeros(len(vertices))
    for k in range(rays):  # one direction at a time: memory stays that of the mesh
        height = (k + 0.5) / rays
        angle = 2.399963 * k + random.uniform(0, 2 * np.pi, len(vertices))
        # Points of a unit ball that touches the surface: directions weighted by the cosine.
        z = 1.0 - 2.0 * height
        flat = np.sqrt(1.0 - z * z)
        ball = np.stack([flat * np.cos(angle), flat * np.sin(angle), np.full_like(angle, z)], 1)
        toward = normals + 0.999 * ball
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        hits = item.query.cast(origins, toward, reach)
        # Near things take more light than far ones.
        open_ += np.where(hits.face >= 0, np.minimum(hits.distance / reach, 1.0) ** 0.5, 1.0)
    return np.asarray(open_ / rays)


def _view_card(item: Renderable, camera: Camera, side: int) -> ByteImage:
    picture = render_strips(camera, 2, lambda fine: strip_of_mesh(item, fine, "studio"))
    image, alpha = over_background(picture, (0, 0, 0))
    share = alpha[..., None] / 255.0
    return np.asarray(np.round(image + (1 - share) * _card(side)), dtype=np.uint8)


def _card(side: int) -> ByteImage:
    """The background behind a view: brightest behind the head, darker towards the corners."""
    y, x = np.mgrid[0:side, 0:side] / side
    far = np.clip(np.hypot(x - 0.5, y - 0.42) / 0.78, 0.0, 1.0)[..., None] ** 1.6
    color = (1 - far) * np.array(LIGHT) + far * np.array(DARK)
    return np.asarray(np.round(color), dtype=np.uint8)


def _rounded(side: int, radius: int) -> Float32Array:
    """Coverage ``(side, side)`` of a square with round corners."""
    low, high = radius - 0.5, side - 0.5 - radius
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    far = np.hypot(x - np.clip(x, low, high), y - np.clip(y, low, high))
    return np.asarray(np.clip(radius + 0.5 - far, 0.0, 1.0), dtype=np.float32)


# -- photo and exemplar -----------------------------------------------------------------------


def front_photo(scene: Scene) -> ByteImage | None:
    """The photo taken nearest to the front, or None when there is none."""
    found = _front(scene)
    return None if found is None else found[1]


def _front(scene: Scene) -> tuple[Frame, ByteImage] | None:
    if not scene.frames:
        return None
    frame = min(scene.frames, key=lambda item: abs(item.yaw))
    try:
        return frame, scene.image(frame)
    except FileNotFoundError:
        return None


def _photo_of_head(scene: Scene, mesh: SurfaceMesh, side: int) -> ByteImage | None:
    """The front photo cut to what the views show."""
    found = _front(scene)
    if found is None:
        return None
    frame, image = found
    seen = bust_cameras(mesh, side)[0]
    center = seen.center + seen.c2w[:3, 2] * np.linalg.norm(mesh.vertices.mean(0) - seen.center)
    half = side / 2 / seen.K[0, 0] * np.linalg.norm(center - seen.center)
    ends = center + np.array([[0, 0, half], [0, 0, -half]])
    points, depth = frame.camera.resized(image.shape[1], image.shape[0]).project(ends)
    if (depth <= 0).any():
        return fit(image, side, side)
    middle, reach = points.mean(axis=0), float(np.linalg.norm(points[0] - points[1])) / 2
    reach = min(reach, min(image.shape[:2]) / 2)
    middle = np.clip(middle, reach, np.array(image.shape[1::-1]) - reach)
    x, y = np.round(middle - reach).astype(int)
    size = max(1, round(2 * reach))
    return fit(np.ascontiguousarray(image[max(y, 0) : y + size, max(x, 0) : x + size]), side, side)


def fit_card(image: ByteImage, side: int) -> ByteImage:
    """All of a picture in a square, on the colour of its own border."""
    h, w = image.shape[:2]
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    scale = side / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(image, size, interpolation=mode)
    card = np.empty((side, side, 3), dtype=np.uint8)
    card[:] = np.median(border, axis=0).astype(np.uint8)
    x, y = (side - size[0]) // 2, (side - size[1]) // 2
    card[y : y + size[1], x : x + size[0]] = scaled
    return card


def fit(image: ByteImage, width: int, height: int) -> ByteImage:
    """Scale and crop the middle so that ``image`` fills ``width`` x ``height``."""
    h, w = image.shape[:2]
    scale = max(width / w, height / h)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, size, interpolation=mode), dtype=np.uint8)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[y : y + height, x : x + width]
