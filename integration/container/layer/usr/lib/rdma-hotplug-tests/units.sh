# units.sh: devices that come and go, by a stand-in for the detector, and what becomes of the units
# that rules name, under a real systemd with its bus and polkit; sourced by scenario.
#
# Responsible for: making things happen and keeping evidence. Must never judge: the tests do.
# shellcheck shell=sh

tests=/usr/lib/rdma-hotplug-tests
devices=/run/rdma-hotplug-tests.fifo

# device LINE...: a line for the stand-in.
device() {
    # Opened for reading, too: without the stand-in it would wait for ever.
    echo "$*" 1<>"$devices"
}

# shows NAME PATTERN: whether the orchestrator's status of a device has this in it.
shows() {
    call Orchestrator List "{\"name\":\"$1\"}" | grep -q "$2"
}

has_no() {
    ! call Orchestrator List "{\"name\":\"$1\"}"
}

is_state() {
    [ "$(systemctl show --property=ActiveState --value "$1")" = "$2" ]
}

has_no_bus() {
    call Orchestrator Describe '{}' | grep -q '"serviceManagerConnected":false'
}

explain() {
    rdma-hotplug explain "$1"
}

# unit NAME LINE...: a unit of the test's own.
unit() {
    file=/run/systemd/system/$1
    shift
    printf '%s\n' "$@" >"$file"
}

rules() {
    mkdir -p /etc/rdma-hotplug/rules.d
    printf '%s\n' "$@" >/etc/rdma-hotplug/rules.d/50-rdma-core.toml
    systemctl reload rdma-orchestrator.service
}

# What the tests' rules name, as an administrator permits it.
cat >/etc/polkit-1/rules.d/60-test.rules <<'POLKIT'
polkit.addRule(function (action, subject) {
    if (action.id === "org.freedesktop.systemd1.manage-units" &&
        subject.user === "rdma-orchestrator" &&
        action.lookup("unit").indexOf("test-") === 0) {
        return polkit.Result.YES;
    }
});
POLKIT
sleeps='ExecStart=/usr/bin/sleep infinity'
unit test-shared.service '[Service]' "$sleeps"
unit test-port@.service '[Service]' "$sleeps"
unit test-fails.service '[Service]' Type=oneshot ExecStart=/usr/bin/false
unit denied.service '[Service]' "$sleeps"
unit test-early@.service '[Service]' "$sleeps" '[Install]' 'WantedBy=rdma-hotplug@iwarp.target'
unit test-hardware.service '[Unit]' Requires=rdma-hw.target After=rdma-hw.target \
    '[Service]' "$sleeps" '[Install]' WantedBy=rdma-hw.target
unit test-bound.service '[Unit]' 'BindsTo=rdma-wait@test0.service' \
    'After=rdma-wait@test0.service' '[Service]' "$sleeps"
unit test-legacy.service '[Unit]' Wants=rdma-settled.service After=rdma-settled.service \
    '[Service]' "$sleeps"
systemctl daemon-reload
systemctl enable --runtime --quiet test-hardware.service test-early@x.service

mkfifo $devices
systemctl stop rdma-detector.socket rdma-detector-uevent.socket rdma-detector.service
rm $run_dir/org.rdmahotplug.Detector
SYSTEMD_VARLINK_LISTEN=$run_dir/org.rdmahotplug.Detector $tests/detector-stand-in $devices &
stand_in=$!
until_true 10 test -S $run_dir/org.rdmahotplug.Detector
chmod 0666 $run_dir/org.rdmahotplug.Detector
rules '[[rule]]' 'units = ["test-shared.service"]' \
    '[[rule]]' 'protocol = ["infiniband"]' 'units = ["test-port@{name}:{port}.service"]' \
    'while_active = ["test-leader.service"]'
unit test-leader.service '[Service]' "$sleeps"
systemctl daemon-reload

case_begins jobs
device add 1 test0 infiniband roce infiniband
keep shared-active until_true 30 systemctl is-active test-shared.service
keep is-ready until_true 10 shows test0 '"state":"ready"'
keep waits until_true 10 shows test0 '"name":"test-port@test0:1.service","state":"waiting"'
keep leader systemctl start test-leader.service
keep port-1 until_true 20 systemctl is-active test-port@test0:1.service
keep port-3 until_true 20 systemctl is-active test-port@test0:3.service
keep port-2 systemctl is-active test-port@test0:2.service
keep status rdma-hotplug status
keep explain explain test0
device add 2 test-b roce
keep second until_true 20 shows test-b '"state":"ready"'
keep one-job sh -c 'journalctl --no-pager -u test-shared.service | grep -c "Started"'
device del 1
keep ports-stopped until_true 20 is_state test-port@test0:1.service inactive
keep shared-stays systemctl is-active test-shared.service
device del 2
keep shared-stopped until_true 20 is_state test-shared.service inactive
keep targets-stopped until_true 20 is_state rdma-hotplug-hardware.target inactive
device add 3 test0 roce
keep replug until_true 20 systemctl is-active test-shared.service
keep replug-ready until_true 20 shows test0 '"state":"ready"'

