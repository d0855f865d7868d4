#!/bin/sh
# Downloads Debian packages that tests and benchmarks run against and unpacks them below DIR; installs nothing on the host.
#   tests/fetch-peers.sh DIR PACKAGE...
# Each package is unpacked once; a stamp remembers it.
set -eu
dir=$1
shift
mkdir -p "$dir/debs" "$dir/root"
missing=
for package; do [ -e "$dir/.$package" ] || missing="$missing $package"; done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "fetch-peers: apt-get not found; the peers come from Debian packages" >&2; exit 1; }
apt-cache show $missing >/dev/null 2>&1 || apt-get -qq update
cd "$dir/debs"
apt-get -qq -o APT::Sandbox::User=root download $missing
for package in $missing; do
  dpkg-deb -x "$(ls -t "${package}"_*.deb | head -n 1)" "$dir/root"
  : > "$dir/.$package"
done
