#!/usr/bin/env bash
# Chromium for the page's test and Khronos' glTF validator for the GLB's; without them those tests
# are skipped and say so, so nothing here stops the set-up.
set -uo pipefail
cd "$(dirname "$0")/../.."
VALIDATOR=2.0.0-dev.3.10

if ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null ||
            echo "setup: no Chromium can be had; the test of report.html in a browser will be skipped" >&2
    else
        echo "setup: no Chromium; for the test of report.html in a browser: sudo apt-get install chromium" >&2
    fi
fi
if command -v npm >/dev/null; then
    [ -d .cache/node/node_modules/gltf-validator ] ||
        npm install --prefix .cache/node --no-save --no-audit --no-fund --silent "gltf-validator@$VALIDATOR" ||
        echo "setup: gltf-validator cannot be had; its tests will be skipped" >&2
else
    echo "setup: npm is not here; the tests by Khronos' glTF validator will be skipped" >&2
fi
exit 0
