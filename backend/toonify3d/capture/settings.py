"""Settings of the capture."""

from __future__ import annotations

from dataclasses import dataclass, field

from .depth_settings import DepthSettings
from .mask_settings import MaskSettings


@dataclass(frozen=True)
class CaptureSettings:
    """From a video to cameras, masks and depth."""

    max_frames: int = 300
    """At most so many frames are used (paper: 300); chosen sharp and evenly spread."""
    min_frames: int = 12
    """Fewer usable frames are an error."""
    long_side: int = 1024
    """Larger frames are scaled down to this long side in pixels."""
    max_features: int = 4096
    """SIFT features per frame."""
    interpupillary_distance: float = 0.063
    """Distance between the pupils in metres: gives the scale of the world."""
    min_registered: float = 0.5
    """Share of the frames that must find their camera."""
    threads: int = 0
    """Threads for structure from motion; 0 means one per core."""
    masks: MaskSettings = field(default_factory=MaskSettings)
    """The person masks."""
    depth: DepthSettings = field(default_factory=DepthSettings)
    """The multi-view stereo."""
