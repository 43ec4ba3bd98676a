#!/usr/bin/env bash
# What somebody would write by hand: clone, build, two stages in parallel with Towpath's isolation flags, then three
# deployments, each behind the same health check and the same proxy.
#   bare.sh setup   | bare.sh deliver REPOSITORY VERSION   | bare.sh clean
# BARE_PORT is the first of three ports, BARE_SECCOMP a file with the profile that Towpath uses.
set -euo pipefail
docker=${BARE_DOCKER:-/usr/bin/docker}
name=towpath-bare
environments=(dev staging prod)

isolated() { # NAME COMMAND…
    local container=$1
    shift
    "$docker" run --rm --name "$container" --network none --read-only --user 65532:65532 --cap-drop ALL \
        --security-opt no-new-privileges --security-opt "seccomp=$BARE_SECCOMP" --memory 512m --memory-swap 512m \
        --cpus 1 --pids-limit 256 --ulimit nofile=4096:4096 --ulimit core=0 --ipc private --shm-size 16m --init \
        --tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777,size=1g --tmpfs /work:rw,exec,nosuid,nodev,mode=1777,size=1g \
        --env HOME=/work --env CI=true --entrypoint sh "$image" -e -c "$*"
}

config() { # ADDRESS
    cat <<CONFIG
global
    maxconn 1000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option idle-close-on-response
frontend public
    bind :8080
    default_backend app
backend app
    server app $1:8000
CONFIG
}

proxy_container() { echo "$name-proxy-$1"; }

setup() {
    clean
    "$docker" network create "$name" >/dev/null
    local port=$BARE_PORT environment
    for environment in "${environments[@]}"; do
        "$docker" create --name "$(proxy_container "$environment")" --network "$name" -p "127.0.0.1:$port:8080" \
            --entrypoint haproxy haproxy:2.8 -W -db -f /usr/local/etc/haproxy/haproxy.cfg >/dev/null
        port=$((port + 1))
    done
}

clean() {
    "$docker" ps -aq --filter "name=^$name-" | xargs -r "$docker" rm -f >/dev/null
    ! "$docker" network inspect "$name" >/dev/null 2>&1 || "$docker" network rm "$name" >/dev/null
}

fetch() { # HOST PORT: the whole answer
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "GET / HTTP/1.0\r\n\r\n" >&3 && cat <&3' "$1" "$2" 2>/dev/null
}

healthy() { # ADDRESS
    local passes=0 tries=0
    while [ $tries -lt 120 ]; do
        if [[ $(fetch "$1" 8000) == HTTP/1.?\ 200* ]]; then
            passes=$((passes + 1))
        else
            passes=0
        fi
        [ $passes -lt 2 ] || return 0
        tries=$((tries + 1))
        sleep 0.25
    done
    return 1
}

deploy() { # ENVIRONMENT PORT VERSION
    local old address proxy new="$name-app-$1-$3"
    proxy=$(proxy_container "$1")
    old=$("$docker" ps -q --filter "name=^$name-app-$1-")
    "$docker" run -d --name "$new" --network "$name" --memory 256m --cpus 1 --restart unless-stopped \
        --cap-drop ALL --security-opt no-new-privileges "$image" >/dev/null
    address=$("$docker" inspect -f "{{(index .NetworkSettings.Networks \"$name\").IPAddress}}" "$new")
    healthy "$address" || { "$docker" rm -f "$new" >/dev/null; echo "$1: not healthy" >&2; return 1; }
    config "$address" >"$work/haproxy.cfg"
    chmod 644 "$work/haproxy.cfg"
    "$docker" cp -q "$work/haproxy.cfg" "$proxy:/usr/local/etc/haproxy/haproxy.cfg" 2>/dev/null ||
        "$docker" cp "$work/haproxy.cfg" "$proxy:/usr/local/etc/haproxy/haproxy.cfg"
    if [ "$("$docker" inspect -f '{{.State.Running}}' "$proxy")" = true ]; then
        "$docker" kill -s USR2 "$proxy" >/dev/null
    else
        "$docker" start "$proxy" >/dev/null
    fi
    until [[ $(fetch 127.0.0.1 "$2") == *$3 ]]; do sleep 0.01; done
    [ -z "$old" ] || "$docker" rm -f "$old" >/dev/null &
}

deliver() { # REPOSITORY VERSION
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    git clone -q --depth 1 "file://$1" "$work/source"
    DOCKER_BUILDKIT=1 "$docker" build -q --iidfile "$work/image" "$work/source" >/dev/null
    image=$(cat "$work/image")
    isolated "$name-compile" "python -X pycache_prefix=/tmp compile.py" &
    local compile=$!
    isolated "$name-unit" "python -B -m unittest -q" 2>/dev/null &
    local unit=$!
    wait $compile && wait $unit
    local port=$BARE_PORT environment
    for environment in "${environments[@]}"; do
        deploy "$environment" "$port" "$2"
        port=$((port + 1))
    done
    wait
}

"$@"
