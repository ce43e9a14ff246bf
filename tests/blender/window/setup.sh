#!/bin/sh
# Debian trixie's Blender 4.3 in a chroot, for the tests in a real window (root, about 150 s, 1.6 GB).
# Usage: setup.sh DIR; afterwards set TOONIFY3D_BLENDER_CHROOT=DIR.
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends debootstrap xvfb xdotool imagemagick libgl1-mesa-dri
[ -x "$1/usr/bin/apt-get" ] || debootstrap --variant=minbase trixie "$1"
chroot "$1" apt-get install -y -q --no-install-recommends blender python3-numpy \
    libgl1 libgl1-mesa-dri libegl1 libglx-mesa0 libegl-mesa0
