"""Settings of stage I (prior learning)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..snr.fields import FieldSettings


@dataclass(frozen=True)
class PriorSettings:
    """How stage I learns the prior."""

    fields: FieldSettings = field(default_factory=FieldSettings)
    """Architecture of F_geo and F_app."""
    steps: int = 2000
    """Optimizer steps (paper: 300,000)."""
    rays: int = 1024
    """Rays per step (paper: 512)."""
    samples: int = 8
    """Samples per ray round the known surface (sampler ``guided``). Twice as many rays of half as
    many samples cost the same and learn more."""
    sampler: str = "guided"
    """``guided``: few samples round the surface that the guide grid knows, starting from the visual
    hull; ``hierarchical``: NeuS's coarse-to-fine sampling of the unit sphere (paper)."""
    coarse_samples: int = 64
    """Even samples per ray of the hierarchical sampler (NeuS: 64)."""
    fine_samples: int = 64
    """Samples that the hierarchical sampler adds where the weights are (NeuS: 64)."""
    error_guided: float = 0.5
    """Share of the rays drawn where the surface's colours are still wrong (0: all evenly, as in the
    paper)."""
    free_points: int = 1024
    """Random points per step for the eikonal and the empty-space term."""
    lr_table: float = 3e-3
    """Adam learning rate of the grid's table."""
    lr_network: float = 1e-3
    """Adam learning rate of the networks (paper: 2.5e-5)."""
    adam_beta2: float = 0.99
    """Adam's second beta (torch and NeuS: 0.999, ``paper``)."""
    adam_epsilon: float = 1e-15
    """Adam's epsilon (torch and NeuS: 1e-8, ``paper``)."""
    lr_final: float = 0.05
    """Learning rate at the end as a fraction of the start (exponential decay; 1 = constant)."""
    cooldown: float = 0.15
    """Share of the steps, the last ones, over which the learning rates fall to zero (paper: 0).
    Until then the whole surface jitters in and out by a few hundredths of a percent."""
    warmup: int = 50
    """Steps of linear warm-up of the learning rate."""
    inv_s_start: float = 60.0
    """Sharpness of the density at the start (ignored when learned)."""
    inv_s_end: float = 700.0
    """Sharpness from 80 % of the steps on (ignored when learned)."""
    learn_inv_s: bool = False
    """Learn the sharpness as NeuS does instead of scheduling it."""
    weight_mvs: float = 0.5
    """Weight of the multi-view stereo terms, eq. 2 and 3 (paper: 0.5)."""
    mvs_until: float = 0.4
    """Share of the steps after which the stereo terms have faded to zero; 0 keeps them constant.
    Stereo depth is biased by a fraction of a percent, which would pull a converged surface off."""
    weight_mask: float = 0.5
    """Weight of the mask term, eq. 6 (paper: 0.5)."""
    binary_stereo: bool = False
    """Every pixel with stereo depth counts alike, as in eq. 2, instead of by its confidence."""
    reduction: str = "mean"
    """How eq. 2, 3, 5 and 7 are added up: ``mean`` over rays or points and over colour channels;
    ``rays``: the channels are summed (NeuS, ``paper``), so that the colour weighs three times as
    much; ``sum``: as the paper prints them, beside which eq. 6 hardly counts."""
    enough_coverage: float = 0.5
    """Accumulated density that satisfies the mask term far from any outline (0: eq. 6 as it is,
    which pushes a soft surface outwards)."""
    divide_color: bool = True
    """Divide the accumulated colour of eq. 5 by the accumulated density before comparing."""
    divide_depth: bool = True
    """Divide the accumulated distance of eq. 2 by the accumulated density before comparing. As
    printed, density missing at an outline counts as distance zero, which swells the surface."""
    weight_eikonal: float = 0.3
    """Weight of the eikonal term, eq. 7 (paper: 0.1)."""
    weight_empty: float = 0.5
    """Weight of the term that keeps the space outside the visual hull empty (not in the paper)."""
    view_from: float = 0.0
    """Share of the steps during which colours may not depend on the view direction; the dependence
    then fades in over as many steps. Dull skin gains nothing from it, and the highlights of shiny
    hair become dents."""
    base_levels: int = 4
    """Grid levels active at the start; the others follow over the first ``levels_until``."""
    levels_until: float = 0.3
    """Share of the steps after which all grid levels are active."""
    guide_resolution: int = 128
    """Vertices per axis of the guide grid."""
    guide_interval: int = 50
    """Steps between updates of the guide grid from the field."""
    hull_steps: int = 150
    """Steps that fit F_geo to the visual hull before rendering starts (0: start from a sphere)."""
    hull_inset: float = 0.0
    """How far inside the hull F_geo starts, in guide cells. A hull is never too small; from
    inside, the silhouettes pull the convex parts out instead of leaving the hollow ones full."""
    color_threshold: float = 1e-3
    """Samples of smaller weight get no colour evaluation (0: all do)."""
    silhouette_band: float = 0.03
    """Width, in image widths, of the background ring round the person that is sampled; 1: the whole
    picture, as in NeuS (``paper``), but for rays that miss the unit sphere."""
    binary_masks: bool = False
    """Masks as in NeuS (``paper``): foreground from one half on, for the mask term and the colours.
    Else the mask term takes them as they are and colours keep a pixel's distance to the outline."""
    holdout_frames: int = 4
    """Frames kept out of training to measure the PSNR (only when there are plenty)."""
    refine_cameras: bool = False
    """Learn small corrections of the camera poses along with the fields; every later step then uses
    the corrected cameras (not in the paper)."""
    refine_focal: bool = False
    """Learn a correction of the focal length, one for all frames of a camera and at most 2 %. Round
    a head it is nearly the same as a change of the head's size, so little of an error is found."""
    lr_cameras: float = 5e-5
    """Adam learning rate of the pose and focal corrections (radians, unit space, logarithm)."""
    weight_poses: float = 1e-4
    """Weight of the squares of the pose corrections, a turn in units of 0.03 degrees, a shift in
    units of 0.003 (unit space). A step sees few pixels of each frame: without this the poses walk
    at random in a long training."""
    weight_focal: float = 1e-5
    """Weight of the square of the focal correction, in units of 0.2 %."""
    refine_exposure: bool = False
    """Learn a colour gain per frame (phones change the exposure while walking)."""
    cuda_graph: bool = True
    """On a GPU, record a training step once and replay it as one CUDA graph."""
    seed: int = 0
    """Seed of the random numbers."""
    checkpoint_seconds: float = 30.0
    """Least time between checkpoints."""
    preview_seconds: float = 10.0
    """Time between preview pictures."""


