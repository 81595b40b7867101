# units.sh: devices that a stand-in for the detector adds and removes, with their targets and the
# units that depend on these, under a real systemd with its bus and polkit; sourced by scenario.
#
# Responsible for: running the steps and keeping evidence. Must never judge: the tests do.
# shellcheck shell=sh

tests=/usr/lib/rdma-hotplug-tests
devices=/run/rdma-hotplug-tests.fifo

# device LINE...: sends a line to the stand-in.
device() {
    # The FIFO is opened for reading, too: without the stand-in, the write would block forever.
    echo "$*" 1<>"$devices"
}

# shows NAME PATTERN: true if the orchestrator's status of a device contains the pattern.
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

# unit NAME LINE...: writes a unit of the test.
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

# shows_target NAME TARGET STATE: true if the orchestrator shows the device's target in that state.
shows_target() {
    call Orchestrator Explain "{\"name\":\"$1\"}" | grep -q "\"name\":\"$2\",\"state\":\"$3\""
}

# as_orchestrator COMMAND...: runs a command as the orchestrator's user, outside of its sandbox.
as_orchestrator() {
    setpriv --reuid=rdma-orchestrator --regid=rdma-orchestrator --clear-groups "$@"
}

# manager METHOD SIGNATURE ARGUMENT...: calls a method of systemd over the bus, as that user.
manager() {
    as_orchestrator busctl --system call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
        org.freedesktop.systemd1.Manager "$@"
}

# Units that an administrator attaches to the targets.
sleeps='ExecStart=/usr/bin/sleep infinity'
unit test-device@.service '[Unit]' PartOf=rdma-device@%i.target '[Service]' "$sleeps" \
    '[Install]' WantedBy=rdma-device@.target
unit test-port@.service '[Unit]' PartOf=rdma-port@%i.target '[Service]' "$sleeps" \
    '[Install]' WantedBy=rdma-port@.target
unit test-storage.service '[Unit]' PartOf=rdma-role@storage.target '[Service]' "$sleeps" \
    '[Install]' WantedBy=rdma-role@storage.target
# A unit that is killed and waits for its restart when its device is removed, and a unit that never
# starts.
unit test-restarts@.service '[Unit]' PartOf=rdma-device@%i.target '[Service]' "$sleeps" \
    Restart=on-failure RestartSec=3s '[Install]' WantedBy=rdma-device@.target
unit test-fails@.service '[Unit]' PartOf=rdma-device@%i.target StartLimitIntervalSec=0 \
    '[Service]' Type=notify ExecStart=/usr/bin/false Restart=on-failure RestartSec=1s \
    '[Install]' WantedBy=rdma-device@.target
unit test-early@.service '[Service]' "$sleeps" '[Install]' 'WantedBy=rdma-hotplug@iwarp.target'
unit test-hardware.service '[Unit]' Requires=rdma-hw.target After=rdma-hw.target \
    '[Service]' "$sleeps" '[Install]' WantedBy=rdma-hw.target
unit test-bound.service '[Unit]' 'BindsTo=rdma-wait@test0.service' \
    'After=rdma-wait@test0.service' '[Service]' "$sleeps"
unit test-legacy.service '[Unit]' Wants=rdma-settled.service After=rdma-settled.service \
    '[Service]' "$sleeps"
systemctl daemon-reload
systemctl enable --runtime --quiet test-hardware.service test-early@x.service \
    test-device@.service test-port@.service test-storage.service test-restarts@.service \
    test-fails@.service

mkfifo $devices
# A start of the orchestrator must not bring the real detector back.
systemctl mask --now --quiet --runtime \
    rdma-detector.socket rdma-detector-uevent.socket rdma-detector.service
