#!/bin/sh
# Downloads criu of Debian 13, which knows newer kernels than Debian 12's, with its libraries, and unpacks it below DIR/trixie, made to
# use those libraries; installs nothing on the host.
#   tests/fetch-criu.sh DIR
set -eu
dir=$1
[ -e "$dir/.criu" ] && exit 0
command -v patchelf >/dev/null || { echo "fetch-criu: patchelf not found" >&2; exit 1; }
"$(dirname "$0")/fetch-suite.sh" "$dir/trixie" trixie criu libcompel1 libbsd0 libmd0 libc6 libgnutls30t64 libp11-kit0 libidn2-0 \
  libunistring5 libtasn1-6 libnettle8t64 libhogweed6t64 libgmp10 libffi8 libnet1 libnftables1 libjansson4 libedit2 libtinfo6 libnftnl11 \
  libmnl0 libxtables12 libnl-3-200 libprotobuf-c1 libuuid1 zlib1g
lib=$(cd "$dir/trixie" && pwd)/usr/lib/$(uname -m)-linux-gnu
# DT_RPATH, not DT_RUNPATH: it holds for the libraries' own libraries, too.
patchelf --remove-rpath "$dir/trixie/usr/sbin/criu"
patchelf --set-interpreter "$(ls "$lib"/ld-linux-*.so.*)" --force-rpath --set-rpath "$lib" "$dir/trixie/usr/sbin/criu"
: > "$dir/.criu"
