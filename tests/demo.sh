#!/bin/sh
# make demo: a private engine below target/, one real container from the image embedded in the binary, and nothing left.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/target/bin
if [ "$(id -u)" != 0 ]; then
  echo "make demo runs real containers and needs root: sudo make demo (rootless is not there yet)" >&2
  exit 1
fi
demo=$(mktemp -d "$PWD/target/demo.XXXXXX")
id=$$
"$bin/berthd" --root "$demo/root" --state "$demo/state" --bridge "berthdemo$((id % 10000))" --subnet "10.213.$((id % 200)).0/24" \
  --nft-table "berthdemo$id" --cgroup-parent "/berth-demo-$id" --private --log-level warn 2> "$demo/berthd.log" &
daemon=$!
finish() {
  code=$?
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
  [ "$code" = 0 ] || cat "$demo/berthd.log" >&2
  rm -rf "$demo"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM
export BERTH_HOST="unix://$demo/state/docker.sock"
waited=0
until [ -S "$demo/state/docker.sock" ]; do
  kill -0 "$daemon" 2>/dev/null || { echo "berthd did not start" >&2; exit 1; }
  waited=$((waited + 1))
  [ "$waited" -lt 200 ] || { echo "berthd did not start within 10 s" >&2; exit 1; }
  sleep 0.05
done
host_ns=$(for ns in mnt uts pid net user ipc cgroup time; do
  printf '%s=%s,' "$ns" "$(readlink /proc/self/ns/$ns | tr -dc 0-9)"; done)

echo "=== What the container sees: berth run --rm -m 64m --cpus 0.5 --pids-limit 64 hello"
echo
"$bin/berth" run --rm --trace -m 64m --cpus 0.5 --pids-limit 64 --hostname hello -e "BERTH_HOST_NS=$host_ns" hello
cat <<EOF

=== Three commands to try next (as root; berth starts its engine by itself)

  $bin/berth run --rm --plan hello        every step of a start and its reason, without doing any
  $bin/berth run -d --name web -p 8080:80 hello sleep 600 && $bin/berth inspect web
  docker -H unix:///run/berth/docker.sock run --rm hello      the stock client, unmodified

Nothing of this demo is left: its engine, network and files are gone.
EOF