rm $run_dir/org.rdmahotplug.Detector
SYSTEMD_VARLINK_LISTEN=$run_dir/org.rdmahotplug.Detector $tests/detector-stand-in $devices &
stand_in=$!
until_true 10 test -S $run_dir/org.rdmahotplug.Detector
chmod 0666 $run_dir/org.rdmahotplug.Detector
rules '[[rule]]' 'roles = ["storage"]' \
    '[[rule]]' 'protocol = ["infiniband"]' 'roles = ["fabric"]'

case_begins targets
device add 1 test0 infiniband roce infiniband
keep device-active until_true 30 systemctl is-active rdma-device@test0.target
keep device-unit until_true 20 systemctl is-active test-device@test0.service
keep port-1 until_true 20 systemctl is-active test-port@test0:1.service
keep port-2 until_true 20 systemctl is-active test-port@test0:2.service
keep port-3 until_true 20 systemctl is-active test-port@test0:3.service
keep role-active until_true 20 systemctl is-active rdma-role@fabric:test0.target
keep storage-active until_true 20 systemctl is-active test-storage.service
keep is-ready until_true 10 shows test0 '"state":"ready"'
keep all-active until_true 10 call Orchestrator Wait \
    '{"name":"test0","conditions":["targets"],"timeoutUSec":1000000}'
keep status rdma-hotplug status
keep explain explain test0
device add 2 test-b roce
keep second until_true 20 systemctl is-active 'rdma-device@test\x2db.target'
keep second-unit until_true 20 systemctl is-active 'test-device@test\x2db.service'
keep one-job sh -c 'journalctl --no-pager -u test-storage.service | grep -c "Started"'
device del 1
keep ports-stopped until_true 20 is_state test-port@test0:1.service inactive
keep device-stopped until_true 20 is_state test-device@test0.service inactive
keep role-stopped until_true 20 is_state rdma-role@fabric.target inactive
keep storage-stays systemctl is-active test-storage.service
device del 2
keep storage-stopped until_true 20 is_state test-storage.service inactive
keep kinds-stopped until_true 20 is_state rdma-hotplug-hardware.target inactive
device add 3 test0 roce
keep replug until_true 20 systemctl is-active test-device@test0.service
keep replug-ready until_true 20 shows test0 '"state":"ready"'

case_begins patterns
keep hardware until_true 20 systemctl is-active test-hardware.service
keep bound systemctl start --no-block test-bound.service
keep bound-active until_true 30 systemctl is-active test-bound.service
keep legacy systemctl start test-legacy.service
keep legacy-active systemctl is-active test-legacy.service
keep other systemctl start --no-block rdma-wait@other0.service
keep other-waits until_true 10 is_state rdma-wait@other0.service activating
keep other-ends systemctl show --property=TimeoutStartUSec --value rdma-wait@other0.service
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

case_begins restarts
# A unit that waits for its restart still depends on its target (U1), and so does one that never
# starts (U2).
keep active until_true 20 systemctl is-active test-restarts@test0.service
keep kill systemctl kill --signal=KILL test-restarts@test0.service
keep waits until_true 10 is_state test-restarts@test0.service activating
device del 5
keep stopped until_true 20 is_state test-restarts@test0.service inactive
keep never-started until_true 20 sh -c '! systemctl is-active rdma-device@test0.target &&
    [ "$(systemctl show --property=SubState --value test-fails@test0.service)" != auto-restart ]'
# After the restart delays of both units, neither is active again.
sleep 4
keep still-stopped is_state test-restarts@test0.service inactive
device add 6 test0 roce
keep again until_true 20 systemctl is-active test-restarts@test0.service

case_begins by-hand
keep stop systemctl stop rdma-device@test0.target
keep is-back until_true 20 systemctl is-active rdma-device@test0.target
keep unit-is-back until_true 20 systemctl is-active test-device@test0.service
# A target without a device is stopped, whatever started it, and so are the units that depend on it.
keep start systemctl start rdma-device@nosuch.target
keep is-stopped until_true 20 is_state rdma-device@nosuch.target inactive
keep unit-is-stopped until_true 20 is_state test-device@nosuch.service inactive

