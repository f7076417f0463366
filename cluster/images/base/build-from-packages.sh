#!/usr/bin/env bash
# Builds the base image from Debian packages alone: mmdebstrap makes the file system, `docker import` makes the image.
# For machines that reach a Debian mirror but no image registry. Usage: build-from-packages.sh [IMAGE]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=${1:-realwork/base:bookworm}
suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'base image: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 4
}

# The mirrors this host itself uses for the suite, as sources.list lines; nothing when the host runs another suite.
host_mirrors() {
    command -v apt-get >/dev/null || return 0
    apt-get indextargets --format "\$(REPO_URI) \$(RELEASE)" 'Created-By: Packages' 'Label: Debian' 2>/dev/null \
        | awk -v s="$suite" '$2 == s || $2 == s "-updates"' | sort -u | sed 's/^/deb /; s/$/ main/'
    apt-get indextargets --format "\$(REPO_URI) \$(RELEASE)" 'Created-By: Packages' 'Label: Debian-Security' 2>/dev/null \
        | awk -v s="$suite" '$2 == s "-security"' | sort -u | sed 's/^/deb /; s/$/ main/'
}

install_mmdebstrap() {
    if command -v mmdebstrap >/dev/null && [ -r "$keyring" ]; then return; fi
    command -v apt-get >/dev/null || die "no mmdebstrap, and no apt-get to install it with: build the image with 'docker build' where a registry can be reached"
    [ "$(id -u)" = 0 ] || die "mmdebstrap or Debian's keyring is missing: run 'sudo apt-get install mmdebstrap debian-archive-keyring' and try again"
    say "installing mmdebstrap (about 20 s)"
    apt-get update -qq >/dev/null </dev/null || say "apt-get update had errors; going on with the package lists at hand"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null </dev/null
}

install_mmdebstrap
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages=$(grep -v -e '^#' -e '^$' "$here/packages.txt" | paste -sd,)
changes=()
while IFS= read -r line; do
    changes+=(--change "$line")
done < <(grep -E '^(ENV|WORKDIR|LABEL|CMD) ' "$here/Dockerfile")

# mmdebstrap has apt options of its own, so those of the host (proxy, retries, checks) are handed on, for the build only.
apt-config dump Acquire >"$work/host-apt.conf" 2>/dev/null || : >"$work/host-apt.conf"
sources=$(host_mirrors)
# Without mirrors of its own (on Ubuntu, say) the host has no reason to trust Debian's keys, so they are named.
mirror_args=(--keyring="$keyring" "$suite" "$work/base.tar")
[ -z "$sources" ] || mirror_args=("$suite" "$work/base.tar" -)

# Certificate authorities that were added to this host (a company's proxy, say): without them pip and curl fail inside too.
hooks=()
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    say "the image trusts the certificates in /usr/local/share/ca-certificates, as this host does"
    # shellcheck disable=SC2016 # mmdebstrap sets $1 when it runs the hook
    hooks+=(--customize-hook='cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/"'
        --customize-hook='chroot "$1" update-ca-certificates')
fi
# shellcheck disable=SC2016 # mmdebstrap sets $1 when it runs the hook
hooks+=(--customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/hostname" "$1/etc/resolv.conf"')

say "step 1 of 2: $(tr ',' '\n' <<<"$packages" | wc -l) packages and what they need, with mmdebstrap (1 to 3 minutes)"
started=$SECONDS
mmdebstrap --variant=minbase --format=tar --include="$packages" \
    --aptopt="$work/host-apt.conf" \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "${hooks[@]}" \
    "${mirror_args[@]}" <<<"$sources" >"$work/log" 2>&1 \
    || {
        tail -n 30 "$work/log" >&2
        die "mmdebstrap failed (its last lines stand above); is a Debian mirror reachable from here?"
    }
say "step 1 took $((SECONDS - started)) s"

say "step 2 of 2: docker import as $image (about 10 s)"
started=$SECONDS
docker import "${changes[@]}" --message "Debian $suite packages" "$work/base.tar" "$image" >/dev/null
say "step 2 took $((SECONDS - started)) s; size $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"
