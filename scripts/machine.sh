# What ./test and ./demo need of this machine. To be sourced by bash; defines functions only.
# shellcheck shell=bash

# Colours on a terminal that wants them, else empty.
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' CYAN=$'\e[36m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' GREEN='' RED='' CYAN='' PLAIN=''
fi
export BOLD DIM GREEN RED CYAN PLAIN

# What is built is kept outside the clone: a fresh clone then builds in seconds.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/xennet/target}

# What the build needs, and what running guests needs: a file or program, and the Debian package that holds it.
BUILD_NEEDS=(c++:g++ make:make cmake:cmake /usr/include/boost/version.hpp:libboost-dev)
GUEST_NEEDS=(qemu-system-x86_64:qemu-system-x86 cpio:cpio lz4:lz4 mke2fs:e2fsprogs setpriv:util-linux ssh:openssh-client)
export BUILD_NEEDS GUEST_NEEDS

# die WORDS...: the one line that says what is wrong and what to do.
die() {
    printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$*" "$PLAIN" >&2
    exit 1
}

# Whether there is somebody to ask.
somebody_is_there() {
    [[ -t 0 && -t 1 && ${CI:-} != true ]]
}

# agreed QUESTION: asks where a terminal is; goes on where none is.
agreed() {
    somebody_is_there || return 0
    local answer
    read -r -p "$1 [Y/n] " answer
    [[ -z $answer || $answer == [Yy]* ]]
}

# has FILE-OR-PROGRAM: /usr/sbin is not on every user's path.
has() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# need NEED...: installs the packages of those that are missing.
need() {
    local each missing=() as_root=()
    for each; do
        has "${each%:*}" || missing+=("${each##*:}")
    done
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (names of Debian packages). This machine has no apt-get: install them its own way."
    fi
    ((EUID == 0)) || as_root=(sudo)
    echo "Missing Debian packages: ${missing[*]}"
    local by_hand="apt-get install --no-install-recommends ${missing[*]}"
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        die "run as root: $by_hand"
    fi
    agreed "Run ${as_root[*]:+sudo }$by_hand?" || die "they are needed; run as root: $by_hand"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}")
    # The index of a fresh machine is empty or old.
    "${install[@]}" || { "${as_root[@]}" apt-get -qq update && "${install[@]}"; } || die "apt-get failed; run as root: $by_hand"
}

# need_rust: a Rust compiler that is new enough. With rustup it is the one that rust-toolchain.toml names.
need_rust() {
    local wanted pinned found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
    # rustup's own place, which a shell that was open when Rust was installed does not know.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        local fetch=(curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh)
        local options=(-y -q --profile minimal --default-toolchain "$pinned" -c rustfmt -c clippy)
        echo "There is no Rust compiler. Rust's own installer puts one into your home directory:"
        echo "    ${fetch[*]} | sh -s -- ${options[*]}"
        agreed "Run it?" || die "Rust $wanted or newer is needed; run the line above, then this again"
        need curl:curl /etc/ssl/certs/ca-certificates.crt:ca-certificates
        "${fetch[@]}" | sh -s -- "${options[@]}" >/dev/null || die "Rust could not be installed; see https://rustup.rs"
    fi
    found=$(rustc --version | cut -d' ' -f2) || die "rustup could not fetch Rust $pinned; see the lines above"
    if [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n1) != "$wanted" ]]; then
        die "Rust $wanted or newer is needed, but this is $found, perhaps Debian's: get a newer one from https://rustup.rs"
    fi
}

# users_of DIR: the processes that have a file in it open, one id a line. Finds a guest, whose arguments and environment say
# nothing of where it belongs.
users_of() {
    # Processes come and go while this looks; that is no failure.
    { find /proc/[0-9]*/fd -maxdepth 1 -lname "$1/*" 2>/dev/null || true; } | cut -d/ -f3 | sort -u
}

# duration SECONDS: as people say it.
duration() {
    if (($1 < 60)); then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}
