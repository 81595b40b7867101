# protocols.sh: the story `protocols`: a device of each protocol is added and removed, with the
# modules, targets and daemons that it gets; then a second device, a re-plug, and units that are
# bound to a device; sourced by scenario.
#
# Responsible for: running the steps and keeping evidence. Must never judge: the tests do.
# shellcheck shell=sh disable=SC2154

# Prints all active units of RDMA.
active_units() {
    systemctl list-units --plain --no-legend --state=active \
        'rdma-h*.target' 'rdma-ndd.service' 'iwpmd.service' 'srp_daemon_port@*' |
        cut -d ' ' -f 1 | sort
}

is_active() {
    systemctl --quiet is-active "$1"
}

is_inactive() {
    [ "$(systemctl show --property=ActiveState --value "$1")" = inactive ]
}

# of_protocol PROTOCOL DRIVER [TARGET [DAEMON]]: adds and removes a device.
of_protocol() {
    case_begins "protocol-$1"
    keep add provider add "d_$1" "$1" 2 "$2"
    keep is-ready until_true 60 is_ready "d_$1"
    keep target until_true 30 is_active "${3:-rdma-hw.target}"
    keep hardware until_true 30 is_active rdma-hw.target
    keep daemon until_true 30 is_active "${4:-rdma-ndd.service}"
    keep settled rdma-hotplug wait --timeout 60
    keep list call Orchestrator List "{\"name\":\"d_$1\"}"
    keep modules live
    keep units active_units
    keep explain rdma-hotplug explain "d_$1"
    keep del provider del "d_$1"
    keep is-gone until_true 20 has_none
    keep target-stops until_true 30 is_inactive "${3:-rdma-hotplug-hardware.target}"
    keep hardware-stops until_true 30 is_inactive rdma-hotplug-hardware.target
    keep units-later active_units
}

