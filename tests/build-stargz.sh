#!/bin/sh
# Builds containerd-stargz-grpc of Debian's packages (Go, stargz-snapshotter's library and what it needs; about 160 MB) into DIR, beside
# Debian's ctr-remote; installs nothing on the host.
#   tests/build-stargz.sh DIR
set -eu
top=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -e "$dir/containerd-stargz-grpc" ] || exit 0
work=$(mktemp -d "$dir/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
packages=$(apt-get install --simulate --no-install-recommends golang-go golang-github-containerd-stargz-snapshotter-dev \
  | awk '$1 == "Inst" && ($2 ~ /^golang/) { print $2 }')
mkdir "$work/debs" "$work/root"
# shellcheck disable=SC2086
(cd "$work/debs" && apt-get -qq -o APT::Sandbox::User=root download $packages stargz-snapshotter)
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
go=$(ls -d "$work"/root/usr/lib/go-[0-9]*)
cp -aL "$go" "$work/go"
cp -an "$work/root/usr/share/${go##*/}/pkg/." "$work/go/pkg/"
# Of an API that Debian's library of Kubernetes has no more, and that the service does without.
rm "$work/root/usr/share/gocode/src/github.com/containerd/stargz-snapshotter/service/resolver/cri.go"
(cd "$top/stargz" && GOROOT=$work/go GOPATH=$work/root/usr/share/gocode GO111MODULE=off GOCACHE=$work/cache CGO_ENABLED=0 \
  "$work/go/bin/go" build -o "$dir/containerd-stargz-grpc" .)
cp "$work/root/usr/bin/ctr-remote" "$dir/"
