#!/usr/bin/env bash
# The one test command: formatting, lints, all tests, doc tests.
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
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets -- -D warnings

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
