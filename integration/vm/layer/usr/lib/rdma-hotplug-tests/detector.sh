# detector.sh: the stories `detector`, with a device of each kind and its possible changes, and
# `storm`, with a thousand devices and a detector that is killed several times; sourced by scenario.
#
# Responsible for: running the steps and keeping the output of the detector, of rdma(8) and of
# sysfs. Must never: judge; the tests compare.
# shellcheck shell=sh disable=SC2154

tests=/usr/lib/rdma-hotplug-tests
control=/sys/module/rdma_provider/parameters/control

# provider COMMAND...: sends a command to the module that creates devices without hardware.
provider() {
    echo "$*" >$control
}

detector_says() {
    call Detector List "$1" --collect
}

# says NAME PATTERN: true if the detector's record of a device contains the pattern.
says() {
    call Detector List "{\"name\":\"$1\"}" | grep -q "$2"
}

function_says() {
    call Detector ListFunctions "{\"name\":\"$1\"}" | grep -q "$2"
}

# says_not METHOD NAME PATTERN: true if the list entry of a name does not contain the pattern.
says_not() {
    ! call Detector "$1" "{\"name\":\"$2\"}" | grep -q "$3"
}

has_no_function() {
    ! call Detector ListFunctions "{\"name\":\"$1\"}"
}

has_none() {
    ! call Detector List '{}' --more
}

# Prints each attribute of sysfs that is in a record, one per line.
sysfs() {
    cd /sys/class/infiniband || return
    grep -rs . -- */node_type */node_guid */sys_image_guid */fw_ver */board_id \
        */ports/*/link_layer */ports/*/state */ports/*/rate */ports/*/gid_attrs/types
    # This runs no process per device, which would take longer than a storm of them.
    find ./*/device/ ./*/device/driver/ -maxdepth 1 -type l \( -name driver -o -name module \) \
        -printf '%H%f:%l\n' 2>/dev/null |
        sed -n 's,^\./,,; s,/device/driver/module,/module,p; s,/device/driver:,/driver:,p'
    for node in /sys/class/infiniband_verbs/uverbs* /sys/class/infiniband_mad/*; do
        { read -r device <"$node/ibdev"; } 2>/dev/null || continue
        port=
        { read -r port <"$node/port"; } 2>/dev/null
        echo "$device/node/$port/${node##*/}:"
    done
    cd / || return
}

# Keeps all devices as the detector and the kernel show them. Synchronize makes the detector read
# all announced events first.
truth() {
    keep synchronized call Detector Synchronize '{}'
    keep told detector_says '{}'
    keep dev rdma -d -j dev show
    keep link rdma -d -j link show
    keep sysfs sysfs
}

# kind PROTOCOL DRIVER PATTERN...: adds a device, and keeps its record when all patterns match.
kind() {
    protocol=$1 driver=$2
    shift 2
    case_begins "kind-$protocol"
    keep add provider add "p_$protocol" "$protocol" 2 "$driver"
    keep is-ready until_true 60 is_ready "p_$protocol"
    for pattern; do
        keep "shows-$pattern" until_true 30 says "p_$protocol" "$pattern"
    done
    truth
}

changes() {
    case_begins renamed
    keep rename rdma dev set p_ib name renamed0
    keep is-told until_true 20 says renamed0 '"kernelName":"p_ib"'
    keep nodes-stay until_true 20 says renamed0 '"issm"'
    truth

    case_begins port-down
    keep down provider state renamed0 1 down
    keep is-told until_true 20 says renamed0 '"state":"down"'
    truth
    keep up provider state renamed0 1 active
    keep is-told-again until_true 20 says_not List renamed0 down

    case_begins netdev
    ip link add dummy7 type dummy
    ip link set dummy7 up
    keep attach provider netdev p_roce 1 dummy7
    keep is-told until_true 20 says p_roce '"netdev":"dummy7"'
    # The kernel enters the GIDs later, and sends no event.
    keep gids-are-told until_true 20 says p_roce '"gidTypes":\["RoCE'
    truth
    keep detach provider netdev p_roce 1 -
    keep is-told-again until_true 20 says_not List p_roce dummy7

    case_begins port-type
    keep change provider type p_mixed 1 eth
    keep is-told until_true 20 says_not List p_mixed infiniband
    keep synchronized-before call Detector Synchronize '{}'
    keep is-there until_true 20 says p_mixed '"uverbs"'
    truth

    case_begins came-again
    keep before detector_says '{"name":"p_none"}'
    keep del provider del p_none
    keep add provider add p_none none 2 efa
    keep synchronized-before call Detector Synchronize '{}'
    keep is-there until_true 20 says p_none '"uverbs"'
    truth
}

# is_gone NAME: true if the detector has no device of this name.
is_gone() {
    ! is_listed Detector "$1"
}

