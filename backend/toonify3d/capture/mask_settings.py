"""Settings of the person masks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskSettings:
    """How the person is told from the room."""

    source: str = "builtin"
    """Who makes the masks: builtin, bshm (the paper's matting model), rembg, or folder. Masks that
    you bring yourself win over all of them."""
    model: str = ""
    """bshm: full path of tf_graph.pb or of an ONNX file, when not in ~/.toonify3d/models; rembg:
    name of its model (u2net_human_seg when empty)."""
    python: str = ""
    """Python interpreter that has the package of bshm (tensorflow or onnxruntime) or rembg. Empty:
    the one that runs this program."""
    vote_long_side: int = 280
    """Long image side in pixels for the vote across views."""
    refine_long_side: int = 560
    """Long image side in pixels at which the outline is decided; larger frames are scaled down."""
    grid: int = 96
    """Cells along each side of the voting grid."""
    vote_views: int = 48
    """At most this many evenly spread views vote on a grid cell."""
    outvoted: float = 0.12
    """Share of the views that may call a cell background before it is: how far single
    segmentations are mistrusted in the first round (less in the later rounds)."""
    min_seen: float = 0.1
    """A grid cell that a smaller share of the views sees is background."""
    rounds: int = 2
    """Rounds of vote across views, colour model, new masks."""
    band: float = 0.035
    """Half width, as a share of the image's long side, of the uncertain band round the outline."""
    folder: str = ""
    """Full path of a folder with your own masks, white = person, named like the images or by frame
    number ("0007.png"); they win over the computed ones. Empty: the images' alpha, where there."""
