"""Settings of the multi-view stereo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DepthSettings:
    """Plane sweep stereo round the visual hull, or another program."""

    source: str = "builtin"
    """Who measures depth: builtin, openmvs or colmap (programs of their own), or none."""
    programs: str = ""
    """Folder of OpenMVS's programs or of colmap. Empty: looked for on PATH."""
    external_side: int = 560
    """Long side in pixels of the pictures that openmvs and colmap get."""
    long_side: int = 280
    """Long side of the depth maps in pixels."""
    frame_step: int = 2
    """A depth map for every such frame."""
    planes: int = 32
    """Surfaces swept from before the visual hull to behind it."""
    before_hull: float = 0.012
    """How far in front of the hull the sweep starts, as a share of the scene's radius."""
    behind_hull: float = 0.13
    """How far behind the hull's surface it ends (hollows), as a share of the scene's radius."""
    neighbour_angles: tuple[float, ...] = (5.0, 10.0, 16.0)
    """Angles in degrees of the views compared, on either side."""
    window: int = 5
    """Side of the correlation window in pixels."""
    smooth_small: float = 0.003
    """Penalty of a step of one plane between neighbouring pixels (correlation is 0 to 1)."""
    smooth_large: float = 0.03
    """Penalty of any larger step."""
    hull_prior: float = 0.06
    """Cost of a surface as far behind the hull as the scene's radius (correlation is 0 to 1)."""
    tolerance: float = 0.012
    """Two depth maps agree within this share of the scene's radius."""