PAPER_FIELDS = FieldSettings(
    encoding="frequency",
    octaves=6,
    direction_octaves=4,
    geometry_layers=8,
    geometry_width=256,
    geometry_skip=4,
    features=256,
    appearance_layers=6,
    appearance_width=256,
    activation="softplus",
    share_encoding=False,
    weight_norm=True,
)

TINY = PriorSettings(
    fields=FieldSettings(
        levels=4, base_resolution=8, finest_resolution=64, log2_table=15, view_input="reflection"
    ),
    steps=300,
    rays=256,
    samples=12,
    free_points=256,
    lr_table=1e-2,
    lr_network=5e-3,
    warmup=10,
    inv_s_end=300.0,
    base_levels=4,
    guide_resolution=48,
    guide_interval=25,
    hull_steps=60,
    holdout_frames=1,
)
PREVIEW = PriorSettings(fields=FieldSettings(view_input="reflection"), refine_cameras=True)
STANDARD = replace(
    PREVIEW,
    fields=replace(PREVIEW.fields, finest_resolution=512, levels=10, log2_table=18),
    steps=8000,
    rays=1280,
    # Sharper and with preview's weight of the masks, long training follows whatever is wrong with
    # the masks of a real capture (lps, own masks, 3,000 steps: with sharpness 2,500 and weight 0.5
    # the surface came out 0.030 % of the diagonal too wide, with these 0.003 % too narrow).
    inv_s_end=1000.0,
    weight_mask=0.1,
    guide_resolution=160,
)
HIGH = replace(
    STANDARD,
    fields=replace(
        PREVIEW.fields, finest_resolution=1024, levels=12, log2_table=19, geometry_layers=2
    ),
    steps=24000,
    rays=2048,
    inv_s_end=1500.0,
    guide_resolution=192,
)
PAPER = PriorSettings(
    fields=PAPER_FIELDS,
    steps=300_000,
    rays=512,
    sampler="hierarchical",
    error_guided=0.0,
    free_points=0,
    lr_network=2.5e-5,
    lr_final=1.0,
    cooldown=0.0,
    warmup=0,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    learn_inv_s=True,
    binary_stereo=True,
    reduction="rays",
    enough_coverage=0.0,
    divide_color=False,
    divide_depth=False,
    weight_eikonal=0.1,
    view_from=0.0,
    mvs_until=0.0,
    weight_empty=0.0,
    hull_steps=0,
    color_threshold=0.0,
    silhouette_band=1.0,
    binary_masks=True,
    holdout_frames=0,
)
PRESETS = {
    "tiny": TINY,
    "preview": PREVIEW,
    "standard": STANDARD,
    "high": HIGH,
    "paper": PAPER,
}
