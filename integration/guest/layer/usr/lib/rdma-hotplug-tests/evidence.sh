# evidence.sh: the common functions of the scenarios; sourced by them.
#
# Responsible for: keeping the output of commands as files below /results, one directory per case.
# Must never: judge it. The tests define the expected results.
# shellcheck shell=sh

# case_begins NAME: begins a case. The evidence from here on belongs to it.
case_begins() {
    evidence=/results/$1
    mkdir -p "$evidence"
}

# keep NAME COMMAND...: keeps the command's output, errors and status as NAME, NAME.err and
# NAME.status.
keep() {
    name=$1
    shift
    status=0
    "$@" >"$evidence/$name" 2>"$evidence/$name.err" || status=$?
    echo "$status" >"$evidence/$name.status"
}

# until_true SECONDS COMMAND...: waits until a command succeeds; false if it never did. Uses the
# clock, because under emulation a command may take longer than a pause between two attempts.
until_true() {
    deadline=$(($(cut -d . -f 1 /proc/uptime) + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(cut -d . -f 1 /proc/uptime)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

run_dir=/run/rdma-hotplug

# call SERVICE METHOD PARAMETERS [OPTION...]: makes one varlink call with systemd's own client.
call() {
    service=$1 method=$2 parameters=$3
    shift 3
    varlinkctl call --json=short "$@" "$run_dir/org.rdmahotplug.$service" \
        "org.rdmahotplug.$service.$method" "$parameters"
}

# keep_fields NAME PID: keeps the user and privileges of a process, from one read of /proc: a loader
# without work exits.
keep_fields() {
    process_status=$(cat "/proc/$2/status")
    for field in Uid CapEff CapPrm CapBnd CapAmb NoNewPrivs Seccomp; do
        keep "$1.$field" field_of "$process_status" "$field"
    done
}

field_of() {
    echo "$1" | sed -n "s/^$2:[[:space:]]*//p"
}

# keep_privileges SERVICE: keeps the same of a service's main process.
keep_privileges() {
    keep_fields "$1" "$(systemctl show --property=MainPID --value "$1")"
}

# inserters: prints the processes of the loader that insert modules.
inserters() {
    group=$(systemctl show --property=ControlGroup --value rdma-loader.service)
    for pid in $(cat "/sys/fs/cgroup$group/cgroup.procs"); do
        [ "$(cat "/proc/$pid/comm")" != rdma-inserter ] || echo "$pid"
    done
}

# keep_inserter_privileges: keeps the same of the loader's other process.
keep_inserter_privileges() {
    keep_fields rdma-inserter "$(inserters | head -n 1)"
}