case_begins masked
keep mask systemctl mask --runtime rdma-device@masked0.target
device add 13 masked0 roce
keep is-masked until_true 20 shows_target masked0 rdma-device@masked0.target masked
keep is-ready until_true 20 shows masked0 '"state":"ready"'
keep wait call Orchestrator Wait '{"name":"masked0","conditions":["targets"],"timeoutUSec":10000000}'
keep unmask systemctl unmask --runtime rdma-device@masked0.target
keep is-started until_true 20 systemctl is-active rdma-device@masked0.target
keep is-active until_true 20 shows_target masked0 rdma-device@masked0.target active
device del 13

case_begins exchange
before=$(systemctl show --property=MainPID --value test-device@test0.service)
keep before echo "$before"
# The new device has the same name, and appears before the other one is removed.
device add 7 test0 roce
device del 6
keep restarted until_true 20 sh -c 'pid=$(systemctl show --property=MainPID --value test-device@test0.service)
    [ "$pid" != 0 ] && [ "$pid" != '"$before"' ]'
keep active until_true 20 systemctl is-active rdma-device@test0.target

case_begins stopped-meanwhile
keep stop systemctl stop rdma-orchestrator.service rdma-orchestrator.socket
device del 7
keep stays systemctl is-active rdma-device@test0.target
keep start systemctl start rdma-orchestrator.socket rdma-orchestrator.service
keep device-stopped until_true 20 is_state rdma-device@test0.target inactive
keep unit-stopped until_true 20 is_state test-device@test0.service inactive
device add 8 test0 roce
keep is-back until_true 20 systemctl is-active test-device@test0.service

case_begins isolate
# This scenario stays active, and so do the requirements of its service.
for kept in test.service basic.target; do
    mkdir -p /run/systemd/system/$kept.d
    printf '[Unit]\nIgnoreOnIsolate=yes\n' >/run/systemd/system/$kept.d/isolate.conf
done
unit test-rescue.target '[Unit]' AllowIsolate=yes Requires=sysinit.target After=sysinit.target
unit test-back.target '[Unit]' AllowIsolate=yes Requires=basic.target After=basic.target
systemctl daemon-reload
keep away systemctl isolate test-rescue.target
keep unit-stopped until_true 20 is_state test-device@test0.service inactive
keep back systemctl isolate test-back.target
systemctl start dbus.socket
keep target until_true 30 systemctl is-active rdma-device@test0.target
keep unit until_true 30 systemctl is-active test-device@test0.service
keep hardware until_true 30 systemctl is-active rdma-hotplug-hardware.target
keep hw until_true 30 systemctl is-active rdma-hw.target
systemctl start multi-user.target >/dev/null 2>&1

case_begins flags
device del 8
device del 4
keep gone until_true 20 is_state rdma-hotplug-hardware.target inactive
keep all-gone until_true 20 sh -c '! test -e /run/rdma-hotplug/orchestrator/hardware'
chmod 0500 /run/rdma-hotplug/orchestrator
device add 9 test0 roce
keep said until_true 20 sh -c 'rdma-hotplug status | grep -q "does not follow the hardware"'
keep no-flag sh -c '! test -e /run/rdma-hotplug/orchestrator/hardware'
chmod 0700 /run/rdma-hotplug/orchestrator
keep flag until_true 30 test -e /run/rdma-hotplug/orchestrator/hardware
keep active until_true 30 systemctl is-active rdma-hw.target

case_begins attack
keep id as_orchestrator id -un
keep transient as_orchestrator systemd-run --unit=srp_daemon_port@pwn.service -p Type=oneshot \
    touch /run/pwned
