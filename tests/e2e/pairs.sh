# Two sites and a witness as processes of their own, clients on one address. Needs checks.sh.
# shellcheck shell=bash disable=SC2154,SC2034

PORTS_FROM="${PORTS_FROM:-$((21000 + RANDOM % 3900))}"
LOAD_SECONDS="${LOAD_SECONDS:-15}"

text() { grep -o "\"$1\": *\"[^\"]*\"" | sed -n 1p | sed 's/.*: *"//; s/"$//'; }

start_witness() {
  "$VMHOLD" --json witness serve --dir "$work/w" --listen "127.0.0.1:$((PORTS_FROM + 1))" >"$work/w.out" 2>>"$work/w.log" </dev/null &
  witness=$!
  jobs_of_ours+=("$witness")
  until grep -q fingerprint "$work/w.out"; do kill -0 "$witness" && sleep 0.05; done
}

enrol() { # SITE
  local token
  token="$("$VMHOLD" witness invite "site-$1" --dir "$work/w" --json | text token)"
  "$VMHOLD" witness add "$token" --dir "$work/$1"
}

make_pool() { # SITE OPTIONS...
  local site="$1"
  shift
  "$VMHOLD" pool create flash0 --drive "$work/$site"/drive{1..6} --drive-size 256MiB --journal "$work/$site/journal" --journal-size 64MiB \
    --config "$work/$site/vmhold.toml" --site "site-$site" --datastore prod --nfs "127.0.0.50:$PORTS_FROM" --json "$@"
}

found_pair() {
  local introduction
  introduction="$("$VMHOLD" site show --listen "127.0.0.1:$((PORTS_FROM + 3))" --dir "$work/b" --json | text introduction)"
  make_pool a --pair-with "$introduction" --pair-listen "127.0.0.1:$((PORTS_FROM + 2))" --api "127.0.0.1:$((PORTS_FROM + 4))" >"$work/made"
  make_pool b --pair-join "$(text invitation <"$work/made")" --pair-listen "127.0.0.1:$((PORTS_FROM + 3))" --api "127.0.0.1:$((PORTS_FROM + 5))"
}

declare -A pids
start() { # SITE
  rm -f "$work/$1/ready.json"
  "$VMHOLD" --json serve --config "$work/$1/vmhold.toml" >"$work/$1/serve.json" 2>>"$work/$1/server.log" </dev/null &
  pids[$1]=$!
  jobs_of_ours+=("${pids[$1]}")
  while [ ! -s "$work/$1/ready.json" ]; do
    kill -0 "${pids[$1]}" 2>/dev/null || { tail -n 5 "$work/$1/server.log"; return 1; }
    sleep 0.05
  done
}

kill_site() { kill -KILL "${pids[$1]}" && { wait "${pids[$1]}" 2>/dev/null || true; }; }

status_of() { "$VMHOLD" replication status --dir "$work/$1"; }

# until_said SITE PATTERN: the status of a site says so; within a minute, however slow the machine.
until_said() {
  local try
  for try in $(seq 300); do
    status_of "$1" >"$work/said" 2>&1 || true
    if grep -Eq "$2" "$work/said"; then return 0; fi
    sleep 0.2
  done
  cat "$work/said"
  return 1
}

start_load() { # SECONDS
  "$VMHOLD" bench --json --target "$url" --mix 50/50 --block-size 8k,8k,32k --depth 8 --connections 2 --files 4 --file-size 8m --fill \
    --verify --duration "${1}s" --seed "$SEED" --journal "$work/load-journal" >"$work/load.json" 2>"$work/load.err" </dev/null &
  load=$!
  jobs_of_ours+=("$load")
}

load_is_well() { wait "$load" || { cat "$work/load.json" "$work/load.err"; return 1; }; }

verify() { "$VMHOLD" bench verify --json --target "$url" --journal "$work/load-journal"; }
