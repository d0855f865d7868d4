#!/bin/sh
# Prints the target for static binaries: musl, added with rustup where it is missing; where that cannot be had, the
# host's own target (linked with crt-static).
arch=$(uname -m)
musl=$arch-unknown-linux-musl
sysroot=$(rustc --print sysroot)
if [ -d "$sysroot/lib/rustlib/$musl/lib" ] || rustup target add "$musl" >/dev/null 2>&1; then
  echo "$musl"
else
  echo "$arch-unknown-linux-gnu"
fi
