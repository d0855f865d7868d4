#!/bin/sh
# Runs inside the virtual machine: every test binary that was handed over, its ignored tests included.
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
for binary in /host/kernel_*; do
  [ -e "$binary" ] || continue
  # Copied, and from a directory that everybody may enter: the share has no permission bits of its own.
  copy=/usr/local/bin/$(basename "$binary")
  cp "$binary" "$copy" && chmod 755 "$copy"
  echo "--- $(basename "$binary")"
  "$copy" --ignored --test-threads 1 || code=1
done
exit $code
