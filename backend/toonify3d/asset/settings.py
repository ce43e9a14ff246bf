"""Settings of the asset step; the docstrings are the help texts of CLI and Blender."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

TEXTURE_SIZES = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class AssetSettings:
    """How the fields become a mesh with textures. The defaults are the ``standard`` preset."""

    resolution: int = 384
    """Cells along each side of the volume from which the surface is cut (preview 256, high 512)."""

    faces: int = 50_000
    """Triangles of the finished mesh; 0 keeps every triangle of the level set."""

    texture_size: int = 2048
    """Width and height of albedo and normal map in pixels: 512, 1024, 2048, 4096 or 8192."""

    texture_bits: int = 8
    """Bits per channel of the albedo files, 8 or 16; 16 survives hard grading and gradients."""

    supersample: int = 1
    """Samples per texel along each side of the texture; 2 is smoother and four times slower."""

    volume_samples: int = 3
    """Field samples along the surface normal that are accumulated into one albedo sample."""

    volume_depth: float = 0.004
    """Half length of that accumulation in unit space (about 1 mm on a head)."""

    padding: int = 8
    """Empty texels between charts, so that mip-maps of the texture do not bleed."""

    face_density: float = 2.0
    """Texel density of the face relative to the rest of the head (1 = the same everywhere)."""

    face_detail: float = 1.5
    """How much shorter the triangles' edges are on face and ears than elsewhere (1 = the same)."""

    even_triangles: bool = True
    """Remesh to even triangles after decimating, finer where the surface bends more."""

    roughness: float = 0.9
    """Roughness of the exported material; stylized skin looks best matte."""

    normal_map: bool = True
    """Bake a tangent-space normal map from the full-resolution surface."""

    enhance: float = 0.7
    """Style enhancement of the texture: the exemplar's line and palette, 0 (off) to 1."""

    photo_delight: float = 1.0
    """How much of the room's light is taken out of the person's colours (photo_albedo.png), 0 to 1:
    whoever relights the head wants none of it."""

    ambient_occlusion: bool = True
    """Bake a map of how open the surface is (ao.png), for shading in other programs."""

    neck: str = "flat"
    """How the bust ends: flat (closed), or open (a hole, to be joined to a body of your own)."""

    calm_unseen: bool = True
    """Cut the bottom that no frame shows flat, and colour unseen parts from their surroundings."""

    ball_radius: float = 0.99
    """The surface is closed by a ball of this radius in unit space, and by the chest plane."""

    preview_tile: int = 480
    """Height in pixels of one picture in the preview sheet."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: A value is outside the range it can have.
        """
        _require(32 <= self.resolution <= 1024, "resolution must be between 32 and 1024")
        _require(self.faces == 0 or self.faces >= 200, "faces must be 0 or at least 200")
        sizes = ", ".join(str(size) for size in TEXTURE_SIZES)
        _require(self.texture_size in TEXTURE_SIZES, f"texture_size must be one of {sizes}")
        _require(self.texture_bits in (8, 16), "texture_bits must be 8 or 16")
        _require(1 <= self.supersample <= 4, "supersample must be between 1 and 4")
        _require(1 <= self.volume_samples <= 15, "volume_samples must be between 1 and 15")
        _require(0 < self.volume_depth < 0.1, "volume_depth must be between 0 and 0.1")
        _require(1 <= self.padding <= 64, "padding must be between 1 and 64")
        _require(1 <= self.face_density <= 4, "face_density must be between 1 and 4")
        _require(1 <= self.face_detail <= 3, "face_detail must be between 1 and 3")
        _require(0 <= self.enhance <= 1, "enhance must be between 0 and 1")
        _require(0 <= self.photo_delight <= 1, "photo_delight must be between 0 and 1")
        _require(self.neck in ("flat", "open"), "neck must be flat or open")
        _require(0 <= self.roughness <= 1, "roughness must be between 0 and 1")
        _require(0.1 <= self.ball_radius <= 1, "ball_radius must be between 0.1 and 1")
        _require(64 <= self.preview_tile <= 2048, "preview_tile must be between 64 and 2048")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise InputError(f"Asset setting: {sentence}.", code="bad_setting")
