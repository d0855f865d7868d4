#!/bin/sh
# make compat: the tests of containerd's and docker's faces, both ways, with the clients and daemons of another Debian release (SUITE, trixie)
# in place of Debian 12's. Runtimes and everything else stay as they are. With them stargz-snapshotter, which is built first.
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
tests/build-stargz.sh target/stargz
BERTH_STARGZ=$top/target/stargz
export BERTH_STARGZ
cargo test --quiet --locked -p berth-e2e --no-run
cargo build --quiet --locked -p berth-testkit --bins
code=0
sandboxed() { # cargo test with arguments
  unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child -- "${CARGO_TARGET_DIR:-$top/target}/debug/sandbox" \
    cargo test --quiet --locked -p berth-e2e "$@" || code=$?
}
sandboxed --no-fail-fast --test containerd --test foreign_containerd --test docker_client --test third_party --test runtimes
sandboxed --test stargz -- --ignored
rmdir "$BERTH_TEST_ROOT" || { echo "left below $BERTH_TEST_ROOT"; code=1; }
exit "$code"
