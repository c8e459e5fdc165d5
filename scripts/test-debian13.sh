#!/usr/bin/env bash
# Runs the tests that meet uWebSockets.js on Debian 13 with Node 24, as the image has them: only there its newer build loads. Wants root and
# debootstrap; makes the Debian in a temporary folder and leaves nothing behind. Arguments go to vitest; without any, all of test/e2e and test/contract.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
export tidegate=$work/tidegate debian=$work/debian
(($# > 0)) || set -- test/e2e test/contract

# The machine's own mirror, or Debian's.
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 || true)
debootstrap --variant=minbase --include=curl,openssl,procps trixie "$debian" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
  { tail -n 20 "$work/debootstrap.log" && exit 1; }

# Installed and built outside, where compiler and npm are: the addon speaks Node-API, and runs with a newer glibc than it was built with.
git clone --quiet "$root" "$tidegate"
cd "$tidegate"
npx -y -p node@24 -c 'npm install --no-fund --no-audit && npm run build && cp -L "$(command -v node)" "$debian/usr/local/bin/"'

cp /etc/hosts /etc/resolv.conf "$debian/etc/"
mkdir "$debian/srv/tidegate"
# What wants programs that this Debian has not is run elsewhere.
unset TIDEGATE_TEST_REQUIRE
# What is mounted here nobody else sees, and it is gone with the last process.
unshare --mount --propagation private bash -euc '
  for folder in /proc /dev /dev/shm; do mount --bind "$folder" "$debian$folder"; done
  mount --bind "$tidegate" "$debian/srv/tidegate"
  export HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
  exec chroot "$debian" sh -c '\''cd /srv/tidegate && exec node node_modules/vitest/vitest.mjs run "$@"'\'' sh "$@"
' bash "$@"
