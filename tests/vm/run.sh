#!/bin/sh
# The stage that needs a pure cgroup v2 host: runs the tests marked for it inside a small virtual machine (VMTEST names the
# tool that boots one). Where there is none, the stage says so and counts as skipped.
set -eu
cd "$(dirname "$0")/../.."
top=$PWD
vmtest=${VMTEST:-$top/../shared/vmtest/vmtest}
if [ ! -x "$vmtest" ]; then
  echo "no virtual machine tool at $vmtest (set VMTEST): the cgroup v2 stage is skipped"
  echo "test result: ok. 0 passed; 0 failed; 1 ignored;"
  exit 0
fi
target=${CARGO_TARGET_DIR:-$top/target}
stage=$target/vm-stage
rm -rf "$stage"
mkdir -p "$stage"
# Test binaries of the host: the machine's libc is newer, so they run as they are.
cargo test --quiet --locked --no-run --message-format=json -p berth-cgroup 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*kernel_\(v2\|systemd\)[^"]*\)".*/\1/p' | while read -r binary; do cp "$binary" "$stage/"; done
cp tests/vm/guest.sh "$stage/"
exec "$vmtest" -b uml -s "$stage:/host" -t 600 -- sh /host/guest.sh
