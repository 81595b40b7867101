# boot-options.bash: the common part of the two rigs; sourced by their `boot`.
#
# Responsible for: one command line for both, and children that cannot outlive the script.  Must
# never know how either rig boots.
#
#   boot --tree TREE_DIR --results DIR [--layer DIR]... [--append 'ARG...']
#        [--timeout SECONDS]
#
#   TREE_DIR  the path that guest/build-tree printed
#   results   the directory that is /results in the guest, with console.log; created if missing
#   layer     laid over the tree; a later one over an earlier one
#   append    words for the guest's kernel line (container: for its init)
#   timeout   after this many seconds the run is ended and has failed
#
# Inputs: program and here, the name and directory of the sourcing script.
# Sets: tree, results, layers, append, timeout.
# shellcheck shell=bash disable=SC2034,SC2154

say() { echo "$program: $*" >&2; }
die() { say "$*"; exit 2; }

absolute_dir() {
    [[ -d $1 ]] || die "no such directory: $1"
    (cd "$1" && pwd)
}

parse_options() {
    tree='' results='' append='' timeout=$1 layers=()
    shift
    # The units that run a scenario. This layer comes first, so that a test can replace them.
    layers+=("$(absolute_dir "$here/../guest/layer")")
    while [[ $# -gt 0 ]]; do
        [[ $# -ge 2 ]] || die "$1: a value is missing, or no such option"
        case $1 in
            --tree) tree=$(absolute_dir "$2") ;;
            --results) mkdir -p "$2"; results=$(absolute_dir "$2") ;;
            --layer) layers+=("$(absolute_dir "$2")") ;;
            --append) append+=" $2" ;;
            --timeout) timeout=$2 ;;
            *) die "no such option: $1" ;;
        esac
        shift 2
    done
    [[ -n $tree ]] || die "--tree is missing"
    [[ -n $results ]] || die "--results is missing"
    [[ $timeout =~ ^[1-9][0-9]*$ ]] || die "--timeout $timeout: not a number of seconds"
    [[ -e $tree/complete ]] || die "$tree is not a tree of guest/build-tree"
}

need_tools() {
    local tool
    for tool; do
        type -P "$tool" >/dev/null || die "$tool is not installed"
    done
}

# bounded SECONDS COMMAND...: returns the command's status, or 137 if the time was over.  Each link
# of the chain dies with the one before it, so that even a killed script leaves no guest behind.
# The command is in the background, so that traps run at once. For timeout(1) it is in the
# foreground: timeout would otherwise kill itself before it has seen its child exit.
bounded() {
    setpriv --pdeathsig KILL timeout --foreground --signal KILL "$1" \
        setpriv --pdeathsig KILL "${@:2}" &
    bounded_pid=$!
    # bash would report a killed child in its own words.
    { wait "$bounded_pid"; } 2>/dev/null
}

end_bounded() {
    [[ -n ${bounded_pid:-} ]] || return 0
    kill -KILL "$bounded_pid" 2>/dev/null || true
    wait "$bounded_pid" 2>/dev/null || true
}

# The results of an earlier run must not be taken for this one's.
fresh_results() {
    rm -f "$results"/{scenario.log,scenario.exit,journal.log,failed-units}
    : >"$results/console.log"
}

last_console_lines() {
    say "$1; the last lines of $results/console.log:"
    # While systemd waits, it writes such a line each second.
    grep -av 'Job .* running (' "$results/console.log" | tail -n 25 >&2 || true
}
