# SPDX-License-Identifier: GPL-3.0-or-later
"""Registering everything, and taking everything back."""

import logging

import bpy

from . import operators, panels, preferences, properties, session

logger = logging.getLogger(__name__)

CLASSES = (
    *properties.CLASSES,
    *preferences.CLASSES,
    *operators.CLASSES,
    *panels.CLASSES,
)


def register() -> None:
    """Register classes and properties; undone completely when it fails half way."""
    done: list[type] = []
    try:
        for cls in CLASSES:
            bpy.utils.register_class(cls)
            done.append(cls)
        properties.register_properties()
        session.watch.start()
    except Exception:
        for cls in reversed(done):
            bpy.utils.unregister_class(cls)
        raise


def unregister() -> None:
    """Stop everything and unregister; one failure does not keep the rest registered."""
    session.close()
    properties.unregister_properties()
    for cls in reversed(CLASSES):
        try:
            bpy.utils.unregister_class(cls)
        except RuntimeError:
            logger.exception("%s was not unregistered", cls.__name__)
