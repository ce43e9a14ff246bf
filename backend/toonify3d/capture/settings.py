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
    photo_side: int = 1600
    """Long side in pixels at which the cameras of an image folder are found: photos are fewer and
    farther apart than frames of a video, so they need finer features."""
    features: str = "everywhere"
    """Where cameras hold on: everywhere; "room" when the person moved while being filmed; "person"
    when the background moves, or the person turned on a chair before a fixed camera."""
    front_frame: int = -1
    """Number of a frame (or image, from 0) that shows the head from the front, for heads without a
    face that can be found; -1: the face decides, without one the first frame."""
    front_yaw: float = 0.0
    """Degrees by which to turn the front towards the person's left afterwards."""
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
