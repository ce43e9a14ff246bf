"""Settings of stages II and III; ``docs/decisions.md`` reasons what the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GeometryAdaptionSettings:
    """Stage II: a smooth deformation of the frozen prior."""

    steps: int = 500
    """Optimisation steps."""
    rays: int = 512
    """Rays per step that carry colour (paper: 512 for everything)."""
    mask_rays: int = 1536
    """Rays per step along the silhouettes; one sample each, so they cost little."""
    samples: int = 14
    """Samples per ray round the surface."""
    search_steps: int = 56
    """Cheap samples per ray on the cached distance grid that find the surface."""
    coarse_resolution: int = 96
    """Nodes per axis of the cached distance grid."""
    width: int = 64
    """Hidden width of the deformation network."""
    frequencies: int = 3
    """Octaves of its positional encoding; more can bend finer and folds sooner."""
    learning_rate: float = 3e-3
    """Peak learning rate of Adam; decays by a cosine to a twentieth."""
    head_learning_rate: float = 2e-3
    """Peak learning rate of the head that lets colours follow the style."""
    color_warmup: float = 0.12
    """Share of the steps in which only the colours follow the style and nothing bends yet."""
    mask_weight: float = 0.5
    """Weight of the silhouette loss (paper: 0.5)."""
    eikonal_weight: float = 0.1
    """Weight of the eikonal loss (paper: 0.1)."""
    strain_weight: float = 0.2
    """Weight of the strain of the learned displacement; it carries the change round the head."""
    magnitude_weight: float = 0.2
    """Weight of the squared length of the learned displacement, so that it dies out."""
    fold_weight: float = 10.0
    """Weight of the penalty on places that are about to fold."""
    sharpness_start: float = 100.0
    """Logistic sharpness at the start: wide, so that silhouettes a centimetre off still pull."""
    sharpness_end: float = 500.0
    """Logistic sharpness at the end."""
    displacement_support: float = 0.15
    """Radius of influence in metres of the stylizer's control points."""
    seed: int = 0
    """Seed of the ray draws."""


@dataclass(frozen=True)
class TextureAdaptionSettings:
    """Stage III: albedo on the frozen stylized geometry."""

    steps: int = 500
    """Optimisation steps."""
    points: int = 8192
    """Surface points per step."""
    max_points: int = 700_000
    """Most surface points that are cached; portraits are shrunk to fit."""
    coarse_resolution: int = 96
    """Nodes per axis of the cached distance grid that speeds up tracing."""
    levels: int = 5
    """Grid levels of the local residual."""
    base_resolution: int = 32
    """Cells per axis of its coarsest level."""
    finest_resolution: int = 1024
    """Cells per axis of its finest level: about one portrait pixel."""
    log2_table: int = 18
    """Binary logarithm of the entries per level."""
    map_learning_rate: float = 3e-3
    """Peak learning rate of the global colour map (the reflection learns at a third of it)."""
    grid_learning_rate: float = 2e-2
    """Peak learning rate of the local residual."""
    feature_dropout: float = 0.3
    """Share of points whose prior features are hidden, so that colour alone already answers."""
    facing_low: float = 0.15
    """Cosine between surface and ray below which a portrait is not believed."""
    facing_high: float = 0.55
    """Cosine above which it is fully believed."""
    fade_pixels: float = 6.0
    """Distance from silhouettes and depth steps over which belief grows to full."""
    view_sharpness: float = 3.0
    """Exponent by which the view that sees a point best outweighs the others (0: plain mean)."""
    residual_weight: float = 2e-4
    """Weight of the squared local residual: what the global map explains stays global."""
    reflection_weight: float = 0.5
    """Weight of |s - 1|; at 0.1 s took 4 % of the brightness and the albedo grew paler."""
    monochrome_weight: float = 0.5
    """Weight of the chroma of s."""
    discriminator_weight: float = 0.004
    """Weight of the palette discriminator in the fast presets (paper: 1 over 50k steps)."""
    discriminator_every: int = 4
    """Steps between two discriminator updates."""
    patch: int = 16
    """Side of a patch of rays for the discriminator."""
    patches: int = 8
    """Patches per discriminator update."""
    palette_colors: int = 16
    """Colours of the posterize filter."""
    r1_weight: float = 0.5
    """Weight of the discriminator's gradient penalty on real patches."""
    side_views: int = 6
    """Frames that no portrait covers, whose patches the palette discriminator also judges."""
    seed: int = 0
    """Seed of the draws."""
