#!/usr/bin/env bash
# Measures import, bootstrap and live replication with generated rows and prints
# a Markdown table. Other sizes: tests/bench/run.sh 10000,100000
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --bin creditsync
cargo run --release -q -p creditsync-tests --bin bench -- "$@"
