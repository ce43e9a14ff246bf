"""Tiny wheels and package lists with their hashes, for the tests of the setup: no network."""

import hashlib
import zipfile


def write_wheel(folder, name, version="1.0", size=0):
    """A package of one module; the wheel's SHA-256. ``size``: bytes of ballast in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if size:
        files[f"{name}_data.txt"] = "x" * size
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(inside, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_list(folder, hashes, disk_gb=0.1):
    """A list for every system: ``hashes`` maps ``name==version`` to its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# python: 3.11 3.12 3.10", "# index: ", f"# disk-gb: {disk_gb}"]
    for requirement, value in hashes.items():
        lines += ["# 1.0 MB", f"{requirement} \\", f"    --hash=sha256:{value}"]
    for name in ("linux-cpu", "linux-cuda", "windows-cpu", "windows-cuda", "macos-metal"):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