keep transient-own as_orchestrator systemd-run --unit=rdma-wait@pwn.service touch /run/pwned
keep transient-target manager StartTransientUnit 'ssa(sv)a(sa(sv))' rdma-device@pwn.target replace 0 0
keep transient-kind manager StartTransientUnit 'ssa(sv)a(sa(sv))' rdma-pwn.target replace 0 0
keep start-other manager StartUnit ss rdma-ndd.service replace
keep stop-other manager StopUnit ss test-hardware.service replace
keep start-service manager StartUnit ss rdma-device@pwn.service replace
keep start-hw manager StartUnit ss rdma-hw.target replace
keep restart manager RestartUnit ss rdma-device@test0.target replace
keep enqueue manager EnqueueUnitJob sss rdma-device@test0.target start replace
keep properties manager SetUnitProperties 'sba(sv)' rdma-device@test0.target true 1 \
    Description s pwned
keep reload manager Reload
keep reexecute manager Reexecute
keep kill manager KillUnit ssi test-hardware.service all 9
keep environment manager SetEnvironment as 1 PWNED=1
as_orchestrator sh -c 'printf "[Service]\nExecStart=touch /run/pwned\n" >/run/rdma-hotplug/orchestrator/pwn.service'
keep link manager LinkUnitFiles asbb 1 /run/rdma-hotplug/orchestrator/pwn.service true true
keep enable manager EnableUnitFiles asbb 1 /run/rdma-hotplug/orchestrator/pwn.service true true
keep start-path manager StartUnit ss /run/rdma-hotplug/orchestrator/pwn.service replace
as_orchestrator ln -s /usr/lib/systemd/system/rdma-ndd.service \
    /run/rdma-hotplug/orchestrator/rdma-device@pwn.target
keep start-link manager StartUnit ss rdma-pwn@x.target replace
keep isolate manager StartUnit ss rdma-device@test0.target isolate
keep hostname as_orchestrator busctl --system call org.freedesktop.hostname1 /org/freedesktop/hostname1 \
    org.freedesktop.hostname1 SetHostname sb pwned false
keep polkit as_orchestrator busctl --system call org.freedesktop.PolicyKit1 \
    /org/freedesktop/PolicyKit1/Authority org.freedesktop.PolicyKit1.Authority EnumerateActions s ''
keep allowed manager StartUnit ss rdma-device@pwn.target replace
keep allowed-stopped until_true 20 is_state rdma-device@pwn.target inactive
keep not-pwned sh -c '! test -e /run/pwned'
rm -f /run/rdma-hotplug/orchestrator/pwn.service /run/rdma-hotplug/orchestrator/rdma-device@pwn.target

case_begins bus
keep stop systemctl stop dbus.service dbus.socket
keep is-lost until_true 20 has_no_bus
device add 10 test6 roce
keep unknown until_true 20 shows_target test6 rdma-device@test6.target unknown
keep is-ready until_true 20 shows test6 '"state":"ready"'
keep explain-unknown explain test6
keep start systemctl start dbus.socket dbus.service
keep started until_true 30 systemctl is-active test-device@test6.service
keep reexec systemctl daemon-reexec
device add 11 test7 roce
keep after-reexec until_true 30 systemctl is-active test-device@test7.service

case_begins no-polkit
polkit=/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service
mv $polkit /run/polkit.off
systemctl reload dbus.service
systemctl stop polkit.service
device add 12 test8 roce
keep refused until_true 30 shows_target test8 rdma-device@test8.target refused
keep is-ready until_true 20 shows test8 '"state":"ready"'
keep status rdma-hotplug status
mv /run/polkit.off $polkit
systemctl reload dbus.service
keep reconcile rdma-hotplug reconcile
keep helped until_true 30 systemctl is-active test-device@test8.service

case_begins bad-rules
rules '[[rule]]' 'rolse = ["storage"]'
keep status rdma-hotplug status
keep works-on shows test8 '"state":"ready"'
keep role-stays systemctl is-active test-storage.service

case_begins crash
keep kill systemctl kill --signal=KILL rdma-orchestrator.service
keep back until_true 20 varlinkctl info $run_dir/org.rdmahotplug.Orchestrator
keep is-ready until_true 30 shows test8 '"state":"ready"'
device del 12
keep stopped until_true 20 is_state test-device@test8.service inactive
keep history rdma-hotplug history --limit 5000
keep history-json rdma-hotplug history --json
keep replay rdma-hotplug replay $run_dir/orchestrator/journal
keep log journalctl --no-pager -u rdma-orchestrator.service

