#!/bin/sh
# Runs inside the virtual machine: every test binary that was handed over, its ignored tests included. Arguments are names of tests.
code=0
# A user with a systemd of his own, for the rootless tests.
if ! getent passwd 1000 >/dev/null; then
  echo 'sailor:x:1000:1000::/home/sailor:/bin/sh' >>/etc/passwd
  echo 'sailor:x:1000:' >>/etc/group
  echo 'sailor:!:20000::::::' >>/etc/shadow
  printf 'sailor:100000:65536\n' | tee -a /etc/subuid >>/etc/subgid
  install -d -o 1000 -g 1000 /home/sailor
fi
systemctl start user@1000.service || code=1
# Copied: the share has no permission bits of its own.
for binary in /host/*; do
  case $binary in *.sh) continue;; esac
  cp "$binary" /usr/local/bin/ && chmod 755 "/usr/local/bin/$(basename "$binary")"
done
for binary in /usr/local/bin/kernel_* /usr/local/bin/vm_*; do
  [ -e "$binary" ] || continue
  echo "--- $(basename "$binary")"
  "$binary" --ignored --test-threads 1 "$@" || code=1
done
# Names of tests choose among those above; without any, the conformance cases run as well, for runb alone: the host has shown them for runc.
case "$*" in --skip\ v1_host) ;; *) exit $code;; esac
peers=/usr/local/share/peers
mkdir -p $peers/root/bin && cp /host/busybox $peers/root/bin/ && chmod 755 $peers/root/bin/busybox
export BERTH_PEERS=$peers BERTH_BIN=/usr/local/bin BERTH_TEST_ROOT=/var/tmp/conformance
mkdir -p $BERTH_TEST_ROOT
for binary in /usr/local/bin/conformance_*; do
  echo "--- $(basename "$binary")"
  "$binary" --skip runc:: --test-threads 2 || code=1
done
exit $code
