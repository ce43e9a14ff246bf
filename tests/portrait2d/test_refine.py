"""Landmarks pulled onto what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.refine import refine_landmarks

BROWS = [*lm.RIGHT_BROW, *lm.LEFT_BROW]


@pytest.mark.parametrize("low", [0.0, 0.2])
def test_brows_found_too_low_are_lifted_onto_the_drawn_ones(low):
    """``low``: by how many distances between the eyes the detector looks below the brows."""
    size, scale = 400, 60.0
    image, at = draw_face(face_landmarks(), size, scale)
    skin = np.array([240, 190, 150])
    feature = (np.abs(image.astype(int) - skin).max(2) > 30).astype(np.float32)
    detected = at.copy()
    unit = np.linalg.norm(at[list(lm.LEFT_EYE), :2].mean(0) - at[list(lm.RIGHT_EYE), :2].mean(0))
    detected[BROWS, 1] += low * unit
    found = refine_landmarks(detected, feature, 1.0 - feature, 0.5)
    error = np.abs(found[BROWS, :2].mean(0) - at[BROWS, :2].mean(0))
    assert error.max() < 0.05 * unit
