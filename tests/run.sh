#!/bin/sh
# The whole suite: unit and kernel tests, the end-to-end tests, the cgroup v2 stage in a virtual machine, and the check that
# nothing is left. Runs inside mount, network and pid namespaces of its own. Ends with "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.."
top=$PWD
target=${CARGO_TARGET_DIR:-$top/target}
out=$target/test-logs
mkdir -p "$out"
BERTH_TEST_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/berth-test.XXXXXX")
BERTH_PEERS=$top/target/peers
BERTH_BIN=$top/target/bin
export BERTH_TEST_ROOT BERTH_PEERS BERTH_BIN
before=$out/before after=$out/after
picture() {
  cut -d' ' -f5 /proc/self/mountinfo | sort -u
  find /sys/fs/cgroup -maxdepth 4 -type d -path '*berth*' 2>/dev/null | sort
  cat /proc/net/dev | cut -d: -f1 | sort
  ls /run/berth /var/lib/berth 2>/dev/null
  for comm in /proc/[0-9]*/comm; do read -r name < "$comm" 2>/dev/null && case $name in berth*|containerd-shim-b*|runb) echo "$comm $name";; esac; done
}
picture | sort -u > "$before"
failed_stages=

stage() { # stage NAME COMMAND...: shows the output, keeps it for the count
  name=$1; shift
  echo "=== $name"
  { "$@" 2>&1; echo $? > "$out/$name.code"; } | tee "$out/$name.log"
  [ "$(cat "$out/$name.code")" = 0 ] || failed_stages="$failed_stages $name"
}

sandboxed() {
  unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child -- "$target/debug/sandbox" "$@"
}

if ! cargo test --quiet --locked --workspace --no-run || ! cargo build --quiet --locked -p berth-testkit --bins; then
  echo "the tests do not compile"
  exit 1
fi
stage suite sandboxed cargo test --locked --workspace --no-fail-fast -- --test-threads "${TEST_THREADS:-4}"
stage cgroup-v2 tests/vm/run.sh
rmdir "$BERTH_TEST_ROOT" 2>/dev/null || { echo "left below the test root:"; find "$BERTH_TEST_ROOT" | head -20; failed_stages="$failed_stages leak"; rm -rf "$BERTH_TEST_ROOT"; }
for parent in /sys/fs/cgroup/*/berth-test /sys/fs/cgroup/berth-test; do [ -d "$parent" ] && find "$parent" -depth -type d -exec rmdir {} + 2>/dev/null; done
picture | sort -u > "$after"
if [ -n "$(comm -13 "$before" "$after")" ]; then
  echo "left on the host:"
  comm -13 "$before" "$after"
  failed_stages="$failed_stages leak"
fi
awk -v stages="$failed_stages" '
  /^test result: / { passed += $4; failed += $6; skipped += $8 }
  END {
    if (stages != "" && failed == 0) failed = 1
    if (stages != "") print "stages that failed:" stages
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit failed != 0
  }' "$out"/suite.log "$out"/cgroup-v2.log
