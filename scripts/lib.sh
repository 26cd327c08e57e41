# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

# Versions of the programs that are built or fetched outside npm and pip. The Go sums are those that the checksum
# database records for the module; go.sum inside a verified module covers everything below it.
readonly OPA_VERSION=1.22.2
readonly OPA_GO_SUM='h1:WzqReKk2VjcvBN/NQTlcIxKqFPKpzIdb6KYMHzPEbe0='
readonly JAEGER_VERSION=1.76.0
readonly JAEGER_GO_SUM='h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g='
readonly UV_VERSION=0.13.9
readonly GO_FLOOR=1.26 NODE_FLOOR=20.19 PYTHON_FLOOR=3.11

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root parts="$root/.parts"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# at_least FLOOR VERSION: true when VERSION, read as dotted numbers, is FLOOR or newer.
at_least() {
  [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# digest FILE…: one short name for the contents, used to name stamps.
digest() {
  if command -v sha256sum >/dev/null; then cat -- "$@" | sha256sum; else cat -- "$@" | shasum -a 256; fi | cut -c 1-64
}

# go_at_least FLOOR: true when a Go toolchain of that version or newer is on PATH.
go_at_least() {
  local version
  command -v go >/dev/null || return 1
  version=$(go env GOVERSION) || return 1
  at_least "$1" "${version#go}"
}

# verified_module MODULE@VERSION SUM: downloads a Go module and prints its folder; refuses any other content.
verified_module() {
  local answer
  answer=$(go mod download -json "$1") || die "could not download Go module $1"
  case "$answer" in
    *"\"Sum\": \"$2\""*) ;;
    *) die "Go module $1 is not the one this project pinned ($2)" ;;
  esac
  printf '%s\n' "$answer" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p'
}
