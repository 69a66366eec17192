# shellcheck shell=bash disable=SC2034,SC2154
# Debian packages: which are needed, which are missing, how to install them.

# Server and client.
build_packages=(
  bazel-bootstrap bazel-platforms bazel-rules-java bazel-rules-proto
  bazel-skylib ca-certificates g++ libabsl-dev libcli11-dev libdnnl-dev
  libedit-dev libgrpc++-dev libgrpc-dev libpcre2-dev libprotobuf-dev libssl-dev
  nlohmann-json3-dev prometheus-cpp-dev protobuf-compiler
  protobuf-compiler-grpc python3 python3-venv
)
build_packages_mb=1300

# What the tests need on top of that.
test_packages=(
  git gnuplot-nox libbenchmark-dev libgmock-dev libgtest-dev liblzma-dev
)
test_packages_mb=140

# What runs the pod test; tests/deploy skips it where these do not install.
container_packages=(buildah catatonit fuse-overlayfs podman runc)
container_packages_mb=300

# Prints those of the given packages that are not installed.
missing_packages() {
  local installed
  # dpkg-query fails where it knows a package not at all.
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" \
    2>/dev/null | sed -n 's/^installed //p') || true
  printf '%s\n' "$@" | grep -vxF "$installed" || true
}

# Runs a command as root, or says in one line that it cannot.
as_root() {
  if ((EUID == 0)); then
    "$@"
  else
    sudo -n "$@"
  fi
}

# Asks for the password, if one is needed, while the terminal is still free.
check_privilege() {
  ((EUID == 0)) && return
  if command -v sudo >/dev/null; then
    sudo -n true 2>/dev/null && return
    [[ -t 0 ]] && sudo -v && return
  fi
  die "installing packages needs root; run as root: apt-get install $*"
}

# Installs packages. An interrupted dpkg is set right first.
install_packages() {
  local log=$millrace_cache/logs/apt.log
  local apt=(env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -y
    --no-install-recommends -o DPkg::Lock::Timeout=600
    -o Acquire::Retries=3 -o Acquire::http::Timeout=30)
  if [[ -n $(dpkg --audit; ls /var/lib/dpkg/updates) ]]; then
    run_step 'Finishing an interrupted package installation' 60 "$log" \
      as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a || true
  fi
  run_step 'Reading the list of packages' 10 "$log" \
    as_root "${apt[@]}" -o APT::Update::Error-Mode=any update ||
    _apt_failed "$log"
  run_step "Installing $# packages" $((10 + 8 * $#)) "$log" \
    as_root "${apt[@]}" install "$@" || _apt_failed "$log"
}

_apt_failed() {
  local line
  line=$(grep -m 1 '^E: ' "$1" || last_line "$1")
  if grep -qE 'resolv|onnect to|Network is unreachable|timed out' "$1"; then
    die "no network: apt-get cannot reach the package registry ($line)"
  fi
  if grep -q 'No space left' "$1"; then
    die "disk full while installing packages; see $1"
  fi
  die "apt-get failed: $line; see $1"
}
