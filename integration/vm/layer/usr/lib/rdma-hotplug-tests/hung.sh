# hung.sh: modules whose initialisation does not end, with the loader as installed; sourced by
# scenario. The sleepers are those of vm/provider.
#
# Responsible for: running the steps and keeping evidence. Must never judge: the tests do.
# shellcheck shell=sh

sleepers=20

# is_loading COUNT: true if the loader reports that it is loading this number of modules.
is_loading() {
    [ "$(call Loader Describe '{}' | grep -o '"module"' | wc -l)" -eq "$1" ]
}

# sleeper_names FIRST LAST: prints the names as they are written in a call.
sleeper_names() {
    seq "$1" "$2" | sed 's/.*/"rdma_test_sleeper_&"/' | tr '\n' , | sed 's/,$//'
}

# Creates a module tree of the sleepers and of the modules that two RDMA modules need. With the
# whole tree, depmod would take minutes of emulated time.
lay_out_tree() {
    base=/run/rdma-test
    tree=$base/lib/modules/$(uname -r)
    mkdir -p "$tree/kernel"
    cp /usr/lib/rdma-hotplug-tests/rdma_test_sleeper_*.ko "$tree/kernel"
    for module in ib_umad ib_uverbs iw_cm; do
        modprobe --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | xargs -I '{}' cp '{}' "$tree/kernel"
    cp "/lib/modules/$(uname -r)/modules.order" "/lib/modules/$(uname -r)/modules.builtin" \
        "/lib/modules/$(uname -r)/modules.builtin.modinfo" "$tree"
    depmod --basedir "$base" "$(uname -r)"
    mkdir -p /etc/rdma-hotplug/loader.d
    printf '[[allow]]\npurpose = "test"\nmodules = [%s]\n' "$(sleeper_names 1 $sleepers)" \
        >/etc/rdma-hotplug/loader.d/60-test.toml
    mkdir -p /run/systemd/system/rdma-loader.service.d
    cat >/run/systemd/system/rdma-loader.service.d/tree.conf <<DROPIN
[Service]
ExecStart=
ExecStart=/usr/libexec/rdma-hotplug/rdma-loader --modules $base/lib/modules
DROPIN
    systemctl daemon-reload
    systemctl restart rdma-loader.service
}

# restart COMMAND...: measures the time of a command, and checks that a loader serves after it.
restart() {
    restarted=$1
    shift
    keep "$restarted-begins" cat /proc/uptime
    keep "$restarted" "$@"
    keep "$restarted-ends" cat /proc/uptime
    keep "$restarted-serves" call Loader Describe '{}'
    keep "$restarted-pid" systemctl show --property=MainPID --value rdma-loader.service
}

hung() {
    begin_quietly
    case_begins hung
    keep tree lay_out_tree
    keep began cat /proc/uptime
    keep first call Loader Load \
        "{\"modules\":[$(sleeper_names 1 $((sleepers - 1)))],\"timeoutUSec\":1000000}"
    keep all-hang until_true 60 is_loading $((sleepers - 1))
    keep described call Loader Describe '{}'
    keep meanwhile load ib_uverbs
    keep states cat /sys/module/rdma_test_sleeper_1/initstate
    keep told until_true 60 sh -c 'journalctl --unit=rdma-loader.service | grep -q "takes longer"'

    restart stop systemctl restart rdma-loader.service
    keep left-over inserters
    keep later load ib_umad
    # A module that already hangs, for which the new loader waits, and a new one.
    keep second call Loader Load \
        "{\"modules\":[\"rdma_test_sleeper_1\",\"rdma_test_sleeper_$sleepers\"],\"timeoutUSec\":1000000}"
    keep both-hang until_true 60 is_loading 2
    keep described-again call Loader Describe '{}'

    restart kill systemctl kill --kill-whom=main --signal=KILL rdma-loader.service
    keep last load iw_cm
    keep still cat /sys/module/rdma_test_sleeper_1/initstate
    keep left-over-last inserters
    keep failed-units systemctl --failed --plain --no-legend
    keep log journalctl --unit=rdma-loader.service --output=cat --no-pager
    keep kernel-log dmesg
    # After this, the guest switches itself off.
}
