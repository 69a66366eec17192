# shellcheck shell=bash disable=SC2034,SC2154
# What a person sees: plain lines, one clear line on failure, progress of long
# steps. Sourced; needs `program` set to the name that messages start with.

say() { printf '%s\n' "$*"; }

# Ends the program with one line on standard error.
die() {
  printf '%s: %s\n' "$program" "$*" >&2
  exit 1
}

# Ends the program because it was called wrongly.
usage_error() {
  printf "%s: %s; try '%s --help'\n" "$program" "$*" "$program" >&2
  exit 2
}

# Found out once: inside $(...) standard output is a pipe.
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then
  stdout_is_terminal=true
else
  stdout_is_terminal=false
fi
on_terminal() { $stdout_is_terminal; }

# Wraps text in the dim attribute where colour is wanted.
dim() {
  if on_terminal && [[ -z ${NO_COLOR:-} ]]; then
    printf '\e[2m%s\e[0m' "$*"
  else
    printf '%s' "$*"
  fi
}

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# run_step LABEL USUAL_SECONDS LOG COMMAND...
# Runs a long command with its output in LOG and shows the elapsed time and
# what is usual: a live line on a terminal, a line each 30 s elsewhere. With
# `step_dir` and `step_mb` set, shows how much of a download has arrived.
# Returns the command's status. The set-up lock (9) is not passed on.
run_step() {
  local label=$1 usual=$2 log=$3 start=$SECONDS ticker status=0
  shift 3
  mkdir -p "$(dirname "$log")"
  on_terminal || say "$label (usually $(minutes "$usual"))"
  _tick "$label" "$usual" 9>&- &
  ticker=$!
  "$@" >"$log" 2>&1 </dev/null 9>&- || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  on_terminal && printf '\r\e[K'
  ((status != 0)) || say "$label: done in $(minutes $((SECONDS - start)))"
  return "$status"
}

# Shows a step's progress until killed, or until this program has ended.
_tick() {
  local label=$1 usual=$2 seconds=0 line
  while kill -0 $$ 2>/dev/null; do
    line="$label  $(minutes "$seconds"), usually $(minutes "$usual")$(_arrived)"
    if on_terminal; then
      printf '\r\e[K%s' "$(dim "$line")"
    elif ((seconds > 0 && seconds % 30 == 0)); then
      say "  $line"
    fi
    sleep 1
    seconds=$((seconds + 1))
  done
}

_arrived() {
  [[ -n ${step_dir:-} ]] || return 0
  local mb
  mb=$(du -sm "$step_dir" 2>/dev/null | cut -f1)
  printf ', %s of %s MB' "${mb:-0}" "$step_mb"
}

# The last line of a log that says something, for an error message.
last_line() { grep -v '^[[:space:]]*$' "$1" | tail -n 1 || true; }
