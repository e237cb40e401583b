#!/usr/bin/env bash
# A cluster on this machine: a head and several workers, each with its own raylet.
#   cluster/local.sh up|down
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-.venv/bin}
port=${RAY_PORT:-6399}
dashboard=${RAY_DASHBOARD_PORT:-8299}
agent=$((dashboard + 1))
workers=${WORKERS:-2}
cpus=${CPUS:-1}
memory=$((200 * 1024 * 1024)) # bytes of each object store
state=.cache/cluster
tmp=${RAY_TMP:-/tmp/ray-$(id -u)-$port} # must be short: it holds Ray's sockets
export RAY_AUTH_MODE=token
umask 077 # logs, sockets and the token are for this user alone
PATH="$(cd "$bin" && pwd):$PATH" # the `python` of jobs
export PATH

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

up() {
  if answers "$port"; then
    echo "a cluster is up already at 127.0.0.1:$port; make cluster-down ends it" >&2
    exit 1
  fi
  # Ray opens its own folders to everybody, so they are in one that only this user can enter.
  mkdir -p "$state" && mkdir -m 700 -p "$tmp"
  "$bin/ray" get-auth-token --generate >/dev/null 2>&1 # keeps a token that exists
  "$bin/ray" start --head --node-ip-address=127.0.0.1 --port="$port" --num-cpus="$cpus" \
    --object-store-memory="$memory" --temp-dir="$tmp/0" \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --dashboard-agent-listen-port="$agent" --disable-usage-stats >"$state/head.log" 2>&1 ||
    { cat "$state/head.log" >&2; exit 1; }
  for ((n = 1; n <= workers; n++)); do
    "$bin/ray" start --address="127.0.0.1:$port" --node-ip-address=127.0.0.1 --num-cpus="$cpus" \
      --object-store-memory="$memory" --temp-dir="$tmp/$n" --disable-usage-stats >"$state/worker-$n.log" 2>&1 ||
      { cat "$state/worker-$n.log" >&2; exit 1; }
  done
  # A job needs the dashboard and the agent of a host.
  for _ in $(seq 60); do answers "$dashboard" && answers "$agent" && break; sleep 0.5; done
  cat <<END
a head and $workers workers are up, with $cpus CPU each
  address      127.0.0.1:$port            RAY_ADDRESS=127.0.0.1:$port RAY_AUTH_MODE=token python ...
  jobs         http://127.0.0.1:$dashboard    make submit, hypernodes submit
  end it       make cluster-down
END
}

down() {
  # End only the processes of this cluster: other Rays may run on this machine.
  mine() { pgrep -f -- "($tmp/([0-9]+/)?session|--gcs_server_port=$port |ray.util.client.server --address=[0-9.]*:$port )" || true; }
  pids=$(mine)
  if [[ -z $pids ]]; then
    echo "no cluster is up at 127.0.0.1:$port"
    return
  fi
  # End the GCS of the head last: the other processes sign off there, and wait if it is gone.
  others() { comm -23 <(mine | sort) <(pgrep -f -- "/gcs_server .*--gcs_server_port=$port " | sort); }
  for those in others mine; do
    kill $($those) 2>/dev/null || true
    for _ in $(seq 40); do [[ -z $($those) ]] && break; sleep 0.25; done
  done
  kill -9 $(mine) 2>/dev/null || true
  rm -rf "$state" "$tmp"
  echo "the cluster at 127.0.0.1:$port is down"
}

case ${1:-} in
up) up ;;
down) down ;;
*) echo "cluster/local.sh up|down" >&2; exit 2 ;;
esac
