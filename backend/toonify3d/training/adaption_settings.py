"""Settings of stages II and III; ``docs/decisions.md`` reasons what the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class GeometryAdaptionSettings:
    """Stage II: the stylized shape."""

    method: str = "deformation"
    """``deformation``: a smooth deformation of the frozen prior; ``finetune``: F_geo and F_app go
    on learning from the portraits by volume rendering, as published (``paper``)."""
    adapt: bool = True
    """False keeps the person's shape (ablation "without geometry adaption")."""
    from_prior: bool = True
    """False learns the fields from the portraits alone (ablation "without prior"; implies
    ``finetune``): stage I's training with the ``prior`` settings, but for stereo and camera
    refinement, over the steps of stages I and II."""
    joint: bool = False
    """Learn F_geo, F_app and F_tex at once instead of one after the other (ablation "without
    PSA"; implies ``finetune``). F_tex and the discriminator follow the ``texture`` settings, as
    with ``volume``; the run takes the steps of both stages."""
    steps: int = 500
    """Optimisation steps."""
    rays: int = 512
    """Rays per step that carry colour (paper: 512 for everything)."""
    mask_rays: int = 1536
    """Rays per step along the silhouettes; one sample each, so they cost little."""
    silhouette_band: float = 1.0 / 12.0
    """Width, in image widths, of the ring round the portraits' silhouettes that rays come from; 1:
    the whole portrait, as in NeuS (``paper``), but for rays that miss the unit sphere."""
    binary_masks: bool = False
    """Method ``finetune``: masks count as foreground from one half on (NeuS, ``paper``)."""
    reduction: str = "mean"
    """How eq. 8 and 7 are added up, as ``prior.reduction``: ``mean``, ``rays`` (NeuS, ``paper``) or
    ``sum``."""
    samples: int = 14
    """Samples per ray round the surface."""
    search_steps: int = 56
    """Cheap samples per ray on the cached distance grid that find the surface."""
    coarse_resolution: int = 96
    """Nodes per axis of the cached distance grid."""
    width: int = 64
    """Hidden width of the deformation network."""
    frequencies: int = 4
    """Octaves of its positional encoding; more can bend finer and folds sooner (3 cannot grow an
    eye: fitted to the true map they keep half of the error)."""
    fine_residual: bool = False
    """Add a second deformation of more octaves once the coarse change has settled."""
    fine_frequencies: int = 5
    """Octaves of its positional encoding."""
    fine_from: float = 0.6
    """Share of the steps after which it learns."""
    learning_rate: float = 6e-3
    """Peak learning rate of Adam; decays by a cosine to ``lr_final``."""
    head_learning_rate: float = 2e-3
    """Peak learning rate of the head that lets colours follow the style."""
    color_warmup: float = 0.12
    """Share of the steps in which only the colours follow the style and nothing bends yet."""
    mask_weight: float = 0.5
    """Weight of the silhouette loss (paper: 0.5)."""
    eikonal_weight: float = 0.1
    """Weight of the eikonal loss (paper: 0.1)."""
    strain_weight: float = 6.0
    """Weight of the strain of the learned displacement; it carries the change round the head."""
    growth_strain: float = 0.03
    """How dear even growth is in the strain, beside what changes angles (1: equally). Little lets
    depth, which frontal portraits do not show, follow the growth that they do show."""
    magnitude_weight: float = 0.6
    """Weight of the length of the learned displacement: what need not move stays."""
    flow_weight: float = 10.0
    """Weight of matches between portraits and photos (optical flow): they find features again that
    a stylizer moved out of the colours' reach. Only for portraits that come without their own
    shape change; 0 turns them off."""
    fold_weight: float = 10.0
    """Weight of the penalty on places that are about to fold."""
    sharpness_start: float = 100.0
    """Logistic sharpness at the start: wide, so that silhouettes a centimetre off still pull."""
    sharpness_end: float = 500.0
    """Logistic sharpness at the end."""
    displacement_support: float = 0.15
    """Radius of influence in metres of the stylizer's control points (method ``deformation``)."""
    lr_final: float = 0.05
    """Learning rate at the end as a fraction of its peak (1: constant from the first step on)."""
    sampler: str = "guided"
    """Samples of method ``finetune``: ``guided`` takes ``samples`` round the known surface,
    ``hierarchical`` NeuS's coarse-to-fine sampling (paper)."""
    coarse_samples: int = 64
    """Even samples per ray of the hierarchical sampler (NeuS: 64)."""
    fine_samples: int = 64
    """Samples that the hierarchical sampler adds where the weights are (NeuS: 64)."""
    field_learning_rate: float = 5e-4
    """Learning rate of the networks with method ``finetune`` (paper: 2.5e-5)."""
    table_learning_rate: float = 1e-3
    """Learning rate of a grid's table with method ``finetune``."""
    adam_beta2: float = 0.99
    """Adam's second beta with method ``finetune`` (torch and NeuS: 0.999, ``paper``)."""
    adam_epsilon: float = 1e-15
    """Adam's epsilon with method ``finetune`` (torch and NeuS: 1e-8, ``paper``)."""
    learn_inv_s: bool = False
    """Method ``finetune``: learn the sharpness (paper) instead of keeping to the schedule."""
    seed: int = 0
    """Seed of the ray draws."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: ``method`` or ``sampler`` is none of those that exist.
        """
        _one_of("geometry.method", self.method, ("deformation", "finetune"))
        _one_of("geometry.sampler", self.sampler, ("guided", "hierarchical"))
        _one_of("geometry.reduction", self.reduction, ("mean", "rays", "sum"))

    @property
    def without_prior(self) -> bool:
        """Whether the fields are learned from the portraits alone."""
        return self.adapt and not self.from_prior

    @property
    def joins(self) -> bool:
        """Whether stage II learns F_tex too, which leaves stage III nothing to do."""
        return self.adapt and self.from_prior and self.joint

    @property
    def finetunes(self) -> bool:
        """Whether F_geo itself is trained."""
        return self.method == "finetune" or self.joint or not self.from_prior


