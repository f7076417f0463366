"""The shell scripts that run inside a container, for any POSIX `/bin/sh`.

Guarantees: what must work when no process can be forked (END_SESSION, KILL_ALL) uses shell builtins only.
Arguments are positional; no script is put together from text of the agent.
"""

import re
from collections.abc import Sequence

_PART_CHARACTERS = 30_000
"""The kernel takes 128 KiB in one argument, and a character is 4 bytes at most."""
_FORMATS = [
    chr(byte)
    if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in ' \n\t_.,:;/=+*()[]{}<>"#$&|!?@^~`')
    else f"\\{byte:03o}"
    for byte in range(256)
]
_MOST_CHARACTERS = 400_000
"""It takes about 2 MiB in all of them."""

FIRST_PROCESS = """\
cd /
unseen="setpriv --ruid 65534"
$unseen true 2>/dev/null || unseen=
if env --ignore-signal=CHLD true 2>/dev/null; then
    setsid="busybox setsid" nice=
    if command -v setsid >/dev/null; then setsid=setsid; fi
    if command -v nice >/dev/null; then nice="nice -n 19"; fi
    if [ -n "$2" ] && { [ "$setsid" = setsid ] || busybox setsid true 2>/dev/null; }; then
        exec 3<&0
        env --default-signal=INT,QUIT $setsid $nice /bin/sh <&3 3<&- &
        echo "$2 1"
        set -- "$1" ""
    fi
    [ -z "$2" ] || echo "$2 0"
    exec $unseen env --ignore-signal=CHLD sleep "$1" </dev/null >/dev/null 2>&1 3<&-
fi
[ -z "$2" ] || echo "$2 0"
exec </dev/null >/dev/null 2>&1
trap '' HUP INT TERM
read -r up _ </proc/uptime
end=$((${up%%.*} + $1))
while read -r up _ </proc/uptime; left=$((end - ${up%%.*})); [ "$left" -gt 0 ]; do sleep "$left"; done
"""
"""`$1`: seconds until the container ends. As process 1 a plain `sleep` cannot be killed, stopped or terminated from
inside, and the kernel reaps orphans for a parent that ignores CHLD. Where `env` cannot ignore it, a shell reaps. With
a real user of its own, where there is `setpriv`, it cannot be traced either, nor its files be opened.

`$2`: if not empty, a shell is started for a channel, in a session of its own, on the container's own streams, and
`$2 1` is said, or `$2 0` where that cannot be: a shell ignores INT and QUIT for what it starts beside itself, and only
such an `env` undoes that."""

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
leader=$1 token=$2
[ -z "$token" ] || command exec 3>"/proc/$leader/fd/1"
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
[ -z "$token" ] || {
    left=100000
    while [ -d "/proc/$leader" ] && [ "$left" -gt 0 ]; do left=$((left - 1)); done
    echo "$token 0" >&3
} 2>/dev/null
exit 0
"""
"""`$1`: session. TERM, and KILL when standard input brings a line or ends. Each reaches the whole group at once, which
no fork loop escapes, then every process of the session, whatever its name contains.

`$2`: if not empty, it is written to where the session's first process has written, after that is gone: nothing that
it has written comes later."""

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

_WRITABLE = """\
path=$1
if [ -d "$path" ]; then echo "is a directory" >&2; exit 1; fi
if [ -e "$path" ] && ! [ -f "$path" ]; then echo "is not a regular file" >&2; exit 1; fi
[ -d "${path%/*}/" ] || mkdir -p -- "${path%/*}/" || exit 1
"""

WRITE_FILE = f'{_WRITABLE}cat >"$path"\n'
"""`$1`: path; content on standard input."""

WRITE_INLINE = f'{_WRITABLE}printf "$2" >"$path"\n'
"""`$1`: path; `$2`: content as a format of `printf`."""

READ_FILE = """\
path=$1
if [ -d "$path" ]; then echo "is a directory" >&2; exit 1; fi
if ! [ -e "$path" ]; then echo "no such file" >&2; exit 1; fi
if ! [ -f "$path" ]; then echo "is not a regular file" >&2; exit 1; fi
stat -L -c %s -- "$path" && exec head -c "$2" -- "$path"
"""
"""`$1`: path; `$2`: most bytes. Prints the size of the whole, a newline and the content."""

HAND_OVER = """\
user=${1%%:*}
case $user in *[!0-9]*) user=$(id -u -- "$user") || exit 1 ;; esac
if command -v find >/dev/null; then exec find "$2" ! -user "$user" -exec chown -h -- "$1" {} +; fi
exec chown -hR -- "$1" "$2"
"""
"""`$1`: user, with or without a group; `$2`: folder. What belongs to the user already is not touched, since that would
copy it into the container's own layer."""

