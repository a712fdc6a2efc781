#!/bin/sh
# Makes the thin guest image from Debian packages: OUT/vmlinux, OUT/initrd.cpio and OUT/manifest.
# The image is named by the SHA-256 of its manifest, which holds the hash of every package and file, so the
# same packages give the same name anywhere. Needs no root. Usage: build.sh OUT [PACKAGES]
# PACKAGES is a folder where downloaded packages are kept for the next build.
set -eu
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT [PACKAGES]}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
debs=${2:-$work/debs}
mkdir -p "$debs" "$work/empty" "$work/unpacked"
debs=$(cd "$debs" && pwd)

step() { echo "step $*"; }
die() { echo "error: $*" >&2; exit 1; }
lines() { sed -e '/^#/d' -e '/^ *$/d' "$here/$1"; }
hash_of() { sha256sum "$1" | cut -d' ' -f1; }

for tool in apt-get:apt apt-cache:apt dpkg:dpkg dpkg-deb:dpkg cpio:cpio lz4:lz4 od:coreutils sha256sum:coreutils; do
    command -v "${tool%:*}" >/dev/null || die "${tool%:*} is not installed: apt-get install ${tool#*:}"
done

# --- which packages, exactly ---------------------------------------------------------------------------------
step 1/5 asking apt for the packages
# Runs a command with the packages' names as its last arguments; the metapackage is replaced by its kernel.
with_packages() { lines packages | sed "s/^linux-image-cloud-amd64$/$kernel/" | xargs "$@"; }
resolve() {
    kernel=$(apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
    [ -n "$kernel" ] || return 1
    # Asked from an empty folder: apt leaves out what lies in the current one.
    (cd "$work/empty" && with_packages apt-get -qq --print-uris download) >"$work/uris" 2>"$work/apt.log"
}
update() { [ "$(id -u)" = 0 ] && apt-get -qq update >"$work/apt.log" 2>&1; }
resolve || { update && resolve; } ||
    die "apt does not know all packages of $here/packages: run 'apt-get update' as root ($(tail -n1 "$work/apt.log" 2>/dev/null))"

step 2/5 fetching "$(wc -l <"$work/uris")" packages
# A file with a wrong hash goes, since apt would take it for done; so do packages of earlier builds.
have_all() {
    for file in "$debs"/*.deb; do
        ! [ -f "$file" ] || grep -qF " ${file##*/} " "$work/uris" || rm -f "$file"
    done
    missing=0
    while read -r _ name _ sum; do
        if ! [ -f "$debs/$name" ] || [ "SHA256:$(hash_of "$debs/$name")" != "$sum" ]; then
            rm -f "$debs/$name"
            missing=1
        fi
    done <"$work/uris"
    return $missing
}
fetch() {
    (cd "$debs" && with_packages apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=3 \
        -o Acquire::http::Timeout=30 download) >"$work/apt.log" 2>&1
}
have_all || fetch || { update && resolve && fetch; } || die "packages could not be fetched: $(tail -n1 "$work/apt.log")"
have_all || die "a fetched package does not have the hash that apt's index names"

# --- what goes in --------------------------------------------------------------------------------------------
step 3/5 unpacking
: >"$work/packages"
while read -r _ name _ sum; do
    package=$(dpkg-deb -f "$debs/$name" Package)
    echo "package $package $(dpkg-deb -f "$debs/$name" Version) ${sum#SHA256:}" >>"$work/packages"
    dpkg -x "$debs/$name" "$work/unpacked/$package"
