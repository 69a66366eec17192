# shellcheck shell=bash disable=SC2034,SC2154
# A millraced of our own, on loopback ports that it chooses itself.

# start_server FOLDER PROGRAM FLAG...
# Starts the server with its output in FOLDER and waits until it is ready; sets
# server_pid and server_port. It gets a process group of its own, so that
# Ctrl-C reaches the chat only, and ends when this program does, however.
start_server() {
  local folder=$1 start=$SECONDS
  shift
  setsid setpriv --pdeathsig TERM "$@" --listen=127.0.0.1:0 \
    >"$folder/ready" 2>"$folder/server.log" </dev/null &
  server_pid=$!
  until server_port=$(_ready_port "$folder/ready"); do
    kill -0 "$server_pid" 2>/dev/null ||
      die "the server ended: $(last_line "$folder/server.log")"
    ((SECONDS - start < 120)) ||
      die "the server is not ready after 120 s; see $folder/server.log"
    sleep 0.1
  done
}

# Lets the server drain, and ends it if it takes long.
stop_server() {
  [[ -n ${server_pid:-} ]] || return 0
  kill -TERM "$server_pid" 2>/dev/null || true
  for ((i = 0; i < 100; ++i)); do
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# Prints the port of the server's ready line, once that is there.
_ready_port() {
  grep -m 1 '"event": *"ready"' "$1" 2>/dev/null |
    sed -n 's/.*"port": *\([0-9][0-9]*\).*/\1/p' | grep .
}
