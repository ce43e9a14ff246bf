"""``report.html``: everything about a result in one file that works offline, by ``file://`` too.

Pictures, the mesh and the viewer's library are carried inside; the page's own content security
policy forbids it to load anything from outside. Everything that comes from names, settings and
warnings is escaped.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .. import __version__
from ..asset.export import describe
from ..asset.preview import front_photo
from ..errors import InputError
from ..files import read_image, write_json, write_text
from ..scene import ByteImage, Scene
from ..service.job import JobFolder
from . import tables
from .library import MISSING, find_library, modules
from .slim import encode_jpeg, slim_glb

PAGE = "report.html"
MOST_PORTRAITS = 14
PICTURE_PIXELS, PREVIEW_PIXELS, TEXTURE_PIXELS = 640, 2400, 2048


def add_page(report: dict[str, Any], folder: Path, job: JobFolder, style: str) -> dict[str, Any]:
    """Write ``report.html`` into a result's folder and say so in the report.

    Args:
        report: What ``report.json`` is to hold.
        folder: ``styles/NAME/result``.
        job: The job.
        style: Name of the style.

    Returns:
        The report with the page among its files, and with a warning when the page has no viewer.

    Raises:
        OSError: Not writable; a page already there stays whole.
    """
    library = find_library()
    warnings = [text for text in report.get("warnings") or [] if text != MISSING]
    report = report | {"warnings": warnings + ([MISSING] if library is None else [])}
    write_text(folder / PAGE, build_page(report, folder, job, style, library))
    files = report.get("files") or {}
    return report | {"files": files | describe(folder, [PAGE])}


def refresh_page(job: Path, style: str, folder: Path) -> Path:
    """Write the page of a finished style again, from its ``report.json``.

    Args:
        job: The job folder.
        style: Name of the style.
        folder: ``styles/NAME/result``.

    Returns:
        The page.

    Raises:
        InputError: ``report.json`` is damaged.
        OSError: Not writable; files already there stay whole.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be read ({error}); delete it and resume the job.", "bad_result"
        ) from error
    write_json(path, add_page(report, folder, JobFolder(job), style))
    return folder / PAGE


