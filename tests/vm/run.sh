#!/bin/sh
# The stage that needs systemd and a pure cgroup v2 host: runs the tests marked for it inside a small virtual machine (VMTEST
# names the tool that boots one). Where there is none, the stage says so and counts as skipped.
#
#   VM_BACKENDS="uml tcg"   which machines: uml boots in seconds; tcg (a full kernel, emulated) has the controllers that uml
#                           lacks, and is slower by far. Add -v1 to boot it with cgroup v1, for the test of that (needs a tool that
#                           does not switch v1 off on the kernel's command line)
#   BERTH_BOMBS=1000        the long form of the fork bombs
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
cargo test --quiet --locked --no-run --message-format=json -p berth-cgroup -p berth-vm-tests -p berth-snapshot 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/\(kernel_v2\|kernel_systemd\|vm_\)[^"]*\)".*/\1/p' | while read -r binary; do cp "$binary" "$stage/"; done
# The conformance suite, for what can be run with busybox alone.
cargo test --quiet --locked --no-run --message-format=json -p berth-conformance 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/\(runtimes\|as_newest_runc\)-[^"]*\)".*/\1/p' | while read -r binary; do
    name=${binary##*/}
    cp "$binary" "$stage/conformance_${name%-*}"
  done
for wanted in conformance_runtimes conformance_as_newest_runc; do
  [ -e "$stage/$wanted" ] || { echo "$wanted does not build"; exit 1; }
done
cp "${BERTH_PEERS:-$target/peers}/root/bin/busybox" "$stage/"
for binary in runb containerd-shim-berth-v1 berthd berth; do cp "${BERTH_BIN:-$target/bin}/$binary" "$stage/"; done
cp tests/vm/guest.sh "$stage/"
code=0
for backend in ${VM_BACKENDS:-uml}; do
  echo "--- the machine is $backend"
  v1='' which='--skip v1_host'
  case $backend in *-v1) v1='SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0' which=v1_host;; esac
  boot() {
    "$vmtest" -b "${backend%-v1}" -a "$v1" -s "$stage:/host" -t 900 -e "BERTH_BOMBS=${BERTH_BOMBS:-}" -- \
      sh /host/guest.sh $which "$@"
  }
  status=0
  boot "$@" || status=$?
  # 125: the machine itself did not come up, which an emulated one sometimes does not on a busy host.
  if [ $status = 125 ]; then
    echo "the machine did not come up; once more"
    status=0
    boot "$@" || status=$?
  fi
  [ $status = 0 ] || code=$status
done
exit $code