case_begins refused-rules
# Case K3: no earlier version of the file is known, so the shipped file of that name counts.
keep stop systemctl stop rdma-orchestrator.service rdma-orchestrator.socket
rm -f $run_dir/orchestrator/journal*
keep start systemctl start rdma-orchestrator.socket rdma-orchestrator.service
keep shipped until_true 20 shows test7 '"name":"rdma_ucm"'
keep status rdma-hotplug status
# Case K4.
chmod 0700 /etc/rdma-hotplug/rules.d /etc/rdma/modules
before=$(systemctl show --property=NRestarts --value rdma-orchestrator.service)
keep reload systemctl reload rdma-orchestrator.service
keep unreadable-status rdma-hotplug status
keep unreadable-restart systemctl restart rdma-orchestrator.service
keep unreadable-again until_true 20 shows test7 '"name":"rdma_ucm"'
keep unreadable-restarted rdma-hotplug status
keep no-restarts [ "$(systemctl show --property=NRestarts --value rdma-orchestrator.service)" -le "$before" ]
chmod 0755 /etc/rdma-hotplug/rules.d /etc/rdma/modules

# The state of modules changes, and no client calls Reconcile.
tree=/lib/modules/$(uname -r)
case_begins indexes
rules '[[rule]]' 'modules = ["ib_uverbs"]'
mv "$tree" "$tree.away"
device add 20 test20 roce
keep unknown until_true 20 shows test20 '"name":"ib_uverbs","state":"unknown"'
keep not-ready shows test20 '"state":"registered"'
keep not-settled sh -c "varlinkctl --json=short call $run_dir/org.rdmahotplug.Orchestrator \
    org.rdmahotplug.Orchestrator.Describe '{}' | grep -q '\"settled\":false'"
keep wait rdma-hotplug wait test20 --timeout 1
keep explain explain test20
# A package does it in this order: the directory, and then depmod.
mkdir "$tree"
keep depmod-empty depmod
keep is-missing until_true 60 shows test20 '"name":"ib_uverbs","state":"missing"'
keep is-ready until_true 20 shows test20 '"state":"ready"'
# A module that exists now. This kernel refuses all modules.
mkdir -p "$tree/kernel"
cp -r /usr/lib/modules/*deb*/kernel/drivers/infiniband "$tree/kernel/"
keep depmod depmod
keep is-found until_true 60 shows test20 '"name":"ib_uverbs","state":"failed"'

case_begins excluded
mkdir -p /etc/modprobe.d
echo 'blacklist ib_uverbs' >/etc/modprobe.d/test-excluded.conf
keep is-excluded until_true 30 shows test20 '"name":"ib_uverbs","state":"excluded"'
keep is-ready until_true 20 shows test20 '"state":"ready"'
keep wait rdma-hotplug wait test20 --timeout 20
keep explain explain test20
echo 'install ib_uverbs /bin/false' >/etc/modprobe.d/test-excluded.conf
keep line-changed until_true 30 shows test20 test-excluded.conf:1' forbids'
rm /etc/modprobe.d/test-excluded.conf
keep is-asked-again until_true 30 shows test20 '"name":"ib_uverbs","state":"failed"'
# The policy: a file of this name replaces the shipped one. The modules that hfi1 needs are implied.
rm /etc/rdma-hotplug/loader.d/60-test.toml
printf '[[allow]]\npurpose = "test"\nmodules = ["ib_umad"]\n' >/etc/rdma-hotplug/loader.d/50-rdma.toml
keep is-denied until_true 30 shows test20 '"name":"ib_uverbs","state":"denied"'
rm /etc/rdma-hotplug/loader.d/50-rdma.toml
keep is-allowed until_true 30 shows test20 '"name":"ib_uverbs","state":"failed"'
device del 20
rm -r "$tree"
mv "$tree.away" "$tree"

