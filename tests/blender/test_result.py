"""Reading result folders, without bpy."""

import numpy as np
import pytest
from blender_addon.scene.result import ResultError, load_avatar, read_obj

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
UVS = VERTICES[FACES][..., [0, 2]]


def write_npz(folder, **changes):
    arrays = {"vertices": VERTICES, "faces": FACES, "uvs": UVS, **changes}
    np.savez(folder / "avatar.npz", **{k: v for k, v in arrays.items() if v is not None})


def test_both_formats_say_the_same(tmp_path):
    write_npz(tmp_path, normals=np.tile(np.float32([0, -1, 0]), (4, 1)))
    compact = load_avatar(tmp_path)
    (tmp_path / "avatar.npz").unlink()
    rows = ["mtllib a.mtl", "o Avatar"]
    rows += [f"v {x} {y} {z}" for x, y, z in VERTICES]
    rows += [f"vt {u} {v}" for u, v in VERTICES[:, [0, 2]]]
    rows += ["vn 0 -1 0"] * 4 + ["s 1", "f 1/1/1 2/2/2 3/3/3 -1/-1/-1", "# end"]
    (tmp_path / "avatar.obj").write_text("\n".join(rows))
    plain = load_avatar(tmp_path)
    for name in ("vertices", "faces", "uvs", "normals"):
        np.testing.assert_array_equal(getattr(compact, name), getattr(plain, name))


def test_textures_beside_it_are_found(tmp_path):
    write_npz(tmp_path)
    assert load_avatar(tmp_path).albedo is None
    for name in ("albedo.png", "normal.png", "photo_albedo.png"):
        (tmp_path / name).write_bytes(b"x")
    found = load_avatar(tmp_path)
    assert found.albedo.name == "albedo.png" and found.normal_map.name == "normal.png"
    assert found.photo_albedo.name == "photo_albedo.png"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faces": FACES + 2}, "damaged"),
        ({"faces": FACES - 1}, "damaged"),
        ({"faces": FACES[:0]}, "no faces"),
        ({"faces": None}, "no faces"),
        ({"vertices": VERTICES * np.nan}, "damaged"),
        ({"vertices": VERTICES[:, :2]}, "shape"),
        ({"uvs": UVS[:1]}, "texture coordinates"),
        ({"uvs": UVS[:, :2]}, "shape"),
        ({"normals": VERTICES[:3]}, "normals"),
        ({"prior_vertices": VERTICES[:3]}, "prior_vertices"),
        ({"vertices": np.array([["a", "b", "c"]])}, "shape"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, changes, words):
    write_npz(tmp_path, **changes)
    with pytest.raises(ResultError, match=words):
        load_avatar(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    np.savez(tmp_path / "avatar.npz", vertices=np.array([{}], dtype=object), faces=FACES)
    with pytest.raises(ResultError):
        load_avatar(tmp_path)


@pytest.mark.parametrize("text", ["", "v 0 0 0\n", "v 0 0\nf 1 1 x\n", "v a b c\n"])
def test_damaged_obj_is_refused(tmp_path, text):
    path = tmp_path / "avatar.obj"
    path.write_text(text)
    with pytest.raises(ResultError):
        read_obj(path)


def test_nothing_there(tmp_path):
    with pytest.raises(ResultError, match="no avatar"):
        load_avatar(tmp_path)
