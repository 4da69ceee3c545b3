#!/usr/bin/env bash
# Compares creditsync with what people would use instead, on the same rows, and
# prints a Markdown table. tests/bench/run.sh --help lists the options; a small
# run of creditsync alone:
#   tests/bench/run.sh --rows 100000 --repeat 1 --systems creditsync
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"

need() { # need FILE-OR-COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2
  else
    echo "tests/bench/run.sh: '$1' is missing; install the package '$2'" >&2
    exit 1
  fi
}
need cc gcc
need setpriv util-linux
need ip iproute2
need /usr/lib/postgresql/15/bin/postgres postgresql-15
need psql postgresql-client-15
need rsync rsync
need syncthing syncthing

target="${CARGO_TARGET_DIR:-$root/target}"
cargo build --release --quiet --manifest-path "$root/Cargo.toml" --target-dir "$target" \
  --package creditsync --bin creditsync --package creditsync-tests --bin bench
cargo build --release --quiet --manifest-path "$here/peers/Cargo.toml" --target-dir "$target/peers"

# Everything temporary lies below one directory. The benchmark removes it, and its
# networks; what is left is there because it was interrupted or killed.
export TMPDIR
TMPDIR="$(mktemp -d "${TMPDIR:-/tmp}/csb.XXXXXX")"
chmod 755 "$TMPDIR"
"$target/release/bench" "$@" &
bench=$!
clear_up() {
  trap - EXIT INT TERM
  kill -TERM "$bench" 2>/dev/null || true
  wait "$bench" 2>/dev/null || true
  if command -v ip >/dev/null; then
    ip netns list 2>/dev/null | awk -v prefix="creditsync-bench-$bench-" \
      'index($1, prefix) == 1 { print $1 }' | while read -r name; do
      # Its processes end with the benchmark; PostgreSQL takes a moment for that.
      for _ in $(seq 100); do
        [ -z "$(ip netns pids "$name")" ] && break
        sleep 0.1
      done
      ip netns delete "$name"
    done
  fi
  rm -rf "$TMPDIR"
}
trap clear_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait "$bench"
