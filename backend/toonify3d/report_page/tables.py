"""The page's tables: pieces of HTML from a report; everything that is filled in is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What an artist asks first: place in the report, words, unit.
_TILES = (
    ("seconds.total", "whole job", "s"),
    ("peak_rss_mb", "memory, peak", "MB"),
    ("frames_used", "frames used", ""),
    ("views_stylized", "portraits", ""),
    ("mesh.faces", "triangles", ""),
    ("texture.width", "texture", "px"),
    ("stage1.heldout_psnr", "person, held-out views", "dB"),
    ("stage3.portrait_psnr", "style, portraits", "dB"),
)
_QUALITY = (
    ("stage1.heldout_psnr", "Person: held-out frames, PSNR", "dB"),
    ("stage3.portrait_psnr", "Style: albedo against the portraits, PSNR", "dB"),
    ("stage2.smallest_determinant", "Shape: smallest local volume change (above 0: no folds)", ""),
    ("mesh.vertices", "Vertices", ""),
    ("mesh.faces", "Triangles", ""),
    ("mesh.requested_faces", "Triangles asked for", ""),
    ("mesh.watertight", "Watertight", ""),
    ("mesh.manifold", "Manifold", ""),
    ("mesh.components", "Pieces", ""),
    ("mesh.genus", "Handles (genus)", ""),
    ("mesh.self_intersections", "Triangles that run through one another", ""),
    (
        "mesh.photoreal.surface_p95",
        "Slider at the person: 95 % of it nearer than",
        "%",
    ),
    ("mesh.photoreal.surface_max", "Slider at the person: largest distance (of the size)", "%"),
    ("mesh.photoreal.flipped_faces", "Slider: triangles that turn over on the way", ""),
    ("texture.charts", "UV charts", ""),
    ("texture.overlap_texels", "UV overlap", "texels"),
    ("texture.utilization", "Texture used", "share"),
    ("texture.coverage", "Chart texels filled", "share"),
    ("texture.face_density", "Texel density of the face against the rest", "x"),
)
# What the capture step writes, in words; anything else is shown under its own name.
_CAPTURE = {
    "frames.decoded": ("Frames read", ""),
    "frames.duplicates": ("Frames left out: duplicates", ""),
    "frames.blurred": ("Frames left out: blurred", ""),
    "frames.kept": ("Frames kept", ""),
    "frames.registered": ("Frames with a camera", ""),
    "cameras.model": ("Lens model", ""),
    "cameras.focal_px": ("Focal length", "px"),
    "cameras.k": ("Lens distortion", ""),
    "cameras.reprojection_error_px": ("Cameras: reprojection error", "px"),
    "cameras.sparse_points": ("Cameras: points", ""),
    "face.views": ("Frames with a face", ""),
    "face.landmark_error_px": ("Face landmarks: error", "px"),
    "masks.source": ("Masks", ""),
    "masks.yours": ("Masks of your own", ""),
    "depth.source": ("Depth", ""),
    "depth.maps": ("Depth maps", ""),
    "seconds.frames": ("Time: reading frames", "s"),
    "seconds.faces": ("Time: faces", "s"),
    "seconds.cameras": ("Time: cameras", "s"),
    "seconds.alignment": ("Time: upright and to size", "s"),
    "seconds.masks": ("Time: masks", "s"),
    "seconds.writing": ("Time: writing", "s"),
    "seconds.depth": ("Time: depth", "s"),
}
_STEPS = {
    "capture": "capture",
    "prior": "stage I, the person",
    "portraits": "stylized portraits",
    "geometry": "stage II, shape",
    "texture": "stage III, albedo",
    "asset": "mesh and textures",
}
_SKIPPED = {"history", "palette", "settings", "files", "versions", "warnings"}


def number(value: Any) -> str:
    """A value as a person writes it, escaped."""
    if value is None:
        return "&ndash;"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "&ndash;"
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return html.escape(text)
    return html.escape(str(value))


def look_up(report: dict[str, Any], path: str) -> Any:
    """The value at ``a.b.c``; None when it is not there."""
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def subtitle(report: dict[str, Any], root: Path) -> str:
    """One line under the name."""
    words = [
        f"preset {report.get('preset', '?')}",
        f"stylizer {report.get('stylizer', '?')}",
        f"device {report.get('device', '?')}",
        f"job {root.resolve().name}",
    ]
    return html.escape(" · ".join(words))


def warnings(report: dict[str, Any]) -> str:
    """What degraded, or nothing."""
    found = [str(text) for text in report.get("warnings") or []]
    if not found:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in found)
    return f'<div class="card" style="margin-bottom:16px"><ul class="warnings">{items}</ul></div>'


def tiles(report: dict[str, Any]) -> str:
    """The few figures that are asked for first."""
    shown = [(look_up(report, path), words, unit) for path, words, unit in _TILES]
    cells = "".join(
        f'<div class="tile"><b>{number(value)} {unit}</b><span>{html.escape(words)}</span></div>'
        for value, words, unit in shown
        if value is not None
    )
    return f'<h2>At a glance</h2>\n<div class="tiles">{cells}</div>' if cells else ""


def seconds(report: dict[str, Any]) -> str:
    """Wall time per step, as bars."""
    taken = {
        str(key): float(value)
        for key, value in (report.get("seconds") or {}).items()
        if isinstance(value, int | float) and key != "total"
    }
    if not taken:
        return ""
    longest = max([*taken.values(), 1e-9])
    cached = set(report.get("steps_from_cache") or [])
    rows = []
    for key, value in taken.items():
        words = html.escape(_STEPS.get(key, key)) + (" (from cache)" if key in cached else "")
        bar = f'<div class="bar" style="width:{100 * value / longest:.1f}%"></div>'
        rows.append(f'<tr><th>{words}</th><td class="number">{value:.1f} s</td><td>{bar}</td></tr>')
    return f'<h2>Time</h2>\n<div class="card"><table>{"".join(rows)}</table></div>'


def quality(report: dict[str, Any]) -> str:
    """The figures that say how good it is, and every other one folded away."""
    shown = [(words, look_up(report, path), unit) for path, words, unit in _QUALITY]
    rows = "".join(
        _row(words, _measured(value, unit)) for words, value, unit in shown if value is not None
    )
    rest = "".join(
        _row(path, number(value)) for path, value in _leaves(report, "") if not path.startswith("_")
    )
    return (
        f'<h2>Quality</h2>\n<div class="card"><table>{rows}</table></div>\n'
        f'<details class="card"><summary>Every figure</summary><table>{rest}</table></details>'
    )


def capture(found: dict[str, Any]) -> str:
    """What the capture step found out."""
    shown = [(*_CAPTURE.get(path, (path, "")), value) for path, value in _leaves(found, "")]
    rows = "".join(_row(words, _measured(value, unit)) for words, unit, value in shown)
    notes = [str(text) for text in found.get("warnings") or []]
    said = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    list_ = f'<ul class="warnings">{said}</ul>' if said else ""
    return f'<h2>Capture</h2>\n<div class="card">{list_}<table>{rows}</table></div>' if rows else ""


def files(report: dict[str, Any]) -> str:
    """Names, sizes, hashes."""
    entries = report.get("files") or {}
    rows = []
    for name, entry in sorted(entries.items()):
        size = number(int(entry["bytes"]))
        digest = html.escape(str(entry["sha256"]))
        rows.append(
            f'<tr><th>{html.escape(str(name))}</th><td class="number">{size} bytes</td>'
            f"<td><code>sha256 {digest}</code></td></tr>"
        )
    return f'<h2>Files</h2>\n<div class="card"><table>{"".join(rows)}</table></div>' if rows else ""


def settings(report: dict[str, Any]) -> str:
    """Settings and versions, folded away."""
    chosen = "".join(
        _row(path, number(value)) for path, value in _leaves(report.get("settings") or {}, "")
    )
    used = "".join(_row(str(k), number(v)) for k, v in (report.get("versions") or {}).items())
    return (
        f'<h2>Settings</h2>\n<details class="card"><summary>Settings of this result</summary>'
        f"<table>{chosen}</table></details>\n"
        f'<details class="card"><summary>Versions</summary><table>{used}</table></details>'
    )


def _measured(value: Any, unit: str) -> str:
    """A value with its unit; a share in percent."""
    if unit == "share" and isinstance(value, int | float):
        return f"{number(100.0 * value)} %"
    return f"{number(value)} {unit}".strip()


def _row(words: str, value: str) -> str:
    return f"<tr><th>{html.escape(words)}</th><td>{value}</td></tr>"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Plain values of nested objects with their paths; long lists are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _SKIPPED:
                yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if len(value) <= 8 and not any(isinstance(item, dict | list) for item in value):
            yield path, ", ".join(str(item) for item in value)
    else:
        yield path, value
