#!/usr/bin/env bash
# Makes a machine able to run realwork's containers: a Docker engine that answers, and the base image.
# Every cluster node runs it once, and `make setup` runs it each time; with nothing to do it takes well under a second.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: cluster/setup.sh [--engine-only] [--help]

Makes sure that a Docker engine answers (DOCKER_HOST, else the default socket) and that it has the image
realwork/base:bookworm. A missing engine is installed and started where that is possible: as root, on Debian or Ubuntu.

  --engine-only   do not make the base image
  --help          this text

Exit codes:
  0  everything is there
  2  unknown option
  3  no engine answers and this script may not or cannot make one; what to do is printed
  4  the engine answers, but the base image cannot be had
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=realwork/base:bookworm
registry_base=debian:bookworm-slim
engine_log=/var/log/dockerd.log
engine_wait_s=60
engine_only=no
engine_started=no

# Where dockerd lies; not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

# realwork asks the engine that DOCKER_HOST or the default socket names; so does this script, whatever `docker context` is chosen.
chosen_context=${DOCKER_CONTEXT:-}
export DOCKER_CONTEXT=default

say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
    local code=$1
    shift
    printf 'setup: %s\n' "$@" >&2
    exit "$code"
}

# The engine's version, or its refusal on stderr.
ask_engine() { timeout 10 docker version --format '{{.Server.Version}}'; }

has_systemd() { [ -d /run/systemd/system ]; }

is_debian_like() {
    # shellcheck disable=SC1091 # a file of the machine
    [ -r /etc/os-release ] && (. /etc/os-release && [[ " ${ID:-} ${ID_LIKE:-} " =~ \ (debian|ubuntu)\  ]]) && command -v apt-get >/dev/null
}

# Ends the script when an engine exists that this user cannot use, or that starting a local one would not help.
explain_refusal() {
    local answer=$1 other
    if [[ $answer == *'permission denied'* ]]; then
        stop 3 "a Docker engine is there, but user '$(id -un)' may not use it: $answer" \
            "do one of these, then try again:" \
            "  sudo usermod -aG docker $(id -un)    and log in again (the group docker is as powerful as root)" \
            "  or set DOCKER_HOST to an engine that you may use, for instance a rootless one"
    fi
    if [ -n "${DOCKER_HOST:-}" ]; then
        stop 3 "the engine that DOCKER_HOST names ($DOCKER_HOST) does not answer: $answer" \
            "start that engine, or unset DOCKER_HOST to use the one of this machine"
    fi
    command -v docker >/dev/null || return 0
    other=$(
        unset DOCKER_CONTEXT
        [ -z "$chosen_context" ] || export DOCKER_CONTEXT=$chosen_context
        docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null
    ) || return 0
    if [ -n "$other" ] && DOCKER_HOST=$other ask_engine >/dev/null 2>&1; then
        stop 3 "the engine of your docker context answers, but realwork reads only DOCKER_HOST and the default socket" \
            "run: export DOCKER_HOST=$other"
    fi
}

install_engine() {
    if ! is_debian_like; then
        stop 3 "no Docker engine answers, and this script installs one on Debian and Ubuntu only" \
            "install Docker Engine 20.10 or later as your distribution describes, start it, and try again"
    fi
    if [ "$(id -u)" != 0 ]; then
        stop 3 "no Docker engine answers, and installing one needs root" \
            "run: sudo cluster/setup.sh" \
            "then: sudo usermod -aG docker $(id -un)    and log in again"
    fi
    say "installing docker.io with apt-get (about a minute)"
    apt-get update -qq >/dev/null </dev/null || say "apt-get update had errors; going on with the package lists at hand"
    local packages=(docker.io iptables ca-certificates)
    # From Debian 13 on the client is a package of its own.
    if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null </dev/null \
        || stop 3 "apt-get could not install docker.io (its answer stands above)" \
            "install Docker Engine 20.10 or later by hand, start it, and try again"
    hash -r
}

start_engine() {
    local pid='' waited=0 patience_s=$engine_wait_s
    if has_systemd; then
        say "starting the Docker engine with systemctl"
        systemctl start docker </dev/null || stop 3 "systemctl could not start docker" "look at: journalctl -u docker -n 50"
    else
        # A pid file left by a machine that was cut off makes dockerd refuse to start when the number is in use again.
        if [ -r /var/run/docker.pid ] && [ "$(cat "/proc/$(cat /var/run/docker.pid)/comm" 2>/dev/null)" != dockerd ]; then
            rm -f /var/run/docker.pid
        fi
        say "starting dockerd in the background (there is no systemd here); its log: $engine_log"
        # 9 is the lock of this script; the engine must not inherit it.
        setsid nohup dockerd >>"$engine_log" 2>&1 </dev/null 9<&- &
        pid=$!
    fi
    until ask_engine >/dev/null 2>&1; do
        # When ours has ended, one that something else started just before may still be coming up.
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
            pid=''
            patience_s=$((waited + 10))
            pgrep -x dockerd >/dev/null || patience_s=$waited
        fi
        if [ "$waited" -ge "$patience_s" ]; then
            if has_systemd; then journalctl -u docker -n 10 --no-pager >&2 || true; else tail -n 10 "$engine_log" >&2 || true; fi
            stop 3 "the Docker engine does not answer after $waited s; the end of its log stands above" \
                "containers need a kernel with namespaces, cgroups and overlayfs, and a machine that lets root use them"
        fi
        sleep 1
        waited=$((waited + 1))
    done
    engine_started=yes
}

ensure_engine() {
    local answer
    if answer=$(ask_engine 2>&1); then return; fi
    explain_refusal "$answer"
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then install_engine; fi
    if [ "$(id -u)" != 0 ]; then
        stop 3 "the Docker engine is installed but does not run, and starting it needs root" "run: sudo cluster/setup.sh"
    fi
    # Installing the package may have started the engine already.
    if ! ask_engine >/dev/null 2>&1; then start_engine; fi
    say "Docker engine $(ask_engine) answers"
}

ensure_image() {
    if docker image inspect "$image" >/dev/null 2>&1; then return; fi
    say "the image $image is missing; building it once"
    if timeout 20 docker pull -q "$registry_base" >/dev/null 2>&1 </dev/null; then
        say "building from $registry_base with docker build (1 to 3 minutes)"
        if docker build -t "$image" "$here/images/base" >&2 </dev/null; then return; fi
        say "docker build failed (its answer stands above); trying Debian packages"
    else
        say "no image registry answers; building from Debian packages"
    fi
    "$here/images/base/build-from-packages.sh" "$image" </dev/null \
        || stop 4 "the image $image cannot be made here (the reason stands above)" \
            "make it on another machine, then: docker save $image | gzip > base.tar.gz, and here: docker load -i base.tar.gz"
}

# An engine may start where no container can, inside another container for instance.
check_container() {
    local answer
    answer=$(timeout 60 docker run --rm --network none "$image" true 2>&1 </dev/null) && return
    stop 3 "the Docker engine answers, but cannot run a container: $answer" \
        "containers need a kernel with namespaces, cgroups and overlayfs, and a machine that lets root use them"
}

for option in "$@"; do
    case $option in
        --engine-only) engine_only=yes ;;
        --help | -h) usage && exit 0 ;;
        *)
            usage >&2
            stop 2 "unknown option: $option"
            ;;
    esac
done

# Two runs at once would install and build twice.
exec 9<"${BASH_SOURCE[0]}"
flock 9
ensure_engine
[ "$engine_only" = no ] || exit 0
ensure_image
[ "$engine_started" = no ] || check_container
