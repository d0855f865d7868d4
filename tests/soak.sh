#!/bin/sh
# make soak: the long forms of the tests that kill daemons, shims and stores and of those with many containers, runs and execs, in namespaces of
# their own as the suite runs them. BERTH_CRASH_POINTS (1000 kills of each kind), BERTH_SCALE (1000 containers), BERTH_RUNS and BERTH_EXECS (10000 each) shorten it.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
BERTH_TEST_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/berth-soak.XXXXXX")
BERTH_PEERS=$top/target/peers
BERTH_BIN=$top/target/bin
BERTH_SEED=${BERTH_SEED:-$(date +%s)}
BERTH_CRASH_POINTS=${BERTH_CRASH_POINTS:-1000}
BERTH_SCALE=${BERTH_SCALE:-1000}
BERTH_RUNS=${BERTH_RUNS:-10000}
BERTH_EXECS=${BERTH_EXECS:-10000}
BERTH_LONG_STORM=1 BERTH_LONG_IO=1
export BERTH_TEST_ROOT BERTH_PEERS BERTH_BIN BERTH_SEED BERTH_SCALE BERTH_RUNS BERTH_EXECS BERTH_LONG_STORM BERTH_LONG_IO BERTH_CRASH_POINTS
echo "BERTH_SEED=$BERTH_SEED"
cargo test --quiet --locked -p berth-e2e --no-run
cargo test --quiet --locked -p berth-image --test crash --no-run
cargo build --quiet --locked -p berth-testkit --bins
code=0
# The checks of the fuzz targets, a tenth of the time each; `make fuzz` runs the same ones guided by coverage.
BERTH_FUZZ_SECONDS=$((${BERTH_SOAK:-600} / 10 + 1)) \
  cargo test --quiet --locked -p berth-runtime --test fuzz_checks -- --test-threads 1 --nocapture || code=$?
in_sandbox() {
  unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child -- "${CARGO_TARGET_DIR:-$top/target}/debug/sandbox" "$@"
}
# The stores alone, killed at BERTH_CRASH_POINTS random points.
in_sandbox cargo test --quiet --locked -p berth-image --test crash -- --nocapture || code=$?
in_sandbox cargo test --quiet --locked -p berth-e2e --test kill --test crash --test transfer_crash --test scale --test io --test containerd -- --nocapture || code=$?
rmdir "$BERTH_TEST_ROOT" || { echo "left below $BERTH_TEST_ROOT"; code=1; }
exit "$code"
