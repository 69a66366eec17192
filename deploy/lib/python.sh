# shellcheck shell=bash disable=SC2034,SC2154
# A Python environment of our own, made with the distribution's Python.
# Two stamps say how far it is: `created` (pip works) and `installed` (the
# requirements are in). An interrupted step leaves no stamp and is repeated.

venv=$millrace_cache/venv
requirements=$root/deploy/requirements-tests.txt
requirements_mb=670

venv_created() {
  [[ -x $venv/bin/pip &&
    $(cat "$venv/created" 2>/dev/null) == "$(_python_version)" ]]
}

requirements_installed() {
  venv_created &&
    [[ $(cat "$venv/installed" 2>/dev/null) == "$(_requirements_hash)" ]]
}

create_venv() {
  local log=$millrace_cache/logs/venv.log
  rm -rf "$venv"
  run_step 'Creating a Python environment' 10 "$log" \
    /usr/bin/python3 -m venv "$venv" ||
    die "cannot create $venv: $(last_line "$log"); see $log"
  _python_version >"$venv/created"
}

install_requirements() {
  local log=$millrace_cache/logs/pip.log
  run_step 'Installing Python packages for the tests' 90 "$log" \
    "$venv/bin/pip" install --disable-pip-version-check --no-input \
    -r "$requirements" || pip_failed "$log"
  _requirements_hash >"$venv/installed"
}

# Ends the program with the reason that pip gave.
pip_failed() {
  if grep -qE 'NewConnectionError|resolution|Max retries|timed out' "$1"; then
    die "no network: pip cannot reach the package registry; see $1"
  fi
  if grep -q 'No space left' "$1"; then
    die "disk full while installing Python packages; see $1"
  fi
  die "pip failed: $(last_line "$1"); see $1"
}

_python_version() { readlink -f /usr/bin/python3; }
_requirements_hash() { sha256sum <"$requirements"; }