done <"$work/uris"
version=${kernel#linux-image-}

root=$work/root
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib64" "$root/usr/lib/x86_64-linux-gnu" "$root/etc/acpi/PWRF" \
    "$root/etc/dropbear" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/var/log" "$root/data" "$root/usr/local/bin"
ln -s ../run "$root/var/run"
mkdir -m 700 "$root/root"
mkdir -m 1777 "$root/tmp"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done

lines files | while read -r package path mode; do
    source=$work/unpacked/$package/$path
    [ -f "$source" ] || die "package $package holds no $path"
    case $path in usr/*) target=$root/$path ;; *) target=$root/usr/$path ;; esac
    mkdir -p "${target%/*}"
    cp -L "$source" "$target"
    chmod "$mode" "$target"
done
"$root/bin/busybox" --list | while read -r applet; do
    [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
done
for applet in init acpid poweroff; do ln -s ../bin/busybox "$root/usr/sbin/$applet"; done
# The path that Debian's dropbear looks for.
ln -s openssh/sftp-server "$root/usr/lib/sftp-server"

modules=$root/usr/lib/modules/$version
kernel_modules=$work/unpacked/$kernel/lib/modules/$version/kernel
mkdir -p "$modules/kernel"
: >"$modules/boot"
lines modules | while read -r when module; do
    source=$kernel_modules/$module
    [ -f "$source" ] || die "package $kernel holds no module $module"
    mkdir -p "$modules/kernel/${module%/*}"
    cp "$source" "$modules/kernel/$module"
    chmod 644 "$modules/kernel/$module"
    paths=
    for needed in $(tr '\0' '\n' <"$source" | sed -n 's/^depends=//p' | tr ',' ' '); do
        found=$(grep -o "^[^:]*/$needed\.ko" "$modules/modules.dep") || die "module $module needs $needed before it"
        paths="$paths $found"
    done
    echo "kernel/$module:$paths" >>"$modules/modules.dep"
    [ "$when" = extra ] || echo "$module" >>"$modules/boot"
done

cp "$here/init" "$root/init"
cp "$here/inittab" "$root/etc/inittab"
cp "$here/shutdown" "$root/etc/shutdown"
cp "$here/profile" "$root/etc/profile"
chmod 755 "$root/init" "$root/etc/shutdown"
echo guest >"$root/etc/hostname"
printf '127.0.0.1 localhost\n10.0.2.15 guest\n' >"$root/etc/hosts"
echo 'root:*:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\n' >"$root/etc/group"
printf 'NAME="Xennet thin guest"\nID=xennet-thin\n' >"$root/etc/os-release"
# What acpid runs when the power button is pressed.
ln -s ../../shutdown "$root/etc/acpi/PWRF/00000080"
chmod 644 "$root/etc/inittab" "$root/etc/profile" "$root/etc/hostname"

# --- the files of the image ----------------------------------------------------------------------------------
step 4/5 packing the file system
# Sorted, without owner, time or inode numbers of this machine: the bytes depend on the packages alone.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . -mindepth 1 -print0 | sort -z |
    cpio -0 -o -H newc --quiet --reproducible -R 0:0) >"$work/initrd.cpio"

step 5/5 unpacking the kernel
# The boot protocol's header says where the compressed ELF lies (Documentation/arch/x86/boot.rst).
vmlinuz=$work/unpacked/$kernel/boot/vmlinuz-$version
number() { od -An -v -t "u$2" -j "$1" -N "$2" "$vmlinuz" | tr -d ' '; }
setup_sectors=$(number 497 1)
[ "$(od -An -c -j 514 -N 4 "$vmlinuz" | tr -d ' ')" = HdrS ] || die "$vmlinuz is not a bzImage"
start=$(((setup_sectors + 1) * 512 + $(number 584 4)))
length=$(number 588 4)
# The last four bytes are the size of the unpacked kernel and no part of the compressed stream.
tail -c +$((start + 1)) "$vmlinuz" | head -c $((length - 4)) >"$work/payload"
[ "$(od -An -t x4 -N 4 "$work/payload" | tr -d ' ')" = 184c2102 ] || die "the kernel is not packed with lz4"
lz4 -qdc "$work/payload" >"$work/vmlinux"
[ "$(stat -c %s "$work/vmlinux")" = "$(number $((start + length - 4)) 4)" ] || die "the kernel unpacked to a wrong size"

{
    echo "xennet thin image 1"
    echo "kernel $version"
    sort "$work/packages"
    for file in initrd.cpio vmlinux; do
        echo "file $file $(hash_of "$work/$file") $(stat -c %s "$work/$file")"
    done
} >"$work/manifest"
image=$(hash_of "$work/manifest")

# A recipe and packages that gave another image elsewhere mean that this machine's tools are at fault.
inputs=$({
    sort "$work/packages"
    for file in build.sh init inittab shutdown profile packages files modules; do hash_of "$here/$file"; done
} | sha256sum | cut -d' ' -f1)
known=$(sed -n "s/^$inputs //p" "$here/known")
[ -z "$known" ] || [ "$known" = "$image" ] ||
    die "these packages give image $known, but this machine made $image: its cpio, lz4 or dpkg differ"

# The manifest comes last: a folder that has one is whole.
mv "$work/vmlinux" "$work/initrd.cpio" "$out/"
mv "$work/manifest" "$out/manifest"
echo "inputs $inputs"
echo "image $image"
