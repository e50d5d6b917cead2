#!/usr/bin/env bash
# docker-compose.yml for real: up, scale to 4, a job submitted from outside the network, one worker container killed, the
# report read, metrics scraped, down. Skipped with a message where there is no container engine.
#
#   TIDEGATE_COMPOSE_INSTALL=1   (root, Debian) install docker.io, docker-compose and what stand-in images need with apt, and
#                                start an engine of its own; without it only an engine that runs already is used
#   PYTHON_BIN                   a Python in which Tidegate is installed (default: .venv/bin/python)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export PYTHON_BIN=${PYTHON_BIN:-$root/.venv/bin/python}
export COMPOSE_PROJECT_NAME=tidegate-test-$$
export VALKEY_PASSWORD=test-$$ TIDEGATE_IMAGE=tidegate:local
work=$(mktemp -d -t tidegate-compose-XXXXXX)
engine_pid=

say() { echo "compose-test: $*"; }

compose() {
  if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

free_port() { "$PYTHON_BIN" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

clean_up() {
  code=$?
  trap - EXIT
  if [ -n "${started:-}" ]; then
    [ "$code" = 0 ] || compose -f "$root/docker-compose.yml" logs --tail=40 || true
    compose -f "$root/docker-compose.yml" down -v --timeout 20 >/dev/null 2>&1 || true
  fi
  if [ -n "$engine_pid" ]; then
    kill "$engine_pid" 2>/dev/null || true
    while kill -0 "$engine_pid" 2>/dev/null; do sleep 0.2; done
    awk -v at="$work/" 'index($2, at) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do umount -l "$mount" || true; done
  fi
  rm -rf "$work"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

start_engine() { # an engine with its own folder, socket and no rules in the host's firewall
  [ "${TIDEGATE_COMPOSE_INSTALL:-}" = 1 ] && [ "$(id -u)" = 0 ] && [ -n "$(command -v apt-get)" ] || return 1
  missing=()
  for pair in dockerd:docker.io docker-compose:docker-compose debootstrap:debootstrap prometheus:prometheus wget:wget redis-cli:redis-tools; do
    [ -n "$(command -v "${pair%%:*}")" ] || missing+=("${pair##*:}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1
  fi
  export DOCKER_HOST="unix://$work/docker.sock"
  dockerd --iptables=false --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" -H "$DOCKER_HOST" \
    >"$work/dockerd.log" 2>&1 &
  engine_pid=$!
  for _ in $(seq 100); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.3
  done
  say "the engine did not start: $(tail -1 "$work/dockerd.log")"
  return 1
}

if [ -z "$(command -v docker)" ] || ! docker info >/dev/null 2>&1; then
  if ! start_engine; then
    say "skipped: no container engine answers (start one, or as root on Debian: TIDEGATE_COMPOSE_INSTALL=1 make compose-test)"
    exit 0
  fi
fi

# Services whose images cannot be had are left out, and that is said.
services="valkey worker collector prometheus"
for image in $(awk '$1 == "FROM" {print $2; exit}' "$root/Dockerfile") \
  $(awk '$1 == "image:" && $2 ~ /^(valkey|prom)\// {print $2}' "$root/docker-compose.yml"); do
  docker image inspect "$image" >/dev/null 2>&1 || timeout 120 docker pull -q "$image" >/dev/null 2>&1 || needs_stand_ins=1
done
[ -z "${needs_stand_ins:-}" ] || "$here/stand_ins.sh" "$work"
grafana=$(awk '$1 == "image:" && $2 ~ /^grafana\// {print $2}' "$root/docker-compose.yml")
if docker image inspect "$grafana" >/dev/null 2>&1 || timeout 120 docker pull -q "$grafana" >/dev/null 2>&1; then
  services="$services grafana"
else
  say "grafana is left out: its image cannot be had here"
fi

say "building the image"
docker build -q --network=host -t "$TIDEGATE_IMAGE" "$root" >/dev/null
say "image: $(docker image inspect -f '{{.Size}}' "$TIDEGATE_IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}') with its base," \
  "runs as $(docker image inspect -f '{{.Config.User}}' "$TIDEGATE_IMAGE")"

export VALKEY_PORT COLLECTOR_PORT PROMETHEUS_PORT GRAFANA_PORT
VALKEY_PORT=$(free_port) COLLECTOR_PORT=$(free_port) PROMETHEUS_PORT=$(free_port) GRAFANA_PORT=$(free_port)
started=1
say "up, workers scaled to 4: $services"
# shellcheck disable=SC2086
compose -f "$root/docker-compose.yml" up -d --no-build --scale worker=4 $services
"$PYTHON_BIN" "$here/check.py" "$root/docker-compose.yml" "$root/examples"
say "down"
compose -f "$root/docker-compose.yml" down -v --timeout 30
left=$(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
[ -z "$left" ] || { say "containers are left: $left"; exit 1; }
started=
say "passed"