case_begins patterns
keep hardware until_true 20 systemctl is-active test-hardware.service
keep bound systemctl start --no-block test-bound.service
keep bound-active until_true 30 systemctl is-active test-bound.service
keep legacy systemctl start test-legacy.service
keep legacy-active systemctl is-active test-legacy.service
keep other systemctl start --no-block rdma-wait@other0.service
keep other-waits is_state rdma-wait@other0.service activating
device add 4 other0 iwarp
keep other-active until_true 20 systemctl is-active rdma-wait@other0.service
keep iwarp until_true 20 systemctl is-active rdma-hotplug@iwarp.target
keep iwarp-unit until_true 20 systemctl is-active test-early@x.service
device del 3
keep bound-stopped until_true 20 is_state test-bound.service inactive
keep waits-again until_true 20 is_state rdma-wait@test0.service activating
device add 5 test0 roce
keep is-back until_true 20 systemctl is-active rdma-wait@test0.service
printf '# nothing\nnosuch\n' >/etc/rdma/modules/test.conf
keep load-list systemctl start rdma-load-modules@test.service
keep load-list-active systemctl is-active rdma-load-modules@test.service
keep load-list-user systemctl show --property=User --value rdma-load-modules@test.service

case_begins failures
rules '[[rule]]' 'units = ["test-fails.service", "denied.service", "test-nosuch.service"]'
keep failed until_true 20 shows test0 '"name":"test-fails.service","state":"failed"'
keep refused until_true 20 shows test0 '"name":"denied.service","state":"refused"'
keep nosuch until_true 20 shows test0 '"name":"test-nosuch.service","state":"failed"'
keep shared-stopped until_true 20 is_state test-shared.service inactive
keep explain explain test0
keep status rdma-hotplug status
keep log journalctl --no-pager
keep history rdma-hotplug history
unit test-fails.service '[Service]' "$sleeps"
keep reload systemctl daemon-reload
systemctl reset-failed test-fails.service
keep reconcile rdma-hotplug reconcile
keep helped until_true 20 shows test0 '"name":"test-fails.service","state":"active"'
keep stop-by-hand systemctl stop test-fails.service
keep is-noticed until_true 20 shows test0 '"name":"test-fails.service","state":"stopped"'

case_begins bus
rules '[[rule]]' 'units = ["test-shared.service"]'
keep active until_true 20 shows test0 '"name":"test-shared.service","state":"active"'
keep stop systemctl stop dbus.service dbus.socket
keep is-lost until_true 20 has_no_bus
device add 6 test6 roce
rules '[[rule]]' 'units = ["test-shared.service", "test-port@{name}:9.service"]'
keep queued until_true 20 shows test6 '"state":"queued"'
keep start systemctl start dbus.socket dbus.service
keep started until_true 30 systemctl is-active test-port@test6:9.service
keep is-ready until_true 20 shows test6 '"state":"ready"'
keep reexec systemctl daemon-reexec
device add 7 test7 roce
keep after-reexec until_true 30 systemctl is-active test-port@test7:9.service

case_begins no-polkit
polkit=/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service
mv $polkit /run/polkit.off
systemctl reload dbus.service
systemctl stop polkit.service
device add 8 test8 roce
keep refused until_true 30 shows test8 '"state":"refused"'
keep explain explain test8
mv /run/polkit.off $polkit
systemctl reload dbus.service
keep reconcile rdma-hotplug reconcile
keep helped until_true 30 shows test8 '"state":"ready"'

case_begins bad-rules
rules '[[rule]]' 'untis = ["test-shared.service"]'
keep status rdma-hotplug status
keep works-on shows test8 '"state":"ready"'

case_begins crash
keep kill systemctl kill --signal=KILL rdma-orchestrator.service
keep back until_true 20 varlinkctl info $run_dir/org.rdmahotplug.Orchestrator
keep is-ready until_true 30 shows test8 '"state":"ready"'
device del 8
keep stopped until_true 20 is_state test-port@test8:9.service inactive
keep history rdma-hotplug history --limit 2000
keep history-json rdma-hotplug history --json
keep replay rdma-hotplug replay $run_dir/orchestrator/journal
keep log journalctl --no-pager -u rdma-orchestrator.service
kill $stand_in