case_begins extensions
# extension DIRECTORY TREE: makes DIRECTORY an extension that systemd-sysext or systemd-confext lays
# over TREE.
extension() {
    mkdir -p "$1/$2/extension-release.d"
    echo ID=_any >"$1/$2/extension-release.d/extension-release.$(basename "$1")"
}
modules=/run/extensions/test-modules
extension $modules usr/lib
mkdir -p $modules/usr/lib/modules
mv "$tree" $modules/usr/lib/modules/
device add 21 test21 roce
keep unknown until_true 20 shows test21 '"name":"ib_uverbs","state":"unknown"'
keep merge systemd-sysext merge
keep is-found until_true 60 shows test21 '"name":"ib_uverbs","state":"failed"'
ban=/run/confexts/test-ban
extension $ban etc
mkdir -p $ban/etc/modprobe.d
echo 'blacklist ib_uverbs' >$ban/etc/modprobe.d/test-ban.conf
keep merge-ban systemd-confext merge
keep is-excluded until_true 60 shows test21 test-ban.conf:1
keep unmerge-ban systemd-confext unmerge
keep is-asked-again until_true 60 shows test21 '"name":"ib_uverbs","state":"failed"'
rule=/run/extensions/test-rule
extension $rule usr/lib
mkdir -p $rule/usr/lib/rdma-hotplug/rules.d
printf '[[rule]]\nmodules = ["ib_umad"]\n' >$rule/usr/lib/rdma-hotplug/rules.d/60-test.toml
keep refresh systemd-sysext refresh
keep is-wanted until_true 60 shows test21 '"name":"ib_umad","state":"failed"'
keep explain rdma-hotplug explain ib_uverbs
device del 21
keep unmerge systemd-sysext unmerge
mv "$modules/usr/lib/modules/$(uname -r)" "$tree"
rm -r /run/extensions
keep failed-units systemctl --failed --plain --no-legend
keep log journalctl --no-pager -u rdma-orchestrator.service -u rdma-loader.service

case_begins no-orchestrator
keep stop systemctl stop rdma-orchestrator.socket rdma-orchestrator.service rdma-settled.service
rm -f $run_dir/org.rdmahotplug.Orchestrator
keep settled timeout 10 systemctl start rdma-settled.service
keep modules timeout 10 systemctl start rdma-hotplug-modules.service
keep failed-units systemctl --failed --plain --no-legend
systemctl start rdma-orchestrator.socket
kill $stand_in

case_begins taken-over
systemctl unmask --quiet --runtime \
    rdma-detector.socket rdma-detector-uevent.socket rdma-detector.service
# The mode is that of /etc/shadow, but all users may read the tree.
install -m 600 /etc/hostname /etc/secret
systemctl stop rdma-orchestrator.socket rdma-detector.socket rdma-loader.socket \
    rdma-orchestrator.service rdma-detector.service rdma-loader.service
# taken_over UNIT SERVICE: runs the attacker's program in the place of a service's program.
taken_over() {
    mkdir -p "/run/systemd/system/$1.d"
    cat >"/run/systemd/system/$1.d/taken-over.conf" <<DROPIN
[Service]
Type=oneshot
ExecStart=
ExecStart=/usr/lib/rdma-hotplug-tests/taken-over $2
Restart=no
StandardOutput=file:/run/taken-over.$2
DROPIN
    systemctl daemon-reload
    keep "$2-runs" systemctl start "$1"
    keep "$2" cat "/run/taken-over.$2"
}
taken_over rdma-detector.service detector
taken_over rdma-loader.service loader
taken_over rdma-loader.service inserter
taken_over rdma-orchestrator.service orchestrator
keep not-pwned sh -c '! test -e /run/pwned && ! test -e /etc/modprobe.d/pwned.conf && test -e /etc/hostname'
