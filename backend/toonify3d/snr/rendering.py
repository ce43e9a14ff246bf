"""NeuS volume rendering (paper eq. 1, 5, 6), samplers, sphere tracing and whole views."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ..scene import ByteImage, Camera, Float32Array, Normalization

TINY = 1e-5


class DistanceField(Protocol):
    """Anything with a signed distance in unit space."""

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Signed distances ``(N,)`` of points ``(N, 3)``."""


class ColoredField(DistanceField, Protocol):
    """A distance field that also has a gradient and a colour."""

    @property
    def device(self) -> torch.device:
        """Where the field's tensors live."""

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Gradients ``(N, 3)``."""

    def color(self, x: torch.Tensor) -> torch.Tensor:
        """sRGB colours ``(N, 3)`` in 0..1."""


class Rendered(NamedTuple):
    """Rays accumulated along their samples.

    Attributes:
        weights: ``T_i alpha_i``, ``(R, K)``.
        color: eq. 5's accumulated colour ``(R, 3)`` (not divided by the mask).
        depth: eq. 1's accumulated distance along the unit ray ``(R,)``.
        mask: eq. 6's accumulated density ``(R,)``.
    """

    weights: torch.Tensor
    color: torch.Tensor
    depth: torch.Tensor
    mask: torch.Tensor


def opacity(entry: torch.Tensor, leave: torch.Tensor, inv_s: torch.Tensor | float) -> torch.Tensor:
    """Opacity of ray sections from the distances at both ends (below eq. 1; NeuS eq. 13).

    ``alpha = max((Phi_s(entry) - Phi_s(leave)) / Phi_s(entry), 0)``, Phi_s the logistic CDF of
    inverse standard deviation ``inv_s``.

    Args:
        entry: Signed distance where the ray enters each section, any shape.
        leave: Where it leaves, same shape.
        inv_s: Sharpness.
    """
    before = torch.sigmoid(entry * inv_s)
    after = torch.sigmoid(leave * inv_s)
    return ((before - after + TINY) / (before + TINY)).clamp(0.0, 1.0)


def section_opacity(
    sdf: torch.Tensor,
    gradient: torch.Tensor,
    direction: torch.Tensor,
    length: torch.Tensor,
    inv_s: torch.Tensor | float,
) -> torch.Tensor:
    """Opacity of sections known at their midpoints: the distance is extrapolated to both ends.

    NeuS's own discretisation: one field evaluation per section serves opacity and colour. Sections
    that leave the object are transparent (NeuS section 3.1).

    Args:
        sdf: ``(R, K)`` at the midpoints.
        gradient: ``(R, K, 3)``.
        direction: ``(R, 3)`` unit ray directions.
        length: ``(R, K)`` section lengths.
        inv_s: Sharpness.
    """
    slope = (gradient * direction[:, None]).sum(-1).clamp(max=0.0)
    half = 0.5 * slope * length
    return opacity(sdf - half, sdf + half, inv_s)


def accumulate_weights(alpha: torch.Tensor) -> torch.Tensor:
    """``T_i alpha_i`` with ``T_i = prod_{j<i} (1 - alpha_j)`` (eq. 1), ``(R, K)``."""
    # Not torch.cumprod: its backward pass looks for zeros, which stalls a GPU at every step and
    # cannot be recorded in a CUDA graph.
    passed = torch.cumsum(torch.log(1.0 - alpha + 1e-7), dim=1).exp()
    return alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)


def accumulate(weights: torch.Tensor, colors: torch.Tensor, distance: torch.Tensor) -> Rendered:
    """Accumulated colour (eq. 5), depth (eq. 1) and mask (eq. 6).

    Args:
        weights: ``(R, K)`` from :func:`accumulate_weights`.
        colors: ``(R, K, 3)``.
        distance: ``(R, K)`` distances of the samples along the rays.
    """
    return Rendered(
        weights,
        (weights[..., None] * colors).sum(1),
        (weights * distance).sum(1),
        weights.sum(1),
    )


class Samples(NamedTuple):
    """Samples of ``R`` rays, ``K`` each.

    Attributes:
        distance: Section midpoints along the rays, ``(R, K)``, ascending.
        length: Section lengths, ``(R, K)``.
    """

    distance: torch.Tensor
    length: torch.Tensor


def sections(edges: torch.Tensor) -> Samples:
    """Sections between ascending ``edges (R, K + 1)``."""
    return Samples(0.5 * (edges[:, 1:] + edges[:, :-1]), edges[:, 1:] - edges[:, :-1])


def jittered_edges(
    rays: int, count: int, device: torch.device, generator: torch.Generator | None
) -> torch.Tensor:
    """``(rays, count + 1)`` ascending numbers in [0, 1], each ray shifted at random.

    One shift per ray (not per sample) keeps the section lengths regular. Without a generator the
    edges are not shifted.
    """
    grid = torch.arange(count + 1, device=device, dtype=torch.float32) / count
    if generator is None:
        return grid.expand(rays, -1)
    shift = torch.rand((rays, 1), generator=generator, device=device) - 0.5
    return grid + shift / count


def sample_around(
    center: torch.Tensor,
    half_width: torch.Tensor | float,
    count: int,
    generator: torch.Generator | None = None,
    tail: float = 0.0,
) -> Samples:
    """Sections round a known distance, denser in the middle.

    Args:
        center: ``(R,)`` distance of the surface along each ray.
        half_width: Half of the sampled span, a number or ``(R, 1)``.
        count: Sections per ray.
        generator: Source of the per-ray shift; None for none.
        tail: 0 spaces the sections evenly; towards 1 the outer ones grow (cubic).
    """
    u = 2.0 * jittered_edges(len(center), count, center.device, generator) - 1.0
    u = (1.0 - tail) * u + tail * u**3
    return sections((center[:, None] + half_width * u).clamp(min=1e-4))


def sample_along(
    field: DistanceField,
    origins: torch.Tensor,
    directions: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    coarse: int,
    fine: int,
    rounds: int = 4,
    generator: torch.Generator | None = None,
) -> Samples:
    """NeuS's hierarchical sampler: ``coarse`` even sections, then ``rounds`` of refinement.

    Round ``i`` uses a fixed sharpness of ``64 * 2^i`` and adds ``fine / rounds`` samples where the
    current weights are (NeuS section 3.2 and its published code). No gradient.
    """
    with torch.no_grad():
        edges = near[:, None] + (far - near)[:, None] * jittered_edges(
            len(near), coarse - 1, near.device, generator
        )
        sdf = _on_rays(field, origins, directions, edges)
        for number in range(rounds):
            weights = _up_sampling_weights(edges, sdf, 64.0 * 2.0**number)
            new = _inverse_cdf(edges, weights, fine // rounds, generator)
            edges, order = torch.cat([edges, new], 1).sort(1)
            if number + 1 < rounds:
                fresh = _on_rays(field, origins, directions, new)
                sdf = torch.gather(torch.cat([sdf, fresh], 1), 1, order)
        last = (far - near)[:, None] / coarse
        return sections(torch.cat([edges, edges[:, -1:] + last], dim=1))


def _on_rays(
    field: DistanceField, origins: torch.Tensor, directions: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    points = origins[:, None] + directions[:, None] * t[..., None]
    return field.sdf(points.reshape(-1, 3)).reshape(t.shape)


def _up_sampling_weights(edges: torch.Tensor, sdf: torch.Tensor, inv_s: float) -> torch.Tensor:
    length = edges[:, 1:] - edges[:, :-1]
    slope = (sdf[:, 1:] - sdf[:, :-1]) / (length + TINY)
    before = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=1)
    slope = torch.minimum(slope, before).clamp(-1e3, 0.0)
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    half = 0.5 * slope * length
    return accumulate_weights(opacity(middle - half, middle + half, inv_s))


def _inverse_cdf(
    edges: torch.Tensor, weights: torch.Tensor, count: int, generator: torch.Generator | None
) -> torch.Tensor:
    """``count`` distances per ray, distributed as ``weights`` over the sections of ``edges``."""
    density = weights + TINY
    cdf = torch.cumsum(density / density.sum(1, keepdim=True), dim=1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=1)
    u = (torch.arange(count, device=edges.device, dtype=edges.dtype) + 0.5) / count
    u = u.expand(len(edges), -1).contiguous()
    if generator is not None:
        u = u + (torch.rand((len(edges), 1), generator=generator, device=u.device) - 0.5) / count
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    low, high = torch.gather(cdf, 1, above - 1), torch.gather(cdf, 1, above)
    start, stop = torch.gather(edges, 1, above - 1), torch.gather(edges, 1, above)
    share = ((u - low) / (high - low).clamp(min=1e-8)).clamp(0.0, 1.0)
    return start + share * (stop - start)


def sphere_interval(
    origins: torch.Tensor, directions: torch.Tensor, radius: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where rays ``(R, 3)`` enter and leave the sphere round the origin: near, far, whether."""
    middle = -(origins * directions).sum(1)
    squared = radius**2 - (origins.square().sum(1) - middle.square())
    half = squared.clamp(min=0.0).sqrt()
    near = (middle - half).clamp(min=0.0)
    return near, (middle + half).clamp(min=0.0), (squared > 0) & (middle + half > 0)


