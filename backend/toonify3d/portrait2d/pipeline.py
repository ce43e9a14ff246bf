"""From a scene, its prior surface and one exemplar to the stylized portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..calm_colors import save_calm_colors
from ..capture import landmarks as lm
from ..errors import InputError
from ..progress import Progress, SubProgress
from ..raycast import MeshQuery
from ..room_light import RoomLight
from ..scene import (
    Displacement,
    Float32Array,
    FloatArray,
    Frame,
    Scene,
    StylizedView,
    SurfaceMesh,
    angle_apart,
)
from . import shape
from .calm_person import calm_person
from .celtones import calm_colours, form_shadow
from .clicks import mean_face
from .delight import delight_strength, even_layer, without_light
from .exemplar import Exemplar, load_exemplar
from .exemplarkind import LOOKS, choose_look
from .facelayer import FaceLayer, blank_layer, build_layer
from .field import Controls, DisplacementField, fit_field
from .finish import finish
from .framewarp import BentSurface, warp_frame
from .inklines import ink_strokes
from .look import Look, make_look, paint
from .person_face import locate_face
from .regions import Regions, classify
from .settings import StylizeSettings
from .store import StylizedSet, palette_strip, save_displacement, save_palette, save_view
from .strokeframes import STROKED, lay_on_frames, marks_on_frames
from .surface import Observations, densify, is_closed, observe, vertex_normals
from .tones import make_tones

_OBSERVED_FRAMES, _CREASE_FRAMES = 20, 16
_NEAR_SIDE = 0.3
"""Radians from where a side frame is wanted within which one is taken."""
_EDGE = 0.003
"""Metres: labels are stored at vertices, so the mesh must be about as fine as the pixels."""


@dataclass(frozen=True)
class ShapeChange:
    """The shape half of a stylization.

    Attributes:
        frame: Face frame of the person.
        landmarks: ``(478, 3)`` of the person, face frame.
        targets: ``(478, 3)`` after the change, face frame.
        field: The displacement.
        yaw: Head turn of the exemplar that was removed.
        kept: Share of the requested change that could be done without folds.
        notes: Sentences about parts that the exemplar asks too much of.
    """

    frame: shape.FaceFrame
    landmarks: FloatArray
    targets: FloatArray
    field: DisplacementField
    yaw: float
    kept: float
    notes: tuple[str, ...] = ()


def select_frames(scene: Scene, settings: StylizeSettings, progress: Progress) -> list[Frame]:
    """Frames within ``max_yaw`` of front and of back, in source order.

    Warns when an end has fewer than ``min_frames`` and takes the nearest ones instead.
    """
    chosen: list[Frame] = []
    for name, offset in (("front", 0.0), ("back", np.pi)):
        ranked = sorted(scene.frames, key=lambda f: angle_apart(f.yaw, offset))
        near = [f for f in ranked if angle_apart(f.yaw, offset) < settings.max_yaw]
        if len(near) < settings.min_frames:
            ranked = [f for f in ranked if angle_apart(f.yaw, offset) < 0.6]
            if len(ranked) > len(near):
                progress.warn(
                    f"Only {len(near)} frames look at the {name} of the head; "
                    f"{min(len(ranked), settings.min_frames)} near ones are stylized."
                )
            elif len(near) == 0:
                progress.warn(f"No frame looks at the {name} of the head; it is not stylized.")
            near = ranked[: settings.min_frames]
        limit = (settings.max_frames + 1) // 2 if name == "front" else settings.max_frames // 2
        near = sorted(near, key=lambda f: f.yaw % (2 * np.pi) if offset else f.yaw)
        chosen += [near[i] for i in _even(len(near), limit)]
    unique = {frame.name: frame for frame in chosen}
    return sorted(unique.values(), key=lambda f: f.source_index)


def with_sides(scene: Scene, chosen: list[Frame], count: int) -> list[Frame]:
    """``chosen`` and up to ``count`` frames more, evenly spread between front and back.

    A place without a frame nearby stays empty. In source order.
    """
    each = -(-count // 2)
    steps = [np.pi * (i + 1) / (each + 1) for i in range(each)]
    wanted = [side * yaw for yaw in steps for side in (1.0, -1.0)][:count]
    names = {frame.name for frame in chosen}
    free = [frame for frame in scene.frames if frame.name not in names]
    sides: dict[str, Frame] = {}
    for yaw in wanted:
        nearest = min(free, key=lambda f: angle_apart(f.yaw, yaw), default=None)
        if nearest is not None and angle_apart(nearest.yaw, yaw) < _NEAR_SIDE:
            sides[nearest.name] = nearest
    return sorted([*chosen, *sides.values()], key=lambda f: f.source_index)


def _even(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, limit)})


def stylize_views(
    scene: Scene,
    prior_mesh: SurfaceMesh,
    exemplar: Path,
    folder: Path,
    settings: StylizeSettings,
    progress: Progress,
    landmarks_file: Path | None = None,
    frames: Sequence[Frame] | None = None,
    person: Person | None = None,
    light: RoomLight | None = None,
    device: str = "cpu",
) -> StylizedSet:
    """Stylize the front and back frames with the built-in stylizer.

    Args:
        scene: The finished capture with landmarks.
        prior_mesh: The stage-I surface in the world.
        exemplar: Picture file.
        folder: Where ``NNNN.png``, ``NNNN_mask.png`` and the rest are written.
        settings: See :class:`StylizeSettings`.
        progress: Listener.
        landmarks_file: The exemplar's landmarks for drawings in which none are found
            (see :func:`load_exemplar`).
        frames: Which frames; None chooses by the settings.
        person: From :func:`study_person`, to save its time for a second exemplar.
        light: The room's light on the person, taken out as ``settings.delight`` says.
        device: Torch device of the patch search (see :func:`~toonify3d.devices.resolve_device`).

    Raises:
        InputError: The exemplar is unusable (see :func:`load_exemplar`) or the capture shows no
            face (``no_face``).
    """
    if settings.look not in LOOKS:
        raise InputError(
            f"There is no look '{settings.look}'; use one of {', '.join(LOOKS)}.", "bad_look"
        )
    progress.update(0.0, "reading the exemplar")
    style = load_exemplar(exemplar, landmarks_file, settings.look)
    if frames is None:
        frames = select_frames(scene, settings, progress)
        frames = with_sides(scene, frames, settings.side_frames)
    if person is None:
        person = study_person(scene, prior_mesh, SubProgress(progress, 0.02, 0.24))
    delight = 0.0 if light is None else delight_strength(style, settings)
    if light is not None:
        scene, person = without_light(scene, person, light, delight)
    change = change_shape(person, style, settings)
    if settings.look == "colour":
        progress.warn("The look 'colour' takes colours and strokes only: the shape stays.")
    for note in change.notes:
        progress.warn(note)
    progress.update(0.25, "laying the exemplar on the face")
    surface, look = _prepare(person, style, change, frames, settings)
    views = _paint_all(
        scene, frames, surface, look, change, folder, SubProgress(progress, 0.3, 1.0), device
    )
    displacement = _as_displacement(change, person.mesh)
    palette = palette_strip(style.image)
    save_displacement(folder, displacement)
    save_palette(folder, palette)
    calm = calm_person(person, surface.attributes[:, 8:11], look.kind) if look.plain else None
    save_calm_colors(folder, calm)
    progress.update(1.0, "portraits stylized")
    return StylizedSet(views, displacement, palette, delight, calm)


@dataclass(frozen=True)
class Person:
    """What the stylizer knows of the person, whatever the exemplar.

    Attributes:
        mesh: Stage-I surface, about as fine as the pixels.
        caster: Rays against it.
        world: ``(478, 3)`` landmarks in the world, on the surface (but for the outline).
        frame: Face frame.
        observed: Colours of the vertices.
        regions: Their labels.
    """

    mesh: SurfaceMesh
    caster: MeshQuery
    world: FloatArray
    frame: shape.FaceFrame
    observed: Observations
    regions: Regions


def study_person(scene: Scene, prior_mesh: SurfaceMesh, progress: Progress) -> Person:
    """Gather colours on the surface and tell skin, hair and clothes apart.

    Raises:
        InputError: The capture shows no face (``no_face``).
    """
    mesh = densify(prior_mesh, _EDGE)
    caster = MeshQuery(mesh.vertices, mesh.faces)
    frame, world = locate_face(scene, caster)
    watched = [scene.frames[i] for i in _even(len(scene.frames), _OBSERVED_FRAMES)]
    observed = observe(scene, watched, mesh, caster, SubProgress(progress, 0.0, 0.8))
    progress.update(0.8, "telling skin, hair and clothes apart")
    normals = vertex_normals(mesh.vertices, mesh.faces) @ frame.rotation.T
    local = frame.to_face(mesh.vertices)
    regions = classify(local, normals, mesh.faces, observed, frame.to_face(world))
    return Person(mesh, caster, world, frame, observed, regions)


def change_shape(person: Person, style: Exemplar, settings: StylizeSettings) -> ShapeChange:
    """The displacement field that gives the person the exemplar's proportions.

    What is applied is how the exemplar differs from the mean face, or from the person
    (``settings.relative_to``), after a similarity alignment over all landmarks.
    """
    world, frame, mesh = person.world, person.frame, person.mesh
    own = frame.to_face(world)
    if settings.look == "colour":
        return ShapeChange(frame, own, own, DisplacementField((), world), 0.0, 1.0)
    turned = style.points * np.array([1.0, -1.0, -1.0])  # image axes to x right, y up, z nearer
    mean = shape.align_exemplar(mean_face(), own)[0] if settings.relative_to == "mean" else None
    aligned, yaw = shape.align_exemplar(turned, own if mean is None else mean)
    if settings.symmetric:
        aligned = shape.symmetrize(aligned, float(np.clip(yaw / 0.35, -1, 1)))
    moves = shape.target_offsets(own, aligned, settings, mean)
    controls = _controls(frame, world, moves, mesh)
    field, kept = fit_field(controls, _fold_samples(frame, mesh, world))
    targets = frame.to_face(world + field(world))
    notes = shape.clamped(own, aligned, settings, mean) + shape.held_back(own, targets, moves)
    return ShapeChange(frame, own, targets, field, yaw, kept, tuple(notes))


def _controls(
    frame: shape.FaceFrame, world: FloatArray, moves: dict[str, FloatArray], mesh: SurfaceMesh
) -> Controls:
    names = [name for name in shape.COMPONENTS if name != "oval"]
    features = np.concatenate([world[list(shape.COMPONENTS[name])] for name in names])
    feature_moves = np.concatenate([moves[name] for name in names])
    return Controls(
        outline=world[list(shape.COMPONENTS["oval"])],
        outline_offsets=frame.vectors_to_world(moves["oval"]),
        features=features,
        feature_offsets=frame.vectors_to_world(feature_moves),
        anchors=_anchors(frame, world, mesh),
        unit=frame.unit,
    )


def _anchors(frame: shape.FaceFrame, world: FloatArray, mesh: SurfaceMesh) -> FloatArray:
    """Points of skull back, neck and shoulders, spread evenly (farthest-point sampling)."""
    local = frame.to_face(mesh.vertices)
    face = frame.to_face(world)
    back = face[list(lm.FACE_OVAL), 2].min() - 1.7
    low = face[lm.CHIN, 1] - 1.2
    still = mesh.vertices[(local[:, 2] < back) | (local[:, 1] < low)]
    if not len(still):
        return np.zeros((0, 3))
    chosen = [0]
    distance = np.full(len(still), np.inf)
    for _ in range(min(79, len(still) - 1)):
        distance = np.minimum(distance, ((still - still[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return np.asarray(still[chosen])


def _fold_samples(frame: shape.FaceFrame, mesh: SurfaceMesh, world: FloatArray) -> FloatArray:
    """Places at which folds are looked for: surface points of the head and all landmarks."""
    local = frame.to_face(mesh.vertices)
    head = mesh.vertices[local[:, 1] > frame.to_face(world)[lm.CHIN, 1] - 1.0]
    step = max(1, len(head) // 4000)
    return np.concatenate([head[::step], world])


def _prepare(
    person: Person,
    style: Exemplar,
    change: ShapeChange,
    frames: Sequence[Frame],
    settings: StylizeSettings,
) -> tuple[BentSurface, Look]:
    """Everything that all frames share: bent surface, face layer, colour ranges."""
    mesh, frame, regions, observed = person.mesh, person.frame, person.regions, person.observed
    bent = mesh.vertices + change.field(mesh.vertices)
    normals = vertex_normals(bent, mesh.faces) @ frame.rotation.T
    kind = choose_look(style.stats) if settings.look == "auto" else settings.look
    tones, relit = None, np.zeros(len(bent), np.float32)
    if kind in ("paint", "hatch", "ink"):
        filmed = vertex_normals(mesh.vertices, mesh.faces) @ frame.rotation.T
        tones, relit = make_tones(
            style,
            change.targets,
            (frame.to_face(mesh.vertices), frame.to_face(bent)),
            (filmed, normals),
            mesh.faces,
            regions,
            observed,
            settings.shading,
            kind,
        )
    if kind in ("toon", "cel"):
        observed = replace(observed, lab=calm_colours(observed.lab, regions, mesh.faces))
    if kind == "cel":
        relit = form_shadow(normals, frame.to_face(bent), mesh.faces, regions)
    attributes = np.concatenate(
        [
            np.stack([regions.skin, regions.hair, regions.clothes, regions.beard], 1),
            frame.to_face(bent),
            normals[:, 2:],
            observed.lab,
            relit[:, None],
        ],
        axis=1,
    ).astype(np.float32)
    surface = BentSurface(
        mesh,
        bent,
        person.caster,
        MeshQuery(bent, mesh.faces),
        attributes,
        is_closed(mesh.faces),
    )
    layer = blank_layer() if kind == "colour" else _layer(style, change, frames, settings, kind)
    layer = even_layer(layer, settings, kind)
    back = float(change.targets[list(lm.FACE_OVAL), 2].min())
    look = make_look(
        style,
        layer,
        regions,
        observed,
        (back - 0.5, back + 0.1),
        settings,
        kind,
        tones,
        normals[:, 2],
    )
    return surface, look


def _layer(
    style: Exemplar,
    change: ShapeChange,
    frames: Sequence[Frame],
    settings: StylizeSettings,
    kind: str,
) -> FaceLayer:
    right, left = (gap < shape.CLOSED_OPENING for gap in shape.eye_opening(change.landmarks))
    return build_layer(
        style,
        change.targets,
        (right, left),
        change.yaw,
        2.0 * max(_pixels_per_unit(f, change.frame) for f in frames),
        kept=kind in STROKED,
        lip_contrast=0.0 if kind == "ink" else settings.lip_contrast,
        own_eyes=kind == "hatch",
        symmetric=settings.symmetric,
        expression=settings.expression,
    )


def _pixels_per_unit(frame: Frame, face: shape.FaceFrame) -> float:
    depth = float(frame.camera.project(face.origin[None])[1][0])
    return float(frame.camera.K[0, 0]) * face.unit / max(abs(depth), 1e-6)


def _paint_all(
    scene: Scene,
    frames: Sequence[Frame],
    surface: BentSurface,
    look: Look,
    change: ShapeChange,
    folder: Path,
    progress: Progress,
    device: str,
) -> list[StylizedView]:
    painted = []
    share = 0.45 if look.kind in STROKED else 0.9
    for index, frame in enumerate(frames):
        progress.update(share * index / len(frames), f"stylizing frame {index + 1}")
        warped = warp_frame(surface, frame.camera, scene.image(frame), scene.mask(frame))
        painted.append(paint(look, warped))
    strokes: list[Float32Array | None] = [None] * len(frames)
    if look.kind in STROKED and look.settings.strokes > 0:
        part = SubProgress(progress, share, 0.95)
        targets = _places(look, change)
        strokes = [*lay_on_frames(look, frames, painted, change.frame, targets, part, device)]
    marks: list[Float32Array | None] = [None] * len(frames)
    if look.kind in ("hatch", "ink"):
        lines = None
        if look.kind == "ink":
            asked = [scene.frames[i] for i in _even(len(scene.frames), _CREASE_FRAMES)]
            lines = ink_strokes(scene, asked, surface, look, change.frame, change.targets)
        marks = [*marks_on_frames(look, frames, painted, change.frame, lines)]
    views = []
    for frame, item, laid, drawn in zip(frames, painted, strokes, marks, strict=True):
        view = StylizedView(
            frame,
            finish(look, item, laid, drawn),
            np.asarray(item.cover * 255 + 0.5, np.uint8),
            item.confidence,
        )
        save_view(folder, view)
        progress.preview(view.image)
        views.append(view)
    return views


def _places(look: Look, change: ShapeChange) -> FloatArray | None:
    return None if look.kind == "colour" else change.targets


def _as_displacement(change: ShapeChange, mesh: SurfaceMesh) -> Displacement:
    """The field sampled on the surface, for stage II."""
    step = max(1, len(mesh.vertices) // 20_000)
    points = np.concatenate([mesh.vertices[::step], change.field.controls])
    return Displacement(points, change.field(points), change.field.kernels())
