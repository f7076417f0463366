"""The shell scripts that run inside a container, for any POSIX `/bin/sh`.

Guarantees: what must work when no process can be forked (END_SESSION, KILL_ALL) uses shell builtins only.
Arguments are positional; no script is put together from text of the agent.
"""

_PART_CHARACTERS = 30_000
"""The kernel takes 128 KiB in one argument, and a character is 4 bytes at most."""
_MOST_CHARACTERS = 400_000
"""It takes about 2 MiB in all of them."""

FIRST_PROCESS = """\
env --ignore-signal=CHLD true 2>/dev/null && exec env --ignore-signal=CHLD sleep "$1"
trap '' HUP INT TERM
read -r up _ </proc/uptime
end=$((${up%%.*} + $1))
while read -r up _ </proc/uptime; left=$((end - ${up%%.*})); [ "$left" -gt 0 ]; do sleep "$left"; done
"""
"""`$1`: seconds until the container ends. As process 1 a plain `sleep` cannot be killed, stopped or terminated from
inside, and the kernel reaps orphans for a parent that ignores CHLD. Where `env` cannot ignore it, a shell reaps."""

RUN = """\
if [ $# -eq 1 ]; then
    if command -v nice >/dev/null; then exec nice -n 19 /bin/sh -c "$1"; fi
    exec /bin/sh -c "$1"
fi
command=
for part; do command=$command$part; done
set --
eval "$command"
"""
"""`$1`...: the command, in parts that each fit into one argument; see `split_command`. It is nice
to what we run beside it, so that a hundred spinning processes cannot starve the script that ends them; between
sandboxes that changes nothing."""

START = f"""\
echo $$
cd "$1" || exit 126
shift
{RUN}"""
"""`$1`: working directory; `$2`...: the command, as for RUN. The first line it prints is the process id inside, which
is also that of its session and group."""

END_SESSION = """\
leader=$1
reach() {
    signal=$1
    kill -s "$signal" -- "-$leader"
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        [ "$pid" -ne 1 ] && [ "$pid" -ne $$ ] || continue
        stat=
        while read -r line; do stat=$line; done <"$entry/stat" || continue
        set -- ${stat##*) }
        [ "${3:-}" = "$leader" ] || [ "${4:-}" = "$leader" ] || continue
        kill -s "$signal" "$pid"
    done
} 2>/dev/null
reach TERM
read -r _
reach KILL
exit 0
"""
"""`$1`: session. TERM, and KILL when standard input brings a line or ends. Each reaches the whole group at once, which
no fork loop escapes, then every process of the session, whatever its name contains."""

KILL_ALL = """\
kill -9 -1 2>/dev/null
for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    [ "$pid" -ne 1 ] && [ "$pid" -ne $$ ] || continue
    stat=
    while read -r line; do stat=$line; done 2>/dev/null <"$entry/stat" || continue
    set -- ${stat##*) }
    case ${1:-Z} in Z | X) ;; *) exit 1 ;; esac
done
exit 0
"""
"""One signal to all at once, which no fork loop escapes; exit code 1 while something is still dying."""

WRITE_FILE = """\
path=$1
if [ -d "$path" ]; then echo "is a directory" >&2; exit 1; fi
if [ -e "$path" ] && ! [ -f "$path" ]; then echo "is not a regular file" >&2; exit 1; fi
mkdir -p -- "${path%/*}/" && cat >"$path"
"""
"""`$1`: path; content on standard input."""

READ_FILE = """\
path=$1
if [ -d "$path" ]; then echo "is a directory" >&2; exit 1; fi
if ! [ -e "$path" ]; then echo "no such file" >&2; exit 1; fi
if ! [ -f "$path" ]; then echo "is not a regular file" >&2; exit 1; fi
stat -L -c %s -- "$path" && exec head -c "$2" -- "$path"
"""
"""`$1`: path; `$2`: most bytes. Prints the size of the whole, a newline and the content."""

MAKE_FOLDER = 'mkdir -p -- "$1"'
REMOVE = 'rm -rf -- "$1"'

OOM_KILLS = """\
for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$file" ] || continue
    while read -r key value; do [ "$key" != oom_kill ] || echo "$value"; done <"$file"
done
"""
"""Prints how many processes the memory limit has ended so far."""


def split_command(command: str) -> list[str] | None:
    """A command in parts that each fit into one argument, at least one; null when it is too long altogether."""
    if len(command) > _MOST_CHARACTERS:
        return None
    return [command[at : at + _PART_CHARACTERS] for at in range(0, len(command), _PART_CHARACTERS)] or [""]
