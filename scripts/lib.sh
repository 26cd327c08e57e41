# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

# Versions of the programs that are built or fetched outside npm and pip. The Go sums are those that the checksum
# database records for the module; go.sum inside a verified module covers everything below it.
readonly OPA_VERSION=1.22.4
readonly OPA_GO_SUM='h1:/sKtqt7GVSvXQn1sML2PSzl8tD/mTHF2pzQC3x1CV8k='
# Jaeger 2.13.0; its Go module counts as Jaeger 1 does (the release is v1.76.0 and v2.13.0).
readonly JAEGER_VERSION=2.13.0
readonly JAEGER_GO_MODULE=v1.76.0
readonly JAEGER_GO_SUM='h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g='
# Prometheus 3.8.0, as in docker-compose.yml; its Go module counts from 0.
readonly PROMETHEUS_GO_MODULE=v0.308.0
readonly PROMETHEUS_GO_SUM='h1:kVh/5m1n6m4cSK9HYTDEbMxzuzCWyEdPdKSxFRxXj04='
readonly ACTIONLINT_VERSION=1.7.12
readonly ACTIONLINT_GO_SUM='h1:vQ4GeJN86C0QH+gTUQcs8McmK62OLT3kmakPMtEWYnY='
readonly HELM_VERSION=3.21.4
readonly HELM_GO_SUM='h1:T/GcIEXU/gNjJnkITlIZ3e9xqkZjhFTmISuStTZ6+Qg='
readonly UV_VERSION=0.13.9
# What a Go that is too old, or has the fault below, fetches and builds with. The go command holds it to Go's checksum
# database; from GO_FLOOR on it can.
readonly GO_TOOLCHAIN=1.26.11
readonly GO_FLOOR=1.21 NODE_FLOOR=20.19 PYTHON_FLOOR=3.11

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

# patched_go VERSION: true when a server built with this Go does not end by CVE-2026-97054 (net/http, a race on the header of
# a request that is too large). It is all that OPA 1.22.4 was released for; who builds OPA has it from the toolchain.
patched_go() {
  case "$1" in 1.27 | 1.27[a-z]* | 1.27.[0-3]) return 1 ;; *) at_least "$GO_TOOLCHAIN" "$1" ;; esac
}

# find_go: true when there is a Go to build with; sets GOTOOLCHAIN over the machine's own default.
find_go() {
  local version
  command -v go >/dev/null || return 1
  version=$(GOTOOLCHAIN=local go env GOVERSION) || return 1
  at_least "$GO_FLOOR" "${version#go}" || return 1
  if patched_go "${version#go}"; then export GOTOOLCHAIN=local; else export GOTOOLCHAIN="go$GO_TOOLCHAIN"; fi
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

# build_module MODULE@VERSION SUM PACKAGE BINARY [GO BUILD OPTIONS…]: builds a program whose go.mod has lines that
# `go install module@version` refuses (replace, exclude). A scratch module that carries the same go.mod and go.sum and requires
# the module builds the very same tree.
build_module() {
  local module=$1 sum=$2 package=$3 binary=$4 source scratch
  shift 4
  source=$(verified_module "$module" "$sum")
  mkdir -p "$(dirname "$binary")"
  scratch=$(mktemp -d "$parts/build.XXXXXX")
  # shellcheck disable=SC2064 - the folder of this call
  trap "rm -rf '$scratch'" EXIT
  install -m 0644 "$source/go.mod" "$source/go.sum" "$scratch/"
  (
    cd "$scratch"
    go mod edit -module=build.invalid/scratch -require="$module"
    go build -mod=mod -trimpath "$@" -o "$scratch/built" "$package"
  )
  mv "$scratch/built" "$binary"
  rm -rf "$scratch"
  trap - EXIT
}
