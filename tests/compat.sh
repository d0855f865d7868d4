#!/bin/sh
# make compat: the tests of containerd's and docker's faces, both ways, with the clients and daemons of another Debian release (SUITE, trixie)
# in place of Debian 12's. Runtimes and everything else stay as they are. With them stargz-snapshotter, which is built first; skipped where that fails.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
suite=${SUITE:-trixie}
peers=$top/target/peers-$suite
if [ ! -e "$peers/.complete" ]; then
  rm -rf "$peers"
  mkdir -p "$peers"
  cp -a target/peers/root target/peers/trixie "$peers/"
  tests/fetch-suite.sh "$peers/root" "$suite" containerd docker.io docker-cli
  : > "$peers/.complete"
fi
"$peers/root/usr/bin/ctr" --version
"$peers/root/usr/bin/docker" --version
BERTH_TEST_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/berth-compat.XXXXXX")
BERTH_PEERS=$peers
BERTH_BIN=$top/target/bin
BERTH_DOCKER=$peers/root/usr/bin/docker
export BERTH_TEST_ROOT BERTH_PEERS BERTH_BIN BERTH_DOCKER
if tests/build-stargz.sh target/stargz; then
  BERTH_STARGZ=$top/target/stargz
  export BERTH_STARGZ
else
  echo "stargz-snapshotter could not be built: its tests are skipped" >&2
fi
cargo test --quiet --locked -p berth-e2e --no-run
cargo build --quiet --locked -p berth-testkit --bins
code=0
unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child -- "${CARGO_TARGET_DIR:-$top/target}/debug/sandbox" \
  cargo test --quiet --locked -p berth-e2e --no-fail-fast --test containerd --test foreign_containerd --test docker_client --test third_party \
  --test runtimes --test stargz || code=$?
rmdir "$BERTH_TEST_ROOT" || { echo "left below $BERTH_TEST_ROOT"; code=1; }
exit "$code"