def build_page(
    report: dict[str, Any],
    folder: Path,
    job: JobFolder,
    style: str,
    library: dict[str, bytes] | None,
) -> str:
    """The page as text; see :func:`add_page`.

    Args:
        report: What ``report.json`` holds.
        folder: ``styles/NAME/result``.
        job: The job.
        style: Name of the style.
        library: The viewer's files from :func:`.library.find_library`, or None.
    """
    glb = folder / "avatar.glb"
    able = library is not None and glb.is_file()
    sections = [
        _preview(folder),
        _pictures(job, style),
        tables.tiles(report),
        tables.seconds(report),
        tables.quality(report),
        tables.capture(_json(job.capture / "report.json")),
        tables.files(report),
        tables.settings(report),
    ]
    values = {
        "VERSION": html.escape(__version__),
        "TITLE": html.escape(f"{style} – toonify3d"),
        "STYLE": _asset("page.css"),
        "NAME": html.escape(style),
        "SUBTITLE": tables.subtitle(report, job.root),
        "WARNINGS": tables.warnings(report),
        "VIEWER": _viewer(report) if able else _no_viewer(glb),
        "SECTIONS": "\n".join(section for section in sections if section),
        "SCRIPTS": _scripts(library, glb, folder) if able and library is not None else "",
    }
    # One pass: what is filled in is never filled in again.
    return re.sub(r"@@([A-Z]+)@@", lambda found: values[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


# -- the viewer -------------------------------------------------------------------------------


def _viewer(report: dict[str, Any]) -> str:
    mesh = report.get("mesh") or {}
    faces = f"{mesh['faces']:,} triangles" if isinstance(mesh.get("faces"), int) else ""
    return f"""<div class="card">
<div id="viewer"><p id="viewer-note">Loading the mesh &hellip;</p></div>
<div class="controls">
<label>Style <input id="photoreal" type="range" min="0" max="1" step="0.01" value="0"
 aria-label="From the style to the person"> Person</label>
<label>Show <select id="shading"><option value="lit">lit</option><option value="flat">colours
</option><option value="clay">clay</option><option value="wire">wireframe</option></select></label>
<label><input id="turn" type="checkbox"> turn</label>
<span><button data-look="front">front</button> <button data-look="three-quarter">&frac34;</button>
<button data-look="side">side</button> <button data-look="back">back</button></span>
<span class="sub" style="margin:0">{faces}</span>
</div>
</div>
<noscript><p class="none">The 3D viewer needs JavaScript; the rest does not.</p></noscript>"""


def _no_viewer(glb: Path) -> str:
    words = MISSING if glb.is_file() else f"There is no {glb.name} beside this page to show."
    return f'<div class="card"><p class="none" id="no-viewer">{html.escape(words)}</p></div>'


def _scripts(library: dict[str, bytes], glb: Path, folder: Path) -> str:
    """The mesh, the person's colours, the library as an import map, and our own module."""
    imports = {
        name: "data:text/javascript;base64," + base64.b64encode(text.encode()).decode()
        for name, text in modules(library).items()
    }
    model = base64.b64encode(slim_glb(glb.read_bytes(), TEXTURE_PIXELS)).decode()
    parts = [f'<script type="text/plain" id="glb">{model}</script>']
    photo = folder / "photo_albedo.png"
    if photo.is_file():
        address = _data(_rgb(photo), TEXTURE_PIXELS)
        parts.append(f'<script type="text/plain" id="photo-albedo">{address}</script>')
    licence = html.escape(library["licence"].decode("utf-8")).replace("--", "- -")
    parts.append(f"<!-- The 3D viewer uses three.js:\n{licence}\n-->")
    parts.append(f'<script type="importmap">{json.dumps({"imports": imports})}</script>')
    parts.append(f'<script type="module">\n{_asset("viewer.js")}\n</script>')
    return "\n".join(parts)


# -- pictures ---------------------------------------------------------------------------------


def _rgb(path: Path) -> ByteImage:
    return np.ascontiguousarray(read_image(path, cv2.IMREAD_COLOR)[..., ::-1])


def _data(image: ByteImage, most: int) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, most)).decode()


def _preview(folder: Path) -> str:
    path = folder / "preview.png"
    if not path.is_file():
        return ""
    address = _data(_rgb(path), PREVIEW_PIXELS)
    return f'<h2>Preview</h2>\n<div class="card"><img src="{address}" alt="preview"></div>'


def _pictures(job: JobFolder, style: str) -> str:
    """Photo, exemplar and the stylized portraits."""
    shown = []
    photo = _photo(job)
    if photo is not None:
        shown.append(_figure(photo, "the person", ""))
    for path in sorted(job.style(style).glob("exemplar.*"))[:1]:
        image = _readable(path)
        if image is not None:
            shown.append(_figure(image, "the exemplar", ""))
    folder = job.style(style) / "portraits2d"
    names = [path for path in sorted(folder.glob("*.png")) if path.stem.isdigit()]
    portraits = [(path.stem, _readable(path)) for path in names[:MOST_PORTRAITS]]
    small = [
        _figure(image, f"frame {name}", "small") for name, image in portraits if image is not None
    ]
    out = []
    if shown:
        out.append('<h2>From</h2>\n<div class="pictures">' + "\n".join(shown) + "</div>")
    if small:
        more = f" (the first {MOST_PORTRAITS})" if len(names) > MOST_PORTRAITS else ""
        title = f"<h2>Stylized portraits{more}</h2>"
        out.append(f'{title}\n<div class="pictures">' + "\n".join(small) + "</div>")
    return "\n".join(out)


def _photo(job: JobFolder) -> ByteImage | None:
    try:
        return front_photo(Scene.load(job.capture))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _readable(path: Path) -> ByteImage | None:
    try:
        return _rgb(path)
    except (OSError, cv2.error):
        return None


def _figure(image: ByteImage, caption: str, kind: str) -> str:
    words = html.escape(caption)
    address = _data(image, PICTURE_PIXELS)
    return (
        f'<figure class="{kind}"><img src="{address}" alt="{words}">'
        f"<figcaption>{words}</figcaption></figure>"
    )
