"""Settings of the built-in 2D portrait stylizer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StylizeSettings:
    """How the exemplar is applied to the frames."""

    look: str = "auto"
    """How the exemplar is read: toon, cel (flat tones), paint (brush strokes), hatch (chalk,
    engraving), ink (two tones and lines), colour (colours and strokes only: no face needed, no
    change of shape); auto chooses by the picture."""
    strength: float = 0.7
    """Shape change, 0 (the person's own shape) to 1.5 (beyond the exemplar's proportions)."""
    relative_to: str = "mean"
    """What the exemplar's proportions are compared with: mean (a shipped mean face: what is special
    about the exemplar is added to what is special about the person), person (the person's own
    face: strength 1 ends at the exemplar's proportions)."""
    oval_weight: float = 1.0
    """Share of the shape change that the outline of face and head takes, 0 to 2."""
    jaw_weight: float = 1.0
    """Share of the shape change that the outline takes below the mouth (jaw and chin), 0 to 2."""
    eyes_weight: float = 1.0
    """Share of the shape change that the eyes take, 0 to 2."""
    brows_weight: float = 1.4
    """Share of the shape change that the brows take, 0 to 2; being drawn, they come
    nearer to the exemplar's by default than the head does (but not beyond it up to strength 1)."""
    nose_weight: float = 1.0
    """Share of the shape change that the nose takes, 0 to 2."""
    mouth_weight: float = 1.0
    """Share of the shape change that the mouth takes, 0 to 2."""
    symmetric: bool = True
    """Average the exemplar's left and right half, so that a turned head bends nothing sideways."""
    expression: float = 0.0
    """How far the mouth takes the exemplar's expression (smile, open mouth), 0 (keeps the
    person's) to 1."""
    max_yaw: float = 0.2
    """Frames whose camera is within this angle (radians) of front or back are stylized."""
    min_frames: int = 4
    """Take the nearest frames when fewer than this many lie within the angle, front and back."""
    max_frames: int = 14
    """Most frames near front and back together (an even choice)."""
    side_frames: int = 6
    """Frames between front and back that the built-in stylizer paints as well, evenly spread: it
    paints one head from every side (0: front and back only, as the paper does; other stylizers
    get only these)."""
    shading: float = 1.0
    """How much of the person's own light and shadow stays on skin and hair, 0 to 2."""
    delight: float = 1.0
    """How much of the room's light is taken out of the person before stylizing, 0 (none) to 1 (a
    look of brush, chalk or colours only takes out 0.6 of it: its form lives on light)."""
    exemplar_detail: float = 0.6
    """How much of the exemplar's own drawing on the skin (nose, cheeks) is used, 0 to 1."""
    chroma_variation: float = 0.33
    """How much of the person's own variation of skin colour (red cheeks, ears) stays, 0 to 1."""
    clothes_saturation: float = 1.15
    """Colourfulness of the clothes against the photo."""
    lip_contrast: float = 30.0
    """Largest difference (CIELAB) between lips and skin taken from a toon's mouth; more reads as
    lipstick on a shut mouth."""
    strokes: float = 1.0
    """How strongly the exemplar's brush or chalk strokes are laid on (paint, hatch), 0 to 2."""
    stroke_size: float = 1.2
    """Size of the strokes against the face, 1 as in the exemplar, 0.5 to 3."""
    lines: float = 0.8
    """Darkness of drawn lines (hatch, ink), 0 to 1."""

    def component_weight(self, component: str) -> float:
        """The weight of ``oval``, ``jaw``, ``eyes``, ``brows``, ``nose`` or ``mouth``."""
        return float(getattr(self, f"{component}_weight"))
