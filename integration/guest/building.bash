# building.bash: what build-tree and build-kernel have in common; sourced by them.
#
# Responsible for: the same recipe always meaning the same path, one build at a
# time in a cache directory, and no half-built result under a final name, whatever
# interrupts it.  And for what both make: Debian trees and the small initrd.
#
# Must never: change a finished result, know what one is for, or name a package
# mirror: the machine's own apt sources know the nearest, and RDMA_HOTPLUG_MIRROR
# overrides.
#
#   find_cache [CACHE_DIR]    by default $RDMA_HOTPLUG_CACHE, or rdma-hotplug in
#                             the user's cache
#   print_finished RESULT     prints the path of a finished result; false without
#   begin_build RESULT        ends the script where another made it meanwhile
#   finish_build RESULT       what is in $work by now is the result
#
# Takes: program and here, the name and directory of the sourcing script.
# Sets: cache; between begin_build and finish_build, work.
# shellcheck shell=bash disable=SC2034,SC2154

# What initrd-init needs to reach the shares and stack a file system on them.
initrd_modules=(virtio_pci 9pnet_virtio 9p overlay)

say() { echo "$program: $*" >&2; }
die() { say "$*"; exit 1; }

find_cache() {
    cache=${1:-${RDMA_HOTPLUG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rdma-hotplug}}
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
}

# hash_of FILE...: the recipe's hash; standard input may add what is no file.
hash_of() {
    cat "$@" | sha256sum | cut -c1-16
}

print_finished() {
    [[ -e $1/complete ]] && echo "$1"
}

begin_build() {
    local tool
    # Only a build needs these; a finished result is usable without them.
    [[ $EUID -eq 0 ]] || die "building needs root"
    for tool in mmdebstrap cpio lz4 xz flock unshare; do
        type -P "$tool" >/dev/null || die "$tool is not installed"
    done
    # The lock is the open file's, so it ends with the process, however that ends.
    exec 9>"$cache/lock"
    flock --nonblock 9 || { say "waiting for another build"; flock 9; }
    ! print_finished "$1" || exit 0

    # What a killed build left behind; with the lock held it can be no one's.
    rm -rf --one-file-system "$cache"/building.*
    work=$(mktemp -d -p "$cache" building.XXXXXX)
    trap 'rm -rf --one-file-system "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"
}

finish_build() {
    touch "$work/complete"
    # A name that exists without its marker is from outside; it is not overwritten.
    mv -T "$work" "$1"
    say "built $1"
    echo "$1"
}

# The mirror that this machine's apt takes Debian's main component from.
# apt-get fills in the $(...) itself.
# shellcheck disable=SC2016
find_mirror() {
    local uri label
    if [[ -n ${RDMA_HOTPLUG_MIRROR:-} ]]; then
        echo "$RDMA_HOTPLUG_MIRROR"
        return
    fi
    # Label and not only origin: the security archive is Debian's too, but has
    # no base system.  apt knows the label only once its lists are there.
    while IFS='|' read -r uri label; do
        [[ $label == Debian ]] && { echo "$uri"; return; }
    done < <(apt-get indextargets --format '$(REPO_URI)|$(LABEL)' 'Created-By: Packages')
    # Fresh machines and container images have no lists yet.
    while read -r uri; do
        [[ $uri == */debian/ || $uri == */debian ]] && { echo "$uri"; return; }
    done < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages')
    die "no Debian mirror among this machine's apt sources; set RDMA_HOTPLUG_MIRROR"
}

# install_debian SUITE ROOT PACKAGE...: a minimal system with these packages.
install_debian() {
    local suite=$1 root=$2 mirror packages
    shift 2
    mirror=$(find_mirror)
    packages=$(IFS=,; echo "$*")
    say "installing $packages"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        "$suite" "$root" "$mirror" >&2
}

# release_of ROOT: the release of its kernel, of which there has to be one.
release_of() {
    local releases
    releases=$(ls "$1/usr/lib/modules")
    [[ -n $releases && $releases != *$'\n'* ]] || die "not one kernel but: ${releases//$'\n'/ }"
    echo "$releases"
}

# The files of the given modules and of what they depend on, in loading order.
# A modules.dep line names a module's whole closure, nearest dependency first.
in_loading_order() {
    local modules=$1 module line files
    shift
    for module; do
        ! grep -q "/$module\.ko$" "$modules/modules.builtin" || continue
        line=$(grep -E "/$module\.ko[.a-z]*:" "$modules/modules.dep") ||
            die "the kernel has no module $module"
        read -ra files <<<"${line/:/}"
        printf '%s\n' "${files[@]}" | tac
    done | awk '!seen[$0]++'
}

# build_initrd ROOT RELEASE OUT: the tree's busybox, initrd-init and its modules.
build_initrd() {
    local root=$1 release=$2 out=$3 stage modules files file number=10
    stage=$(mktemp -d -p "$work")
    modules=$root/usr/lib/modules/$release
    files=$(in_loading_order "$modules" "${initrd_modules[@]}")
    install -D -m 755 "$root/usr/bin/busybox" "$stage/bin/busybox"
    install -m 755 "$here/initrd-init" "$stage/init"
    mkdir "$stage/modules"
    # Decompressed here, where it costs nothing, rather than under emulation.
    for file in $files; do
        case $file in
            *.xz) xz --decompress --stdout "$modules/$file" ;;
            *) cat "$modules/$file" ;;
        esac >"$stage/modules/$number-$(basename "$file" .xz)"
        number=$((number + 1))
    done
    # The kernel takes no lz4 frame but the legacy one (-l).
    (cd "$stage" && find . | cpio --quiet --create --format=newc --owner=0:0) |
        lz4 -l -9 -q >"$out"
    rm -rf "$stage"
}
