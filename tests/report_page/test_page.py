"""report.html: complete, escaped, offline; its viewer turns the mesh and slides to the person."""

import hashlib
import importlib.util
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from toonify3d.asset.export import describe, write_glb, write_texture
from toonify3d.asset.mesh import vertex_normals
from toonify3d.asset.uv import Atlas
from toonify3d.cli import main
from toonify3d.errors import InputError
from toonify3d.plan import Style
from toonify3d.report_page import library, page
from toonify3d.report_page.slim import slim_glb, split_glb
from toonify3d.report_page.tables import number
from toonify3d.service.job import JobFolder, StepRecord
from toonify3d.service.reporter import Reporter
from toonify3d.settings import preset_settings
from toonify3d.steps import RunContext, write_report

NAME = "Ünï 空間 <u>\"&amp;'</u> @@STYLE@@"
EVIL = "</script><script>document.title = 'broken in'</script><img src=x onerror=alert(1)>"

_place = Path(__file__).with_name("browser.py")
_spec = importlib.util.spec_from_file_location("report_browser", _place)
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


def atlas_by_angle(vertices, faces):
    """UVs from above, good enough to colour front and back."""
    corners = vertices[faces].reshape(-1, 3)
    uv = np.stack([corners[:, 0], corners[:, 1]], 1) * 0.5 + 0.5
    return Atlas(faces.reshape(-1), np.arange(len(uv)).reshape(-1, 3), uv, 1, 0.5, None, 0)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A finished style: a red ellipsoid (style) whose person is green and twice as wide."""
    root = tmp_path_factory.mktemp("page") / "Ünï 空間"
    video = root.parent / "capture.mp4"
    video.write_bytes(b"video")
    job = JobFolder(root)
    job.create(video, {})
    job.add_style("toon", {"settings": {"asset": {"roughness": 0.9}}})
    result = job.style("toon") / "result"
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices, faces = ball.vertices * [0.1, 0.1, 0.15], np.asarray(ball.faces)
    normals = vertex_normals(vertices, faces)
    person = vertices * [2.0, 1.0, 1.0]
    red, green = (np.full((64, 64, 3), c, np.uint8) for c in ((200, 30, 30), (30, 180, 40)))
    write_texture(result / "photo_albedo.png", green)
    write_texture(result / "preview.png", np.full((40, 60, 3), 120, np.uint8))
    atlas = atlas_by_angle(vertices / 0.15, faces)
    write_glb(result / "avatar.glb", vertices, normals, atlas, red, None, 0.9, person)
    write_texture(job.style("toon") / "exemplar.png", green)
    for name in ("0003", "0011"):
        write_texture(job.style("toon") / "portraits2d" / f"{name}.png", red)
    write_texture(job.style("toon") / "portraits2d" / "palette.png", red)
    capture = {"frames": {"kept": 42}, "warnings": [EVIL]}
    job.capture.mkdir()
    (job.capture / "report.json").write_text(json.dumps(capture), encoding="utf-8")
    report = {
        "preset": "preview",
        "device": "cpu",
        "style": "toon",
        "stylizer": EVIL,
        "seconds": {"capture": 61.5, "prior": 3.25, "total": 64.75},
        "steps_from_cache": ["capture"],
        "stage1": {"heldout_psnr": 28.312, "history": [{"secret": 1}]},
        "mesh": {"faces": len(faces), "watertight": True},
        "files": describe(result, ["avatar.glb", "preview.png"]),
        "warnings": [EVIL, "Äther & <Öl>"],
        "settings": {"job": {"capture": {"long_side": 640, "folder": EVIL}}},
        "versions": {"python": "3.11"},
    }
    (result / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return root


class Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self.inside = [], [], None

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)


def outline(text):
    parser = Outline()
    parser.feed(text)
    return parser.tags, " ".join(" ".join(parser.words).split())


def made(job):
    return json.loads((job / "styles/toon/result/report.json").read_text(encoding="utf-8"))


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_folders", lambda: [tmp_path / "nowhere"])


def test_page_holds_everything_without_the_viewer(job, capsys, no_library):
    assert main(["report", str(job)]) == 0
    written = capsys.readouterr().out.strip()
    path = job / "styles" / "toon" / "result" / "report.html"
    assert written == str(path)
    text = path.read_text(encoding="utf-8")
    tags, words = outline(text)
    for part in (
        "toon",
        "61.5 s",
        "capture (from cache)",
        "28.31 dB",
        "frame 0003",
        "frame 0011",
        "Frames kept 42",
        "Äther & <Öl>",
        "job.capture.long_side 640",
        made(job)["files"]["avatar.glb"]["sha256"],
        "toonify3d get-viewer",
    ):
        assert part in words, part
    assert "secret" not in text and "palette" not in words
    pictures = [attrs["src"] for tag, attrs in tags if tag == "img"]
    assert len(pictures) == 4 and all(src.startswith("data:image/jpeg") for src in pictures)
    assert not [tag for tag, _ in tags if tag == "script"]
    assert library.MISSING in made(job)["warnings"]
    entry = made(job)["files"]["report.html"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_finished_job_writes_the_page(job, tmp_path, no_library):
    """The end of every job: ``steps.write_report`` writes page and report.json together."""
    root = tmp_path / "job"
    shutil.copytree(job, root)
    result = root / "styles" / "toon" / "result"
    files = describe(result, ["avatar.glb", "preview.png"])
    for name in ("report.json", "report.html"):
        (result / name).unlink(missing_ok=True)
    settings, chosen = preset_settings("preview")
    figures = {"capture": {"frames_used": 42}, "portraits": {"views_stylized": 2}}
    figures["asset"] = {"mesh": {"faces": 5120}, "texture": {"width": 64}, "files": files}
    steps = ("capture", "prior", "portraits", "geometry", "texture", "asset")
    records = {name: StepRecord("key", 2.0, (EVIL,), figures.get(name, {})) for name in steps}
    context = RunContext(JobFolder(root), "cpu", Reporter(root, []), "preview", records)
    style = Style("toon", root / "exemplar.png", "0", "builtin", None, None, chosen)
    write_report(context, result, settings, style)
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    page_ = result / "report.html"
    assert report["files"]["report.html"]["bytes"] == page_.stat().st_size
    assert set(report["files"]) == {"avatar.glb", "preview.png", "report.html"}
    assert report["warnings"][-1] == library.MISSING
    _, words = outline(page_.read_text(encoding="utf-8"))
    assert "12 s" in words and "5,120" in words and "42" in words


def test_nothing_breaks_out_of_the_page(job, no_library):
    result = job / "styles" / "toon" / "result"
    text = page.build_page(made(job) | {"style": NAME}, result, JobFolder(job), NAME, None)
    tags, words = outline(text)
    assert not [tag for tag, _ in tags if tag in ("script", "u")]
    assert "onerror" not in json.dumps([attrs for _, attrs in tags])
    assert NAME in words and EVIL in words
    policy = next(a["content"] for t, a in tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy and "http" not in policy
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:|//)", text)


def test_numbers_as_people_write_them():
    assert number(None) == "&ndash;" and number(float("nan")) == "&ndash;"
    assert number(True) == "yes" and number(1234567) == "1,234,567"
    assert number(0.123456) == "0.1235" and number("<") == "&lt;"


def test_slim_glb_keeps_the_mesh(job):
    data = (job / "styles/toon/result/avatar.glb").read_bytes()
    slim = slim_glb(data, 32)
    before, after = (
        trimesh.load(trimesh.util.wrap_as_stream(d), file_type="glb") for d in (data, slim)
    )
    (a,), (b,) = before.geometry.values(), after.geometry.values()
    assert np.allclose(a.vertices, b.vertices) and (a.faces == b.faces).all()
    assert b.visual.material.baseColorTexture.size == (32, 32)
    assert np.abs(np.asarray(b.visual.material.baseColorTexture)[5, 5] - [200, 30, 30]).max() <= 6
    tree, binary = split_glb(slim)
    assert tree["meshes"][0]["extras"]["targetNames"] == ["Photoreal"]
    assert tree["buffers"][0]["byteLength"] == len(binary) and len(slim) % 4 == 0
    assert {image["mimeType"] for image in tree["images"]} == {"image/jpeg"}
    with pytest.raises(ValueError, match="glTF"):
        slim_glb(b"PK" + bytes(100))


def test_another_library_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "library_folders", lambda: [tmp_path / "kept"])
    wrong = tmp_path / "three.tgz"
    wrong.write_bytes(b"not three")
    assert main(["get-viewer", "--archive", str(wrong)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "SHA-256" in error
    assert main(["get-viewer", "--archive", str(tmp_path / "none.tgz")]) == 2
    assert "none.tgz" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(library, "ARCHIVE", "http://127.0.0.1:9/three.tgz")
    with pytest.raises(InputError, match="--archive"):
        library.get_library()


def test_a_changed_library_is_not_used(tmp_path, monkeypatch):
    if library.find_library() is None:
        pytest.skip("the viewer's library is not installed ('toonify3d get-viewer')")
    for name, data in library.find_library().items():
        (tmp_path / Path(library.FILES[name][0]).name).write_bytes(data)
    monkeypatch.setattr(library, "library_folders", lambda: [tmp_path])
    assert library.find_library() is not None
    (tmp_path / "GLTFLoader.js").write_text("alert(1)", encoding="utf-8")
    assert library.find_library() is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "nowhere"], "nowhere"),
        (["report", "JOB", "--style", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_one_sentence(job, capsys, arguments, words):
    assert main([str(job) if a == "JOB" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_full_disk_keeps_the_earlier_page(job, monkeypatch, capsys):
    assert main(["report", str(job)]) == 0
    result = job / "styles" / "toon" / "result"
    before = {path.name: path.read_bytes() for path in result.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["report", str(job)]) == 2
    assert "No space" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in result.iterdir()} == before


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_viewer_turns_and_slides_in_a_real_browser(job, tmp_path):
    if browser.find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    if library.find_library() is None:
        pytest.skip("the viewer's library is not installed ('toonify3d get-viewer')")
    assert main(["report", str(job)]) == 0
    assert library.MISSING not in made(job)["warnings"]
    address = (job / "styles/toon/result/report.html").resolve().as_uri()
    page_ = browser.Browser(tmp_path / "profile")
    try:
        page_.open(address + "#shading=flat")
        page_.wait("document.documentElement.dataset.viewer === 'ready'")
        assert page_.evaluate("document.title") == "toon – toonify3d"
        box = page_.evaluate(
            "JSON.stringify(document.querySelector('#viewer canvas').getBoundingClientRect())"
        )
        box = {key: int(value) for key, value in json.loads(box).items()}
        style = decode(page_.picture())
        page_.evaluate(
            "const s = document.getElementById('photoreal'); s.value = 1;"
            "s.dispatchEvent(new Event('input')); true"
        )
        drawn = page_.evaluate("document.documentElement.dataset.drawn")
        page_.wait(f"document.documentElement.dataset.drawn > {drawn} + 1")
        person = decode(page_.picture())
        complaints, requested = page_.complaints(), page_.requested()
        (tmp_path / "viewer.png").write_bytes(page_.picture())
    finally:
        page_.close()
    assert complaints == []
    assert [url for url in requested if not url.startswith("file:")] == []
    y, x = box["y"] + box["height"] // 2, box["x"] + box["width"] // 2
    assert np.abs(style[y, x] - [200, 30, 30]).max() <= 8
    assert np.abs(person[y, x] - [30, 180, 40]).max() <= 8
    reds = (np.abs(style - [200, 30, 30]).max(-1) < 25)[box["y"] : box["bottom"]]
    greens = (np.abs(person - [30, 180, 40]).max(-1) < 25)[box["y"] : box["bottom"]]
    wide, high = (np.ptp(np.flatnonzero(reds.any(axis))) for axis in (0, 1))
    assert high / wide == pytest.approx(1.5, abs=0.05)
    # The person is twice as wide and as high: the slider moves the mesh, not only its colours.
    wider, same = (np.ptp(np.flatnonzero(greens.any(axis))) for axis in (0, 1))
    assert wider / wide == pytest.approx(2.0, abs=0.1) and same / high == pytest.approx(1, abs=0.05)
