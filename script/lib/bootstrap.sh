# Sets up a machine for Towpath. Sourced by script/{bootstrap,demo,test} from the project's root.
# Public: bootstrap demo|test, engine_start [with-me], engine_stop, die.

cache=/var/cache/towpath
[ -w /var/cache ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}/towpath
apt_log=/var/tmp/towpath-apt.log
docker_log=/var/log/towpath-dockerd.log
engine_pid=''

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() {
    printf 'bootstrap: %s\n' "$@" >&2
    exit 1
}

# --- packages ---------------------------------------------------------------------------------------------------------

has_package() {
    case $1 in
    ca-certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    docker.io) command -v docker >/dev/null && { [ -n "${DOCKER_HOST:-}" ] || command -v dockerd >/dev/null; } ;;
    busybox-static) [ -x /bin/busybox ] ;;
    iproute2) command -v ip >/dev/null ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

what_for() {
    case $1 in
    ca-certificates) echo 'trusted certificates' ;;
    python3-venv) echo 'virtual environments' ;;
    docker.io) echo 'the container engine' ;;
    iptables) echo 'the networks of containers' ;;
    redis-server) echo 'the queue' ;;
    mmdebstrap) echo 'base images from Debian packages' ;;
    busybox-static) echo 'the smallest test image' ;;
    docker-registry) echo 'a registry of the tests' ;;
    iproute2) echo 'bridges of engines of the tests' ;;
    chromium) echo 'tests in a browser' ;;
    postgresql) echo 'tests on PostgreSQL' ;;
    esac
}

# packages NAME...: install those that are missing, one line each; no service is started.
packages() {
    local missing=() name
    for name in "$@"; do has_package "$name" || missing+=("$name"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "missing here: ${missing[*]}" "these are Debian's names; install them, or run this as root on Debian 12"
    fi
    for name in "${missing[@]}"; do say "installing $name ($(what_for "$name"))"; done
    (
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod +x /usr/sbin/policy-rc.d
        fi
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$apt_log" 2>&1 </dev/null
    ) || { tail -n 20 "$apt_log" >&2; die "apt could not install ${missing[*]}; its whole output is in $apt_log"; }
}

# --- engine -----------------------------------------------------------------------------------------------------------

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# engine_start [with-me]: see that an engine answers. One started `with-me` ends with this process, however that ends.
engine_start() {
    engine_answers && return 0
    [ -z "${DOCKER_HOST:-}" ] || die "no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST"
    [ "$(id -u)" = 0 ] || die 'no Docker engine answers; start it (systemctl start docker), or let this user reach it'
    local pidfile=/var/run/docker.pid old deadline with=()
    if [ -s "$pidfile" ]; then
        old=$(cat "$pidfile")
        # Left by an engine that was killed; its number may belong to something else by now.
        [ "$(cat "/proc/$old/comm" 2>/dev/null)" = dockerd ] || rm -f "$pidfile"
    fi
    [ "${1:-}" != with-me ] || with=(setpriv --pdeathsig TERM)
    say "starting dockerd (log: $docker_log)"
    setsid "${with[@]}" dockerd >"$docker_log" 2>&1 </dev/null &
    engine_pid=$!
    deadline=$((SECONDS + 60))
    until engine_answers; do
        if ! kill -0 "$engine_pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$docker_log" >&2
            die "dockerd did not come up; its whole output is in $docker_log"
        fi
        sleep 0.2
    done
}

# engine_stop: stop the engine, if engine_start started it here.
engine_stop() {
    [ -n "$engine_pid" ] || return 0
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=''
}

# --- base images ------------------------------------------------------------------------------------------------------

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Debian as an image, from the machine's own mirror; the file system is kept in $cache for an engine that lost it.
import_debian() {
    local tar=$cache/debian-bookworm.tar mirror
    if [ ! -s "$tar" ]; then
        packages mmdebstrap
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' | head -n 1)
        mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "${tar%.tar}.part.tar" ${mirror:+"$mirror"} >"$cache/mmdebstrap.log" 2>&1 ||
            { tail -n 20 "$cache/mmdebstrap.log" >&2; die 'mmdebstrap could not make a Debian base'; }
        mv "${tar%.tar}.part.tar" "$tar"
    fi
    docker import --change 'CMD ["bash"]' "$tar" debian:bookworm-slim >/dev/null
}

# make_image NAME FOLDER: build the stand-in for a base image from script/images/FOLDER.
make_image() {
    local context log=$cache/${2}.log
    context=$(mktemp -d)
    cp "script/images/$2/Dockerfile" /etc/ssl/certs/ca-certificates.crt "$context/"
    docker build -q --network host --tag "$1" "$context" >"$log" 2>&1 || { tail -n 20 "$log" >&2; rm -r "$context"; die "could not build $1"; }
    rm -r "$context"
}

base_images() {
    local name missing=()
    for name in debian:bookworm-slim python:3.11-slim haproxy:2.8; do has_image "$name" || missing+=("$name"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    mkdir -p "$cache"
    for name in "${missing[@]}"; do
        if docker pull -q "$name" >/dev/null 2>&1; then
            say "pulled $name"
            continue
        fi
        say "making $name from Debian packages (no image registry gave it)"
        case $name in
        debian:*) import_debian ;;
        python:*) make_image "$name" python ;;
        haproxy:*) make_image "$name" haproxy ;;
        esac
    done
}

# --- virtualenv -------------------------------------------------------------------------------------------------------

# virtualenv [EXTRA]: .venv with Towpath and what it needs; installed again when pyproject.toml changes.
virtualenv() {
    local extra=${1:-} want log=.venv/pip.log stamp
    stamp=.venv/installed${extra:+-$extra}
    want=$(sha256sum pyproject.toml)
    # What is there for tests is more than enough for the demo.
    [ "$want" != "$(cat "$stamp" 2>/dev/null)" ] || return 0
    [ -n "$extra" ] || [ "$want" != "$(cat .venv/installed-dev 2>/dev/null)" ] || return 0
    say "installing Towpath's Python packages into .venv${extra:+ (with those for tests)}"
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    .venv/bin/pip install --disable-pip-version-check -q -e ".${extra:+[$extra]}" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "pip failed; its whole output is in $log"; }
    echo "$want" >"$stamp"
}

# --- all of it --------------------------------------------------------------------------------------------------------

# bootstrap demo|test [with-me]
bootstrap() {
    [ "$(uname -s)" = Linux ] || die 'Towpath runs on Linux; on other systems use a Debian 12 machine or virtual machine'
    packages ca-certificates python3-venv docker.io iptables redis-server
    [ "$1" = demo ] || packages chromium postgresql busybox-static docker-registry iproute2
    local extra='' images
    [ "$1" = demo ] || extra=dev
    # One waits for the mirror, the other for pip: side by side.
    engine_start "${2:-}"
    base_images &
    images=$!
    virtualenv $extra
    wait "$images" || exit 1
}
