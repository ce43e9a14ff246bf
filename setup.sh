#!/usr/bin/env bash
# Makes .venv with the backend in it.
#   ./setup.sh         what the main job needs
#   ./setup.sh test    also what the tests need (pytest, Blender's bpy module, ...)
set -euo pipefail
cd "$(dirname "$0")"

extra="${1:-}"
case "$extra" in "" | test) ;; *) echo "usage: ./setup.sh [test]" >&2; exit 2 ;; esac

# --- Python 3.10 to 3.12 (bpy 5.0, for the tests, exists for 3.11 only) -------------------------
wanted="3.11 3.12 3.10"
[ "$extra" = test ] && wanted="3.11"
python=""
for version in $wanted; do
    for candidate in "python$version" python3 python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
            python="$candidate"
            break 2
        fi
    done
done
if [ -z "$python" ]; then
    echo "setup: no Python ${wanted// / or } found; install one (Debian 12: apt install python3 python3-venv)." >&2
    exit 2
fi

# --- libraries of the system that the wheels expect (OpenCV: libGL, glib; bpy: X11) -------------
packages=()
have() { ldconfig -p 2>/dev/null | grep -q "$1"; }
have libGL.so.1 || packages+=(libgl1)
have libgthread-2.0.so.0 || packages+=(libglib2.0-0)
if [ "$extra" = test ]; then
    have libEGL.so.1 || packages+=(libegl1)
    have libXrender.so.1 || packages+=(libxrender1)
    have libXxf86vm.so.1 || packages+=(libxxf86vm1)
    have libXfixes.so.3 || packages+=(libxfixes3)
    have libXi.so.6 || packages+=(libxi6)
    have libxkbcommon.so.0 || packages+=(libxkbcommon0)
    have libSM.so.6 || packages+=(libsm6)
fi
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"
    else
        echo "setup: system libraries are missing; run: sudo apt-get install ${packages[*]}" >&2
        exit 2
    fi
fi

# --- the environment -----------------------------------------------------------------------------
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || { echo "setup: cannot make a virtual environment (Debian: apt install python3-venv)." >&2; exit 2; }
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
# torch first and alone: an unpinned torch reached through another package would be another build.
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extra:+[$extra]}"

# --- the 3D viewer of report.html (three.js, pinned, checked); it is not in the repository --------
.venv/bin/toonify3d get-viewer >/dev/null ||
    echo "setup: report.html has no 3D viewer until '.venv/bin/toonify3d get-viewer' succeeds" >&2

# --- for the tests: older Blender versions, each in a small environment of its own; a real window --
older_blender() {  # FOLDER VERSION
    "$1/bin/python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('bpy') is None)" 2>/dev/null && return
    "$python" -m venv "$1" && "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --no-deps "bpy==$2" "numpy==1.26.4" || echo "setup: bpy $2 cannot be had; its tests will be skipped" >&2
}
if [ "$extra" = test ]; then
    older_blender .venv-bpy45 4.5.15
    older_blender .venv-bpy42 4.2.23
    tests/blender/window/setup.sh "$PWD/.window-chroot"
    tests/report_page/setup.sh
fi
echo "setup: done; the command is .venv/bin/toonify3d"
