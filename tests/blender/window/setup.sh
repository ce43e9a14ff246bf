#!/bin/bash
# Debian trixie's Blender 4.3 in a chroot, for the test in a real window (root, about 150 s, 1.7 GB).
# Usage: setup.sh DIR. Where it cannot be had, DIR.reason says why, the exit code is 0 all the same,
# and test_window.py is skipped with that reason.
set -u
root="$1"
export DEBIAN_FRONTEND=noninteractive
quiet="-qq -y --no-install-recommends"
tools="debootstrap xvfb xdotool imagemagick libgl1-mesa-dri"
inside="blender python3-numpy libgl1 libgl1-mesa-dri libegl1 libglx-mesa0 libegl-mesa0"

give_up() {
    echo "$1" >"$root.reason"
    echo "setup: no Blender window for the tests: $1" >&2
    exit 0
}
run() { # SECONDS COMPLAINT COMMAND...: its output is shown only when it fails
    local seconds="$1" complaint="$2" log
    shift 2
    log="$(timeout "$seconds" "$@" </dev/null 2>&1)" || {
        echo "$log" | tail -n 5 >&2
        give_up "$complaint"
    }
}

[ "$(uname -s)" = Linux ] || give_up "it needs Debian"
[ -f /etc/debian_version ] && command -v apt-get >/dev/null || give_up "it needs Debian"
[ "$(id -u)" = 0 ] || give_up "a chroot needs root"
for tool in debootstrap Xvfb xdotool import; do
    command -v "$tool" >/dev/null && continue
    run 300 "apt-get cannot reach the Debian archive" apt-get update -qq
    # shellcheck disable=SC2086
    run 600 "apt-get cannot install $tools" apt-get install $quiet $tools
    break
done
if [ ! -x "$root/usr/bin/blender" ]; then
    rm -rf "$root" "$root.part" # of an earlier attempt that was interrupted
    run 600 "debootstrap failed (no network, or no chroot allowed here)" \
        debootstrap --variant=minbase trixie "$root.part"
    # shellcheck disable=SC2086
    run 900 "Blender cannot be installed in the chroot" chroot "$root.part" apt-get install $quiet $inside
    chroot "$root.part" apt-get clean
    mv "$root.part" "$root"
fi
rm -f "$root.reason"
