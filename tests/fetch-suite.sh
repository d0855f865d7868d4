#!/bin/sh
# Downloads packages of another Debian release from where this machine has its own from, and unpacks them below DIR; installs nothing, and
# leaves the machine's apt as it is.
#   tests/fetch-suite.sh DIR SUITE PACKAGE...
set -eu
dir=$1 suite=$2
shift 2
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk '$2 !~ /-/ { print $1; exit }')
[ -n "$mirror" ] || { echo "fetch-suite: apt knows no mirror of a Debian release" >&2; exit 1; }
mkdir -p "$dir"
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
  "$mirror" "$suite" > "$apt/parts/suite.sources"
own() { # apt-get on files of its own
  apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State::Lists="$apt/lists" \
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@"
}
own update
(cd "$apt/debs" && own download "$@")
for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$dir"; done