DISK_USE = 'du -skx -- "$1"'
"""`$1`: folder. Prints its size in KiB."""

MAKE_FOLDER = 'mkdir -p -- "$1"'
REMOVE = 'rm -rf -- "$1"'

EMPTY = """\
cd "$1" || exit 1
shift
command -v find >/dev/null || { echo "there is no 'find' in the image" >&2; exit 1; }
find . -mindepth 1 "$@" -o ! -type d -exec rm -f -- {} + || exit 1
find . -depth -mindepth 1 "$@" -o -type d -exec rmdir -- {} + 2>/dev/null
exit 0
"""
"""`$1`: directory; then what of it is left alone, as a condition of `find`; see `find_kept`. A folder that something is
left in stays by itself."""

CHANNEL = """\
exec 3>&2 4</dev/null 2>/dev/null
trap : HUP INT QUIT TERM USR1 USR2 PIPE ALRM
for setsid in setsid "busybox setsid" none; do $setsid /bin/sh -c : && break; done
known=" 1 $$ "
for entry in /proc/[0-9]*; do known="$known${entry#/proc/} "; done
for events in /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events /dev/null; do
    [ -r "$events" ] && break
done
hello() {
    [ "$setsid" != none ] && [ /proc/$$/fd/1 -ef /proc/self/fd/1 ] && echo "$1 $$" || echo "$1 0"
}
run() {
    (
        read -r pid _ </proc/self/stat
        exec 2>&3 3>&-
        echo "$1 $pid"
        echo "$1 0" >&2
        cd "$5" || exit 126
        kind=$4
        shift 5
        [ "$kind" = own ] && exec $setsid /bin/sh -c "$@" <&4 4<&-
        exec <&4 4<&-
        script=$1
        shift 2
        eval "$script"
    )
    code=$?
    kills=0
    while read -r key value; do [ "$key" != oom_kill ] || kills=$value; done <"$events"
    echo "$2 $kills" >&3
    echo "$2 $code"
    held=0
    for entry in /proc/[0-9]*; do
        case $known in *" ${entry#/proc/} "*) continue ;; esac
        for held_file in "$entry"/fd/*; do
            if [ "$held_file" -ef "/proc/$$/fd/1" ] || [ "$held_file" -ef "/proc/$$/fd/3" ]; then held=1
            elif [ -L "$held_file" ] && ! [ -e "$held_file" ]; then held=1; fi
        done
    done
    echo "$3 $held"
}
"""
"""What the shell of a channel is told first, on its standard input; then come calls of its functions.

`hello TOKEN` answers with its process id, or 0 if it lacks what it needs. `run START END REST own|shared DIRECTORY
SCRIPT [NAME ARGUMENT...]` runs a script in a session of its own or in a fork of this shell. It marks in both streams
where the output starts (with the process id) and ends (with the exit code, and in standard error how many processes
the memory limit has ended so far), then says whether another process may
still hold the streams: one it cannot look into counts as such. The signals are caught, not ignored, since that would
be inherited; only KILL and STOP reach it. It opens what it needs once, as the files may be replaced."""

OOM_KILLS = """\
for file in /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events; do
    [ -r "$file" ] || continue
    while read -r key value; do [ "$key" != oom_kill ] || echo "$value"; done <"$file"
    exit 0
done
"""
"""Prints how many processes the memory limit has ended so far. Where the first file exists, the second one's folder can
be written to from inside."""


def find_kept(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """What `find` leaves alone: files of these names (`*` for any characters), folders of these names at the top."""
    conditions = [["-path", f"./{_literal(folder)}{below}"] for folder in folders for below in ("", "/*")]
    conditions += [["!", "-type", "d", "-name", _literal(name).replace("\\*", "*")] for name in names]
    words = [word for condition in conditions for word in ("-o", *condition)]
    return words[1:] or ["-name", ""]


def _literal(text: str) -> str:
    """`text` as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def quote(text: str) -> str:
    """`text` as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def as_format(content: bytes) -> str:
    """`content` as a format of `printf`, in ASCII."""
    return "".join(map(_FORMATS.__getitem__, content))


def split_command(command: str) -> list[str] | None:
    """A command in parts that each fit into one argument, at least one; null when it is too long altogether."""
    if len(command) > _MOST_CHARACTERS:
        return None
    return [command[at : at + _PART_CHARACTERS] for at in range(0, len(command), _PART_CHARACTERS)] or [""]
