"""The losses of stage I, eq. 2 to 7. All are means over rays or points.

The paper writes eq. 2, 3 and 5 as sums; with its weights they only balance as means per ray, and
NeuS divides the colour term by the sum of the mask. So do these.
"""

from __future__ import annotations

import torch


def color_loss(rendered: torch.Tensor, observed: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. 5 (also 8 and 13): ``|M(r) (C^(r) - C(r))|_1`` per masked ray and channel.

    Args:
        rendered: ``(R, 3)``.
        observed: ``(R, 3)``.
        mask: ``(R,)`` 0..1.
    """
    difference = (rendered - observed).abs() * mask[:, None]
    return difference.sum() / (3.0 * mask.sum() + 1e-5)


def depth_loss(
    rendered: torch.Tensor, observed: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Eq. 2: ``|M(r) (D^(r) - D(r))|_1`` per ray, weighted by the stereo confidence.

    Args:
        rendered: Accumulated distance ``(R,)`` (eq. 1).
        observed: Stereo distance ``(R,)``.
        weight: Mask times confidence ``(R,)``, 0 where there is no stereo depth.
    """
    return ((rendered - observed).abs() * weight).sum() / (weight.sum() + 1e-5)


def surface_loss(sdf: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Eq. 3: ``|F_geo(x_d)|_1`` at points lifted from the stereo depth, weighted by confidence.

    Args:
        sdf: ``(R,)`` at the lifted points.
        weight: Confidence ``(R,)``, 0 where there is none.
    """
    return (sdf.abs() * weight).sum() / (weight.sum() + 1e-5)


def mask_loss(
    rendered: torch.Tensor, observed: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Eq. 6: binary cross entropy of the accumulated density ``(R,)`` with the mask ``(R,)``."""
    clipped = rendered.clamp(1e-3, 1.0 - 1e-3)
    # Written out: torch's own raises on NaN, which training wants to see and step back from.
    entropy = -(observed * clipped.log() + (1.0 - observed) * (1.0 - clipped).log())
    if weight is None:
        return entropy.mean()
    return (entropy * weight).sum() / (weight.sum() + 1e-5)


def eikonal_loss(gradient: torch.Tensor) -> torch.Tensor:
    """Eq. 7: ``(|grad F_geo(x_k)|_2 - 1)^2`` per point, gradients ``(N, 3)``."""
    length: torch.Tensor = torch.linalg.vector_norm(gradient, dim=-1)
    return (length - 1.0).square().mean()


def empty_space_loss(sdf: torch.Tensor, hull_distance: torch.Tensor, margin: float) -> torch.Tensor:
    """Hinge that keeps points outside the visual hull outside the surface (not in the paper).

    With samples only near the surface, and hash collisions, nothing else would see a floater.

    Args:
        sdf: ``(N,)`` of the field.
        hull_distance: ``(N,)`` distance to the visual hull.
        margin: Distance by which a point must be outside the hull to count, and the least signed
            distance it must have (more, in proportion, further out).
    """
    outside = (hull_distance > margin).to(sdf.dtype)
    wanted = 0.5 * hull_distance
    return ((wanted - sdf).clamp(min=0.0) * outside).sum() / (outside.sum() + 1.0)
