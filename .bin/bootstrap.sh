#!/bin/sh
# Makes a fresh Debian 12 machine with Node and npm able to run Gantry, then runs its arguments under the pinned Node.
# GANTRY_ALSO="PROGRAM PACKAGE" is one more that this run needs.
# Installs only what is missing; a second run costs a few milliseconds.
set -eu
cd "$(dirname "$0")/.."
say() { echo "gantry: $*" >&2; }

# What is needed, and the package that has it.
missing=
while read -r needed package; do
  case $needed in
    /*) [ -e "$needed" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$needed" > /dev/null ;;
  esac || missing="$missing $package"
done << END
containerd containerd
runc runc
crun crun
conmon conmon
etcd etcd-server
etcdctl etcd-client
nats-server nats-server
docker-registry docker-registry
tini tini
nft nftables
ip iproute2
/bin/busybox busybox-static
skopeo skopeo
umoci umoci
/usr/share/containers/seccomp.json golang-github-containers-common
ps procps
ping iputils-ping
conntrack conntrack
strace strace
wg wireguard-tools
wireguard-go wireguard-go
iperf3 iperf3
tcpdump tcpdump
htpasswd apache2-utils
flock util-linux
faketime faketime
${GANTRY_ALSO:-sh dash}
END

if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    say "missing:$missing; install them (on Debian 12, as root, this is done for you)"
    exit 1
  fi
  say "installing$missing"
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e $policy ]; then
    # The sandbox starts these parts itself, inside its hosts; none of them is to run on the machine.
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    made_policy=yes
    trap 'rm -f $policy' EXIT INT TERM
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  # shellcheck disable=SC2086 # a list of packages
  apt-get install -y -q --no-install-recommends $missing >&2
  if [ -n "$made_policy" ]; then rm -f $policy; fi # No trap outlives the exec below.
  if command -v systemctl > /dev/null; then
    for package in $missing; do
      case $package in
        containerd) unit=containerd ;;
        etcd-server) unit=etcd ;;
        nats-server | docker-registry) unit=$package ;;
        docker.io) unit='docker.service docker.socket' ;;
        *) continue ;;
      esac
      # shellcheck disable=SC2086 # a list of units
      systemctl disable --quiet $unit 2> /dev/null || true
    done
  fi
fi

case $(uname -m) in
  x86_64) arch=x64 ;;
  aarch64) arch=arm64 ;;
  *) say "no pinned Node for $(uname -m): x86_64 and aarch64 only" && exit 1 ;;
esac
pinned=$(sed -n "s/.*\"node-linux-$arch\": \"\([0-9.]*\)\".*/\1/p" package.json)
bin=$PWD/node_modules/node-linux-$arch/bin
if ! node .bin/lock-check.cjs; then
  say 'installing npm packages'
  # What the npm of the system thinks of Node versions does not matter: the pinned one runs.
  npm ci --no-audit --no-fund --loglevel=error >&2
fi
if [ ! -x "$bin/node" ]; then
  # An old npm leaves out optional packages whose engine it does not know: bring Node first, and install under it.
  own=$PWD/.node/node_modules/node-linux-$arch/bin
  if [ ! -x "$own/node" ] || [ "$("$own/node" --version)" != "v$pinned" ]; then
    mkdir -p .node
    echo '{"private":true}' > .node/package.json
    npm install --prefix .node --no-audit --no-fund --force "node-linux-$arch@$pinned" >&2
  fi
  PATH="$own:$PATH" npm ci --no-audit --no-fund >&2
  [ -x "$bin/node" ] || bin=$own
fi

export PATH="$bin:$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$PWD/.cache/node}"
exec "$@"
