#!/bin/sh
# run.sh [SECONDS [TARGET...]]: builds the fuzz targets with coverage counters (the stable compiler has them; no cargo-fuzz needed) and
# runs each for so long (default 60 s). The corpus grows in fuzz/corpus, which is not committed; an input that fails is left beside it.
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=${*:-config_plan mount_options seccomp_profile passwd_group}
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1"
RUSTFLAGS="$flags" cargo build --quiet --release --target "$host"
for target in $targets; do
  mkdir -p "corpus/$target"
  [ -d "seeds/$target" ] && seeds="seeds/$target" || seeds=
  echo "=== $target, $seconds s"
  # An input over a second or 256 MiB is a finding.
  "target/$host/release/$target" "corpus/$target" $seeds -max_total_time="$seconds" -timeout=1 -rss_limit_mb=256 -max_len=16384 \
    -artifact_prefix="corpus/$target-" -print_final_stats=0
done
