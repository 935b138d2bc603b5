# Sourced by the end-to-end checks (not executable, so not one itself): a folder of its own,
# the program, counting, and ending exactly the processes that were started.
#
# Environment: VMHOLD (program; else it is built), SEED (of delays and choices), KEEP=1 (leave the folder).
# shellcheck shell=bash

export LC_ALL=C
unset VMHOLD_DIR VMHOLD_API

name="$(basename "$0")"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
SEED="${SEED:-$RANDOM}"
passed=0
failed=0
servers=() # folders of the servers of this check
jobs_of_ours=() # ids of other processes it started

# Sets VMHOLD to an absolute path. Called before any network namespace is entered.
need_program() {
  if [ -z "${VMHOLD:-}" ]; then
    (cd "$root" && cargo build --quiet -p vmhold)
    VMHOLD="$(cd "$root" && realpath "${CARGO_TARGET_DIR:-target}")/debug/vmhold"
  fi
  VMHOLD="$(realpath "$VMHOLD")"
  export VMHOLD
}

# Runs the script again in a network namespace of its own, where any port is free.
enter_namespace() {
  [ "${IN_NAMESPACE:-}" = yes ] && { ip link set lo up; return; }
  local own=(--net)
  [ "$(id -u)" -eq 0 ] || own=(--user --map-root-user --net)
  command -v ip >/dev/null 2>&1 || skip_all "no program ip (package iproute2)"
  unshare "${own[@]}" true 2>/dev/null || skip_all "no network namespace can be made here"
  IN_NAMESPACE=yes exec unshare "${own[@]}" "$0" "$@"
}

begin() {
  work="$(mktemp -d "${TMPDIR:-/tmp}/vmhold-$name.XXXXXX")"
  RANDOM=$((SEED % 32768))
  trap finish EXIT
  trap 'exit 130' INT TERM
  echo "$name: seed $SEED, folder $work"
}

ok() {
  passed=$((passed + 1))
  echo "ok      $*"
}

bad() {
  failed=$((failed + 1))
  echo "FAILED  $*"
}

skipped() {
  echo "SKIPPED $*"
}

skip_all() {
  echo "$name: SKIPPED ENTIRELY, NOTHING WAS CHECKED: $*"
  exit 0
}

# check WHAT COMMAND...: one line; output only when the command fails.
check() {
  local what="$1" status=0
  shift
  "$@" >"$work/output" 2>&1 </dev/null || status=$?
  if [ "$status" -eq 0 ]; then
    ok "$what"
    return 0
  fi
  bad "$what (exit $status of: $*)"
  tail -n 30 "$work/output" | cut -c1-1000 | sed 's/^/        /'
  return 0
}

# Number of the first FIELD in a JSON document on standard input.
json_number() {
  tr -d ' \n' | grep -o "\"$1\":\[*[0-9.]*" | sed -n 1p | grep -o '[0-9.]*$'
}

# between LEAST MOST: milliseconds as seconds.
between() {
  local ms=$(($1 + (RANDOM * 32768 + RANDOM) % ($2 - $1 + 1)))
  printf '%d.%03d' $((ms / 1000)) $((ms % 1000))
}

# The server process of a folder, from its start on; nothing if it is gone with all its threads
# (the first one may be a zombie while another still holds the lock of the store).
server_pid() {
  local pid
  pid="$(json_number pid 2>/dev/null <"$1/${2:-server.json}")" || return 0
  [ -n "$pid" ] && grep -qs vmhold "/proc/$pid/comm" || return 0
  if ! grep -qs '^State:.*[ZX]' "/proc/$pid/status" || [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -gt 1 ]; then
    echo "$pid"
  fi
}

# Kills the server of a folder and waits until the process is gone.
kill_server() {
  local pid
  pid="$(server_pid "$@")"
  [ -n "$pid" ] || return 1
  kill -KILL "$pid" 2>/dev/null || return 1
  while [ -n "$(server_pid "$@")" ]; do sleep 0.01; done
}

finish() {
  local status=$? folder job
  trap - EXIT
  for job in "${jobs_of_ours[@]}"; do kill "$job" 2>/dev/null || true; done
  for folder in "${servers[@]}"; do
    if [ -e "$folder/manifest.json" ]; then
      [ "$failed" -eq 0 ] || tail -n 5 "$folder/server.log" | cut -c1-500 || true
      if [ -n "${KEEP:-}" ]; then kill_server "$folder" || true; else
        "$VMHOLD" quickstart destroy --dir "$folder" --yes --no-input --quiet >/dev/null 2>&1 || bad "destroy $folder"
      fi
    else
      kill_server "$folder" ready.json || true
    fi
  done
  if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
  [ "$status" -eq 0 ] || echo "$name: ended early with $status"
  echo "$name: $passed passed, $failed failed"
  [ "$status" -ne 0 ] || [ "$failed" -eq 0 ] || status=1
  exit "$status"
}
