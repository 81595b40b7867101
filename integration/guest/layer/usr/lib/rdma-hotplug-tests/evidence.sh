# evidence.sh: what scenarios share; sourced by them.
#
# Responsible for: keeping what commands say, as files below /results, one directory a case.
# Must never: judge any of it. What has to be true is written down in the tests.
# shellcheck shell=sh

# case_begins NAME: what is kept from here on belongs to this case.
case_begins() {
    evidence=/results/$1
    mkdir -p "$evidence"
}

# keep NAME COMMAND...: the command's output, errors and status, as NAME, NAME.err, NAME.status.
keep() {
    name=$1
    shift
    status=0
    "$@" >"$evidence/$name" 2>"$evidence/$name.err" || status=$?
    echo "$status" >"$evidence/$name.status"
}

# until_true SECONDS COMMAND...: waits for a command to succeed; false when it never did. By the
# clock, because under emulation a command may take longer than any pause between two.
until_true() {
    deadline=$(($(cut -d . -f 1 /proc/uptime) + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(cut -d . -f 1 /proc/uptime)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

run_dir=/run/rdma-hotplug

# call SERVICE METHOD PARAMETERS [OPTION...]: one varlink call by systemd's own client.
call() {
    service=$1 method=$2 parameters=$3
    shift 3
    varlinkctl call --json=short "$@" "$run_dir/org.rdmahotplug.$service" \
        "org.rdmahotplug.$service.$method" "$parameters"
}

# keep_fields NAME PID: who a process runs as, and what it may, as /proc says it in one read: a loader
# without work ends.
keep_fields() {
    process_status=$(cat "/proc/$2/status")
    for field in Uid CapEff CapPrm CapBnd CapAmb NoNewPrivs Seccomp; do
        keep "$1.$field" field_of "$process_status" "$field"
    done
}

field_of() {
    echo "$1" | sed -n "s/^$2:[[:space:]]*//p"
}

# keep_privileges SERVICE: the same of a service's main process.
keep_privileges() {
    keep_fields "$1" "$(systemctl show --property=MainPID --value "$1")"
}

# inserters: the processes of the loader that insert modules.
inserters() {
    group=$(systemctl show --property=ControlGroup --value rdma-loader.service)
    for pid in $(cat "/sys/fs/cgroup$group/cgroup.procs"); do
        [ "$(cat "/proc/$pid/comm")" != rdma-inserter ] || echo "$pid"
    done
}

# keep_inserter_privileges: the same of the loader's other process.
keep_inserter_privileges() {
    keep_fields rdma-inserter "$(inserters | head -n 1)"
}
