"""Networks and stages so small that a test trains them in seconds, shared by the training tests."""

from __future__ import annotations

from toonify3d.snr.fields import FieldSettings
from toonify3d.training.adaption_settings import TextureAdaptionSettings

PATCH = 8
GRID = FieldSettings(levels=3, base_resolution=8, finest_resolution=32, log2_table=12)
NETWORKS = FieldSettings(
    encoding="frequency",
    octaves=3,
    direction_octaves=2,
    geometry_layers=2,
    geometry_width=32,
    features=8,
    appearance_layers=2,
    appearance_width=16,
    activation="softplus",
    share_encoding=False,
    weight_norm=True,
)
SURFACE = TextureAdaptionSettings(
    points=512,
    levels=3,
    base_resolution=16,
    finest_resolution=64,
    log2_table=12,
    side_views=2,
    patches=4,
    patch=PATCH,
    discriminator_every=3,
)
