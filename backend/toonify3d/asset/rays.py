"""Moved to :mod:`toonify3d.raycast`."""

from ..raycast import Hits, MeshQuery, interpolate

__all__ = ["Hits", "MeshQuery", "interpolate"]
