# shellcheck shell=bash disable=SC2034,SC2154
# The folder that holds what is fetched and built: ~/.cache/millrace.

millrace_cache=${XDG_CACHE_HOME:-${HOME:?set HOME to a folder you may write}/.cache}/millrace

open_cache() {
  mkdir -p "$millrace_cache" 2>/dev/null || true
  [[ -w $millrace_cache ]] ||
    die "cannot write $millrace_cache; set HOME to a folder you may write"
}

# Lets one set-up run at a time. The lock ends with this program.
lock_cache() {
  exec 9>"$millrace_cache/setup.lock"
  flock --nonblock 9 && return
  say 'Waiting for another set-up on this machine to finish.'
  flock 9
}

# need_space FOLDER MEGABYTES PURPOSE
# Ends the program unless FOLDER's file system has room.
need_space() {
  local free
  free=$(df --output=avail --block-size=1M "$1" | tail -n 1)
  ((free >= $2)) ||
    die "disk full: $3 needs $2 MB free in $1, which has $((free + 0)) MB"
}