# A device that moves to another network namespace and back. rdma(8) can restrict devices to one
# namespace only while there is no other, and the sandboxes of services have their own: so this sets
# ib_core's own parameter.
namespaces() {
    case_begins elsewhere
    modprobe ib_core netns_mode=0
    insmod $tests/rdma_provider.ko
    keep add provider add moved0 usnic 1 enic
    keep is-ready until_true 60 is_ready moved0
    keep is-whole until_true 20 says moved0 '"uverbs"'
    ip netns add elsewhere
    ip netns attach initial 1
    keep before detector_says '{"name":"moved0"}'
    keep move rdma dev set moved0 netns elsewhere
    keep is-told until_true 20 says moved0 '"inOtherNetns":true'
    keep away detector_says '{"name":"moved0"}'
    keep back ip netns exec elsewhere rdma dev set moved0 netns initial
    keep is-told-back until_true 20 says moved0 '"inOtherNetns":false'
    keep is-whole-again until_true 20 says moved0 '"uverbs"'
    truth
    keep move-again rdma dev set moved0 netns elsewhere
    keep is-told-again until_true 20 says moved0 '"inOtherNetns":true'
    keep del provider del moved0
    keep is-gone until_true 20 is_gone moved0
    ip netns delete elsewhere
    keep rmmod rmmod rdma_provider
    keep unload until_true 60 unload_core
}

# unload_core: unloads all modules down to ib_core. Daemons of rdma-core that were started for a
# device hold sockets of NETLINK_RDMA, which pin it.
unload_core() {
    systemctl stop iwpmd.service rdma-ndd.service ibacm.service
    # rdma-core's rule for the driver's name loads iw_cxgb4.
    for module in iw_cxgb4 ocrdma ib_iser rpcrdma rdma_ucm ib_umad ib_ipoib ib_uverbs rdma_cm iw_cm ib_cm ib_core; do
        rmmod "$module" 2>/dev/null
    done
    ! grep -q '^ib_core ' /proc/modules
}

# An auxiliary device on its way to an RDMA device.
functions() {
    case_begins function
    keep aux provider aux rdma 0
    keep waits-for-driver until_true 20 function_says rdma_provider.rdma.0 '"waitsFor":"driver"'
    keep bind provider auxdriver on
    keep waits-for-registration until_true 20 function_says rdma_provider.rdma.0 registration
    keep unbind provider auxdriver off
    keep bind-again provider auxdriver on ibdev p_aux roce 1
    keep is-registered until_true 20 function_says rdma_provider.rdma.0 registered
    keep functions call Detector ListFunctions '{}' --collect
    truth
    keep unbind-again provider auxdriver off
    keep device-is-gone until_true 20 is_gone p_aux
    keep aux-del provider aux-del rdma 0
    keep is-gone until_true 20 has_no_function rdma_provider.rdma.0
}

dropped() {
    call Detector Describe '{}' | grep -q '"droppedDatagrams":2'
}

# Messages that are not from the kernel, and a queue that is too short.
loss() {
    case_begins forged
    keep forge $tests/witness forge
    keep is-counted until_true 20 dropped
    keep describe call Detector Describe '{}'
    truth

    case_begins overrun
    mkdir -p /run/systemd/system/rdma-detector-uevent.socket.d
    printf '[Socket]\nReceiveBuffer=8K\n' >/run/systemd/system/rdma-detector-uevent.socket.d/short.conf
    systemctl daemon-reload
    systemctl stop rdma-detector.socket rdma-detector-uevent.socket rdma-detector.service
    systemctl start rdma-detector-uevent.socket rdma-detector.socket rdma-detector.service
    keep stop systemctl kill --signal=STOP rdma-detector.service
    keep storm provider storm o 60 roce 1 mlx5_core
    keep go-on systemctl kill --signal=CONT rdma-detector.service
    # The devices of the story before still exist.
    keep is-told until_true 30 tells_whole 67
    keep describe call Detector Describe '{}'
    truth
    for number in $(seq 0 59); do
        provider del "o$number"
    done
    rm -r /run/systemd/system/rdma-detector-uevent.socket.d
    systemctl daemon-reload
    systemctl stop rdma-detector.socket rdma-detector-uevent.socket rdma-detector.service
    systemctl start rdma-detector-uevent.socket rdma-detector.socket rdma-detector.service
}

# tells_whole N: true if the detector lists N devices with all attributes that the modules give
# them. For all but the first device of a story, these exist from the beginning.
tells_whole() {
    [ "$(detector_says '{}' | grep -o '"uverbs":' | wc -l)" -eq "$1" ]
}

