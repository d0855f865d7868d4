#!/bin/sh
# Downloads criu of Debian 13, which knows newer kernels than Debian 12's, with its libraries, and unpacks it below DIR/trixie, made to
# use those libraries; installs nothing on the host.
#   tests/fetch-criu.sh DIR
set -eu
dir=$1
[ -e "$dir/.criu" ] && exit 0
command -v patchelf >/dev/null || { echo "fetch-criu: patchelf not found" >&2; exit 1; }
packages="criu libcompel1 libbsd0 libmd0 libc6 libgnutls30t64 libp11-kit0 libidn2-0 libunistring5 libtasn1-6 libnettle8t64
  libhogweed6t64 libgmp10 libffi8 libnet1 libnftables1 libjansson4 libedit2 libtinfo6 libnftnl11 libmnl0 libxtables12 libnl-3-200
  libprotobuf-c1 libuuid1 zlib1g"
apt=$dir/apt
mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs" "$dir/trixie"
printf 'Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' > "$apt/parts/trixie.sources"
set -- -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State::Lists="$apt/lists" \
  -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root
apt-get "$@" update
(cd "$apt/debs" && apt-get "$@" download $packages)
for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/trixie"; done
lib=$(cd "$dir/trixie" && pwd)/usr/lib/$(uname -m)-linux-gnu
# DT_RPATH, not DT_RUNPATH: it holds for the libraries' own libraries, too.
patchelf --remove-rpath "$dir/trixie/usr/sbin/criu"
patchelf --set-interpreter "$(ls "$lib"/ld-linux-*.so.*)" --force-rpath --set-rpath "$lib" "$dir/trixie/usr/sbin/criu"
rm -rf "$apt"
: > "$dir/.criu"