@dataclass(frozen=True)
class TextureAdaptionSettings:
    """Stage III: albedo on the frozen stylized geometry."""

    rendering: str = "surface"
    """``surface``: a colour map of the prior's answers plus a local residual, on surface points
    that are found once; ``volume``: F_tex and F_app as networks, eq. 10 by volume rendering, as
    published (``paper``)."""
    adapt: bool = True
    """False takes stage II's own colours as the albedo (ablation "without texture adaption")."""
    steps: int = 500
    """Optimisation steps."""
    points: int = 8192
    """Surface points per step."""
    max_points: int = 1_100_000
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
    """Peak learning rate of the local residual (two and a half times as much for ink on paper)."""
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
    discriminator_width: int = 24
    """Channels of the discriminator's first layer; the others have twice as many."""
    palette_colors: int = 16
    """Colours of the posterize filter."""
    r1_weight: float = 0.5
    """Weight of the discriminator's gradient penalty on real patches."""
    side_views: int = 6
    """Frames that no portrait covers, whose patches the palette discriminator also judges."""
    discriminator_from: float = 0.2
    """Share of the steps before the discriminator is listened to."""
    discriminator_ramp: float = 0.3
    """Share of the steps over which its weight then grows (0: at once)."""
    lr_final: float = 0.05
    """Learning rate at the end as a fraction of its peak (1: constant from the first step on)."""
    rays: int = 512
    """Rays per step with ``volume`` (paper: 512), those of the discriminator's patches included."""
    silhouette_band: float = 1.0 / 12.0
    """Width, in image widths, of the ring round the portraits' silhouettes that rays come from with
    ``volume``; 1:
    the whole portrait, as in NeuS (``paper``), but for rays that miss the unit sphere."""
    reduction: str = "mean"
    """How eq. 13 is added up with ``volume``, as ``prior.reduction``: ``mean``, ``rays`` (NeuS,
    ``paper``) or ``sum``."""
    sampler: str = "guided"
    """Samples along them: ``guided`` or ``hierarchical`` (paper), as in stage II."""
    samples: int = 16
    """Samples per ray of the guided sampler."""
    coarse_samples: int = 64
    """Even samples per ray of the hierarchical sampler (NeuS: 64)."""
    fine_samples: int = 64
    """Samples that the hierarchical sampler adds where the weights are (NeuS: 64)."""
    layers: int = 2
    """Hidden layers of F_tex with ``volume`` (paper: 6)."""
    width: int = 64
    """Their width (NeuS: 256)."""
    weight_norm: bool = False
    """Weight normalisation of F_tex with ``volume``, as of NeuS's colour network (``paper``)."""
    volume_learning_rate: float = 1e-3
    """Learning rate of F_tex and F_app with ``volume`` (paper: 2.5e-5)."""
    adam_beta2: float = 0.99
    """Adam's second beta with ``volume`` (torch and NeuS: 0.999, ``paper``)."""
    adam_epsilon: float = 1e-10
    """Adam's epsilon with ``volume`` (torch and NeuS: 1e-8, ``paper``)."""
    warm_steps: int = 200
    """Steps that fit F_tex to the prior's view-averaged colour first (``volume``)."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            InputError: ``rendering`` or ``sampler`` is none of those that exist.
        """
        _one_of("texture.rendering", self.rendering, ("surface", "volume"))
        _one_of("texture.sampler", self.sampler, ("guided", "hierarchical"))
        _one_of("texture.reduction", self.reduction, ("mean", "rays", "sum"))


def _one_of(name: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        raise InputError(f"{name} is one of {', '.join(names)}, not '{value}'.", "bad_setting")


PAPER_GEOMETRY = GeometryAdaptionSettings(
    method="finetune",
    steps=200_000,
    rays=512,
    field_learning_rate=2.5e-5,
    lr_final=1.0,
    sampler="hierarchical",
    learn_inv_s=True,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    silhouette_band=1.0,
    binary_masks=True,
    reduction="rays",
)
PAPER_TEXTURE = TextureAdaptionSettings(
    rendering="volume",
    steps=50_000,
    rays=512,
    sampler="hierarchical",
    layers=6,
    width=256,
    volume_learning_rate=2.5e-5,
    lr_final=1.0,
    discriminator_weight=1.0,
    discriminator_every=1,
    discriminator_from=0.0,
    discriminator_ramp=0.0,
    patches=1,
    reflection_weight=0.1,
    monochrome_weight=0.1,
    warm_steps=2000,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    silhouette_band=1.0,
    reduction="rays",
    weight_norm=True,
)