protocols() {
    # The units of the srptools package, without a fabric to connect to.
    sleeps='ExecStart=/usr/bin/sleep infinity'
    units=/run/systemd/system
    printf '[Service]\n%s\n' "$sleeps" >$units/srp_daemon.service
    printf '[Unit]\nBindsTo=srp_daemon.service\nAfter=srp_daemon.service\n[Service]\n%s\n' \
        "$sleeps" >$units/srp_daemon_port@.service
    # Its own udev rule, which stays in force.
    mkdir -p /run/udev/rules.d
    printf '%s, %s, %s, %s\n' 'SUBSYSTEM=="infiniband_mad", KERNEL=="umad*"' \
        'PROGRAM=="/usr/bin/systemctl show srp_daemon -p ActiveState"' \
        'RESULT=="ActiveState=active"' \
        'ENV{SYSTEMD_WANTS}+="srp_daemon_port@$attr{ibdev}:$attr{port}.service"' \
        >/run/udev/rules.d/60-srp_daemon.rules
    udevadm control --reload
    # The unit that an administrator attaches to each port.
    printf '[Unit]\nPartOf=rdma-port@%%i.target\n[Service]\n%s\n[Install]\nWantedBy=rdma-port@.target\n' \
        "$sleeps" >$units/test-port@.service
    printf '[Unit]\nAfter=rdma-hw.target dev-infiniband-umad0.device\n[Service]\n%s\n' \
        "$sleeps" >$units/test-umad.service
    sed -i 's/^After=/BindsTo=dev-infiniband-umad0.device\nAfter=/' $units/test-umad.service
    systemctl daemon-reload
    systemctl enable --runtime --quiet test-port@.service
    modprobe ib_core
    insmod $tests/rdma_provider.ko

    of_protocol roce bnxt_en rdma-hotplug@roce.target
    of_protocol usnic enic rdma-hotplug@usnic.target
    of_protocol none efa
    of_protocol ib mlx5_core rdma-hotplug@infiniband.target
    of_protocol opa hfi1 rdma-hotplug@opa.target
    of_protocol iw cxgb4 rdma-hotplug@iwarp.target iwpmd.service

    case_begins ports
    keep leader systemctl start srp_daemon.service
    keep add provider add p0 mixed 2 mlx4_core
    keep started until_true 60 is_active srp_daemon_port@p0:1.service
    keep port-1 until_true 60 is_active test-port@p0:1.service
    keep port-2 until_true 60 is_active test-port@p0:2.service
    keep is-ready until_true 60 is_ready p0
    keep bound systemctl start test-umad.service
    keep second provider add p1 ib 1 mlx5_core
    keep second-started until_true 60 is_active srp_daemon_port@p1:1.service
    keep second-port until_true 60 is_active test-port@p1:1.service
    keep status rdma-hotplug status
    keep del provider del p0
    keep port-1-stopped until_true 30 is_inactive test-port@p0:1.service
    keep port-2-stopped until_true 30 is_inactive test-port@p0:2.service
    keep bound-stopped until_true 30 is_inactive test-umad.service
    keep second-stays is_active test-port@p1:1.service
    keep hardware-stays is_active rdma-hw.target

    case_begins unloaded
    keep rmmod rmmod ib_ipoib
    keep is-noticed until_true 20 status_says p1 unloaded
    keep explain rdma-hotplug explain ib_ipoib
    # rdma-core's unit latched on the first device: an unloaded module stayed unloaded.
    keep add provider add p2 ib 1 mlx5_core
    keep is-ready until_true 60 is_ready p2
    keep first-is-ready until_true 20 is_ready p1
    keep modules live
    keep del provider del p2
    keep replug provider add p2 ib 1 mlx5_core
    keep is-ready-again until_true 60 is_ready p2

    case_begins made-live
    # A module that no policy lists, which another program loads.
    mkdir -p /etc/rdma-hotplug/rules.d
    printf '[[rule]]\nmodules = ["null_blk"]\n' >/etc/rdma-hotplug/rules.d/70-test.toml
    keep reload systemctl reload rdma-orchestrator.service
    keep is-denied until_true 30 status_says p2 '"name":"null_blk","state":"denied"'
    keep not-ready status_says p2 '"state":"registered"'
    keep modprobe modprobe null_blk
    keep is-live until_true 30 status_says p2 '"name":"null_blk","state":"live"'
    keep is-ready until_true 30 is_ready p2
    keep rmmod rmmod null_blk
    keep is-unloaded until_true 30 status_says p2 '"name":"null_blk","state":"unloaded"'
    rm /etc/rdma-hotplug/rules.d/70-test.toml
    keep reload-again systemctl reload rdma-orchestrator.service
    keep is-ready-again until_true 30 is_ready p2

    case_begins barrier
    for round in 1 2 3; do
        for number in 1 2 3 4 5 6; do
            provider add "b$number" ib 1 mlx5_core
        done
        keep "wait-$round" rdma-hotplug wait --timeout 120
        keep "list-$round" call Orchestrator List '{}' --collect
        for number in 1 2 3 4 5 6; do
            provider del "b$number"
        done
        keep "gone-$round" rdma-hotplug wait --timeout 120
        keep "list-gone-$round" call Orchestrator List '{}' --collect
    done

    case_begins no-journal
    # The detector is slow while an orchestrator without a journal starts.
    printf '[Unit]\nBindsTo=rdma-wait@p2.service\nAfter=rdma-wait@p2.service\n[Service]\n%s\n' \
        "$sleeps" >$units/test-storage.service
    systemctl daemon-reload
    keep start systemctl start test-storage.service
    keep before systemctl show --property=MainPID --value test-storage.service
    detector=$(systemctl show --property=MainPID --value rdma-detector.service)
    kill -STOP "$detector"
    rm $run_dir/orchestrator/journal*
    keep kill systemctl kill --signal=KILL rdma-orchestrator.service
    keep begins until_true 30 sh -c "journalctl --no-pager -u rdma-orchestrator.service |
        tail -n 1 | grep -q 'Starting rdma-orchestrator'"
    keep status rdma-hotplug status
    sleep 1.5
    kill -CONT "$detector"
    keep is-ready until_true 60 is_ready p2
    keep after systemctl show --property=MainPID --value test-storage.service
    keep still-active is_active test-storage.service

    case_begins end
    keep initrd rdma-hotplug list-modules --initrd
    keep history rdma-hotplug history
    keep replay rdma-hotplug replay $run_dir/orchestrator/journal
    keep failed-units systemctl --failed --plain --no-legend
    keep kernel-log dmesg
}

# status_says NAME WORD: true if the orchestrator's status of a device contains the word.
status_says() {
    call Orchestrator List "{\"name\":\"$1\"}" | grep -q "$2"
}
