"""The losses of all three stages, eq. 2 to 7.

The paper prints eq. 2, 3, 5 and 7 as sums over the rays or points of a batch; with its weights they
only balance eq. 6, a mean, as means themselves. ``reduction`` says which, for all of them alike:

* ``mean``: over rays or points, and of the colour over its channels too;
* ``rays``: over rays or points, while the colour's channels are summed, as in NeuS's published code
  (``exp_runner.py``), which divides the sum of all errors by the number of masked rays;
* ``sum``: as printed.
"""

from __future__ import annotations

import torch


def color_loss(
    rendered: torch.Tensor, observed: torch.Tensor, mask: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Eq. 5 (also 8 and 13): ``|M(r) (C^(r) - C(r))|_1``, by default per masked ray and channel.

    Args:
        rendered: ``(R, 3)``.
        observed: ``(R, 3)``.
        mask: ``(R,)`` 0..1.
        reduction: See the module.
    """
    difference = (rendered - observed).abs() * mask[:, None]
    if reduction == "sum":
        return difference.sum()
    channels = 3.0 if reduction == "mean" else 1.0
    return difference.sum() / (channels * mask.sum() + 1e-5)


def depth_loss(
    rendered: torch.Tensor,
    observed: torch.Tensor,
    weight: torch.Tensor,
    reduction: str = "mean",
) -> torch.Tensor:
    """Eq. 2: ``|M(r) (D^(r) - D(r))|_1``, by default per ray of weight 1.

    Args:
        rendered: Accumulated distance ``(R,)`` (eq. 1).
        observed: Stereo distance ``(R,)``.
        weight: Mask, or mask times stereo confidence ``(R,)``; 0 where there is no stereo depth.
        reduction: See the module.
    """
    return _weighted((rendered - observed).abs(), weight, reduction)


def surface_loss(sdf: torch.Tensor, weight: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Eq. 3: ``|F_geo(x_d)|_1`` at points lifted from the stereo depth.

    Args:
        sdf: ``(R,)`` at the lifted points.
        weight: As in :func:`depth_loss`.
        reduction: See the module.
    """
    return _weighted(sdf.abs(), weight, reduction)


def _weighted(error: torch.Tensor, weight: torch.Tensor, reduction: str) -> torch.Tensor:
    total = (error * weight).sum()
    return total if reduction == "sum" else total / (weight.sum() + 1e-5)


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


def eikonal_loss(gradient: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Eq. 7: ``(|grad F_geo(x_k)|_2 - 1)^2``, by default per point, gradients ``(N, 3)``."""
    length: torch.Tensor = torch.linalg.vector_norm(gradient, dim=-1)
    squares = (length - 1.0).square()
    return squares.sum() if reduction == "sum" else squares.mean()


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