def trace(
    field: DistanceField,
    origins: torch.Tensor,
    directions: torch.Tensor,
    radius: float = 1.0,
    steps: int = 64,
    tolerance: float = 5e-4,
    relaxation: float = 0.9,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sphere-trace rays to the zero level set inside the unit sphere, without gradient.

    Steps are signed, so an overshoot comes back. A ray counts as a hit when it ends within
    ``tolerance`` of the surface, having met it from outside.

    Args:
        field: Its ``sdf`` may exceed the true distance by up to ``1 / relaxation``.
        origins: ``(R, 3)`` unit space.
        directions: ``(R, 3)`` unit vectors.
        radius: Sphere that bounds the search.
        steps: Most steps per ray.
        tolerance: Distance at which a ray stops.
        relaxation: Fraction of the distance to step.

    Returns:
        ``t (R,)`` and ``hit (R,)`` (bool); ``t`` is where the ray stopped also when it missed.
    """
    with torch.no_grad():
        near, far, crosses = sphere_interval(origins, directions, radius)
        t = near.clone()
        hit = torch.zeros_like(crosses)
        active = crosses.nonzero()[:, 0]
        for _ in range(steps):
            if not len(active):
                break
            value = field.sdf(origins[active] + directions[active] * t[active, None])
            done = value.abs() < tolerance
            hit[active[done]] = True
            # One last correction of the converged rays: they stop a fraction of the tolerance off.
            t[active] = t[active] + torch.where(done, value, relaxation * value)
            active = active[~done & (t[active] < far[active]) & (t[active] >= near[active])]
        return t, hit


class View(NamedTuple):
    """Pictures of a field.

    Attributes:
        color: sRGB ``(H, W, 3)`` uint8 on the background colour.
        normal: Camera-independent normals as colours ``(H, W, 3)`` uint8.
        mask: Coverage ``(H, W)`` uint8.
        depth: Depth along z in world units ``(H, W)`` float32, 0 = none.
    """

    color: ByteImage
    normal: ByteImage
    mask: ByteImage
    depth: Float32Array


Shader = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def camera_rays(
    camera: Camera, normalization: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-space origins and directions ``(H * W, 3)`` of all pixels, row by row."""
    columns, rows = np.meshgrid(
        np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5, indexing="xy"
    )
    origins, directions = camera.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    return (
        torch.tensor(normalization.to_unit(origins), dtype=torch.float32, device=device),
        torch.tensor(directions, dtype=torch.float32, device=device),
    )


def render_view(
    field: ColoredField,
    camera: Camera,
    normalization: Normalization,
    shade: Shader | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    chunk: int = 65536,
) -> View:
    """Picture of the field's surface seen by a camera, by sphere tracing.

    Args:
        field: What to render.
        camera: World camera.
        normalization: World to unit space.
        shade: Colour and gradient of surface points from ``(points, directions)``; by default the
            field's view-averaged colour. :meth:`.Prior.shade` gives the view-dependent one.
        background: Colour where no surface is.
        chunk: Rays at a time.
    """
    origins, directions = camera_rays(camera, normalization, field.device)
    count = len(origins)
    color = torch.tensor(background, dtype=torch.float32, device=field.device).repeat(count, 1)
    normal = torch.full((count, 3), 255.0, device=field.device)
    depth = torch.zeros(count, device=field.device)
    mask = torch.zeros(count, dtype=torch.bool, device=field.device)
    axis = torch.tensor(camera.c2w[:3, 2], dtype=torch.float32, device=field.device)
    with torch.no_grad():
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            t, hit = trace(field, origins[part], directions[part])
            index = hit.nonzero()[:, 0] + start
            if not len(index):
                continue
            along = t[index - start]
            points = origins[index] + directions[index] * along[:, None]
            if shade is None:
                rgb, gradient = field.color(points), field.sdf_gradient(points)
            else:
                rgb, gradient = shade(points, directions[index])
            unit = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-9)
            color[index] = rgb * 255.0
            normal[index] = unit * 127.5 + 127.5
            depth[index] = along * (directions[index] @ axis) * normalization.radius
            mask[index] = True
    shape = (camera.height, camera.width)
    return View(
        _bytes(color).reshape(*shape, 3),
        _bytes(normal).reshape(*shape, 3),
        _bytes(mask * 255.0).reshape(shape),
        depth.cpu().numpy().astype(np.float32).reshape(shape),
    )


def _bytes(values: torch.Tensor) -> ByteImage:
    return np.asarray(values.round().clamp(0, 255).to(torch.uint8).cpu().numpy())