detector() {
    modprobe ib_core
    insmod $tests/rdma_provider.ko
    ip link add dummy6 type dummy
    ip link set dummy6 up
    kind ib mlx5_core '"umad"' '"issm"' '"uverbs"'
    kind roce bnxt_en '"uverbs"'
    kind iw cxgb4 '"uverbs"'
    kind opa hfi1 '"umad"' '"uverbs"'
    kind usnic enic '"uverbs"'
    kind none efa '"uverbs"'
    kind mixed mlx4_core '"umad"' '"uverbs"'
    changes
    functions
    loss
    case_begins unloaded
    keep rmmod rmmod rdma_provider
    keep is-told until_true 20 has_none
    keep describe call Detector Describe '{}'
    keep unload until_true 60 unload_core
    keep modules cat /proc/modules
    # If a module stays loaded: the process ID of the owner of each netlink socket (protocol 20).
    keep sockets cat /proc/net/netlink
    namespaces
    keep kernel-log dmesg
}

# memory SERVICE: prints the proportional size of a service's main process, in KiB.
memory() {
    pid=$(systemctl show --property=MainPID --value "$1")
    sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup"
}

# memory_below KIB: true if the detector has less.
memory_below() {
    [ "$(memory rdma-detector.service)" -lt "$1" ]
}

costs() {
    for service in rdma-detector.service systemd-udevd.service; do
        keep "$1.$service.cpu" cat "/sys/fs/cgroup/system.slice/$service/cpu.stat"
        keep "$1.$service.memory" memory "$service"
    done
}

# follow COUNT: starts a witness with this number of subscribers. A signal requests its report.
# Until the witness handles the signal, the shell ignores it, because it would end the process.
follow() {
    (
        trap '' USR1
        exec $tests/witness follow $run_dir/org.rdmahotplug.Detector "$1" /run/witness.json
    ) 2>>/results/witness.log &
    witness=$!
}

# followed NAME: keeps the current state of the witness's subscribers.
followed() {
    rm -f /run/witness.json
    kill -USR1 "$witness"
    until_true 30 test -e /run/witness.json
    keep "$1" cat /run/witness.json
}

# agree: true if all subscribers and the detector have the same number of devices.
agree() {
    rm -f /run/witness.json
    kill -USR1 "$witness"
    until_true 10 test -e /run/witness.json
    grep -q '"same":true' /run/witness.json
}

judges_costs() {
    grep -q rdma_test.costs /proc/cmdline
}

restarts() {
    systemctl show --property=NRestarts --value rdma-detector.service
}

# has_restarted COUNT: true if the detector is active after this number of restarts.
has_restarted() {
    [ "$(restarts)" -ge "$1" ] && systemctl --quiet is-active rdma-detector.service
}

storm() {
    modprobe ib_core
    insmod $tests/rdma_provider.ko
    # A device's modules are loaded before the storm, so that the storm has only devices.
    provider add first roce 1 mlx5_core
    until_true 60 is_ready first
    # The story is about the detector and its subscribers. Udevd and the orchestrator, for whose
    # targets PID 1 and polkit take 150 ms each under emulation, take more time than all others:
    # they run only if the costs are compared.
    if ! judges_costs; then
        stop_udevd
        systemctl stop rdma-orchestrator.socket rdma-orchestrator.service
    fi
    follow 100
    until_true 30 agree

    case_begins storm
    ! judges_costs || costs before
    keep began cat /proc/uptime
    keep storm provider storm s 1000 roce 1 mlx5_core
    keep ended cat /proc/uptime
    keep is-told until_true 300 tells_whole 1001
    keep agree until_true 120 agree
    followed subscribers
    keep told detector_says '{}'
    keep describe call Detector Describe '{}'
    if judges_costs; then
        keep udev-settles udevadm settle --timeout=600
        costs after
    fi
    keep del provider del-all
    keep is-gone until_true 300 has_none
    keep agree-again until_true 120 agree
    followed subscribers-later
    if judges_costs; then
        until_true 80 memory_below \
            $(($(cat "$evidence/before.rdma-detector.service.memory") + 2048))
        costs later
    fi

    case_begins killed
    kill -TERM "$witness"
    wait "$witness"
    follow 5
    until_true 30 agree
    before=$(restarts)
    kills=$(sed 's/.*rdma_test.kills=\([0-9]*\).*/\1/' /proc/cmdline)
    for round in $(seq "$kills"); do
        provider storm "k${round}_" 4 roce 1 mlx5_core
        [ "$round" -le 3 ] || for number in 0 1 2; do
            provider del "k$((round - 3))_$number"
        done
        systemctl kill --signal=KILL rdma-detector.service
        # The next detector is killed at the beginning of its scan, or before. An active state alone
        # is not enough: the service manager may not have noticed the death of the last one yet.
        until_true 60 has_restarted $((before + round))
    done
    keep restarts-before echo "$before"
    keep restarts restarts
    keep is-told until_true 60 tells_whole $((kills + 9))
    keep agree until_true 30 agree
    followed subscribers
    truth
    keep describe call Detector Describe '{}'
    kill -TERM "$witness"
    keep kernel-log dmesg
}
