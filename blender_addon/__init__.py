# SPDX-License-Identifier: GPL-3.0-or-later
"""3DToonify: from a phone video and one stylized portrait to a stylized 3D head, inside Blender.

Blender's side only collects inputs, starts the backend as its own process, shows its progress and
brings the result into the scene. It uses the standard library and Blender's numpy, no threads.
"""

from __future__ import annotations


def register() -> None:
    """Called by Blender when the extension is enabled."""
    from .registration import register as register_all

    register_all()


def unregister() -> None:
    """Called by Blender when the extension is disabled."""
    from .registration import unregister as unregister_all

    unregister_all()
