# shellcheck shell=bash disable=SC2034,SC2154
# Bazel as we call it. MILLRACE_OUTPUT_BASE names a build folder of its own, so
# that two runs in one checkout do not wait for each other's lock.

run_bazel() {
  (cd "$root" && bazel \
    ${MILLRACE_OUTPUT_BASE:+"--output_base=$MILLRACE_OUTPUT_BASE"} "$@")
}

# Flags for progress: Bazel's own on a terminal, else a line now and then.
progress_flags() {
  if on_terminal; then
    [[ -z ${NO_COLOR:-} ]] || echo --color=no
  else
    printf '%s\n' --curses=no --color=no --show_progress_rate_limit=30
  fi
}

# Compilers at once: a gRPC translation unit takes up to 1.5 GB.
build_jobs() {
  local cores by_memory
  cores=$(nproc)
  by_memory=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) / 1500000))
  echo $((by_memory < 1 ? 1 : by_memory < cores ? by_memory : cores))
}

# Drops what no build has used for 30 days from the shared disk cache.
prune_disk_cache() {
  local folder=$millrace_cache/bazel
  [[ ! -d $folder ]] || find "$folder" -type f -atime +30 -mtime +30 -delete
}
