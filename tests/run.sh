#!/usr/bin/env bash
# The one test command: formatting, lints, dependencies, all tests, doc tests.
# It prepares what it needs on a fresh Debian machine with Rust.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

need_package() { # need_package COMMAND PACKAGE
  command -v "$1" >/dev/null 2>&1 && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq "$2"
  else
    echo "tests/run.sh: '$1' is missing; install the package '$2'" >&2
    exit 1
  fi
}

say "tools"
need_package cc gcc
# The allocator is built with it.
need_package make make
need_package mount mount
# Tests with certificates of another PKI, and with a wrong clock.
need_package openssl openssl
need_package faketime faketime
command -v cargo >/dev/null || { echo "tests/run.sh: install Rust first (rustup.rs)" >&2; exit 1; }
# Without a network rustup cannot fetch the version that rust-toolchain.toml names,
# but may have it as "stable".
pinned="$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)"
if ! cargo --version >/dev/null 2>&1; then
  case "$(cd / && rustc --version)" in
    "rustc $pinned "*)
      RUSTUP_TOOLCHAIN="$(cd / && rustup show active-toolchain | cut -d' ' -f1)"
      export RUSTUP_TOOLCHAIN
      ;;
    *) echo "tests/run.sh: install Rust $pinned: rustup toolchain install $pinned" >&2; exit 1 ;;
  esac
fi
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
deny_version=0.20.2
if ! cargo deny --version >/dev/null 2>&1; then
  # Without optimisation it builds in a third of the time (95 s of one core), and still
  # takes but seconds. Its
  # objects lie where a later try finds them if this one is cut short, and outside
  # of target/, which `cargo clean` empties.
  deny_target="${XDG_CACHE_HOME:-$HOME/.cache}/creditsync/cargo-deny-$deny_version"
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --no-default-features \
    cargo-deny --version "$deny_version" --target-dir "$deny_target"
  rm -rf "$deny_target"
fi

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets -- -D warnings

say "dependencies"
cargo deny --locked check bans licenses sources
# The list of known vulnerabilities is a git repository, which not every machine
# reaches. Whoever releases sets CREDITSYNC_ADVISORIES=required.
advisories_skipped=
if [ "${CREDITSYNC_ADVISORIES:-}" = required ] || cargo deny fetch db; then
  cargo deny --locked check advisories
else
  advisories_skipped="SKIPPED: known vulnerabilities of dependencies were not looked up, because the \
advisory database cannot be fetched here (cargo deny check advisories)"
  echo "$advisories_skipped" >&2
fi

say "documentation tests"
cargo test --workspace --doc

say "tests"
# The program that the end-to-end tests start.
cargo build --bin creditsync
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --no-fail-fast
else
  cargo test --workspace --all-targets --no-fail-fast
fi

if [ -n "$advisories_skipped" ]; then
  say "not everything was checked"
  echo "$advisories_skipped" >&2
fi
