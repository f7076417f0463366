"""A20 to A25: what an agent tries to reach beyond its container."""

import contextlib
import socket
import threading
import uuid

import pytest

from tests.sandbox.helpers import WORK

from .agents import attack, tool

pytestmark = pytest.mark.usefixtures("docker_image")
CONNECT = """
import socket, sys
socket.setdefaulttimeout(3)
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), 3)
        else:
            socket.socket(socket.AF_UNIX).connect(place.replace("@", "\\0"))
        print("REACHED", place)
    except OSError as error:
        print("refused", place, type(error).__name__)
"""
RAW = """
import socket
for name, family, kind, protocol in [
    ("icmp", socket.AF_INET, socket.SOCK_RAW, 1), ("ping", socket.AF_INET, socket.SOCK_DGRAM, 1),
    ("icmp6", socket.AF_INET6, socket.SOCK_RAW, 58), ("packet", socket.AF_PACKET, socket.SOCK_RAW, 768),
]:
    try:
        target = {"packet": ("lo", 0), "icmp6": ("2606:4700:4700::1111", 0)}.get(name, ("1.1.1.1", 0))
        socket.socket(family, kind, protocol).sendto(b"x" * 64, target)
        print("REACHED", name)
    except OSError as error:
        print("refused", name, error)
"""


class Listener:
    """A listener on every address of this machine and on an abstract socket; counts who comes."""

    def __init__(self):
        self.reached = 0
        self.name = f"realwork-test-{uuid.uuid4().hex}"
        self._tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(f"\0{self.name}")
        self._unix.listen()
        self.port = self._tcp.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, args=[each]) for each in (self._tcp, self._unix)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        for each in (self._tcp, self._unix):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._unix.close()

    def _accept(self, listening):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.reached += 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsk-canary")
            connection.close()


def addresses():
    """Of this machine, as a container might try to reach it."""
    names = {socket.gethostname(), "host.docker.internal", "localhost"}
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            names.add(probe.getsockname()[0])
    return sorted(names | {"172.17.0.1", "127.0.0.1", "::1"})


def script(text, *arguments):
    return f"python3 - {' '.join(arguments)} <<'END'\n{text}\nEND"


def assert_all_refused(observation, count, mode):
    lines = observation.output.splitlines()
    assert len(lines) == count, (mode, observation.error)
    assert all(line.startswith("refused") for line in lines), mode
    assert observation.duration_s < 5


def test_a20_nothing_leaves_a_container_without_a_network():
    """With the network "bridge" this fails."""

    ways = [
        "curl -sS -m 3 https://example.com",
        script("import socket; socket.getaddrinfo('example.com', 443)"),
        script(CONNECT, "1.1.1.1:53", "[2606:4700:4700::1111]:53", "8.8.8.8:443"),
        script(RAW),
        "ls /sys/class/net",
    ]
    for agent in attack(*ways):
        curl, names, connections, raw, links = agent.observations
        assert curl.exit_code != 0, agent.mode
        assert names.exit_code != 0
        assert_all_refused(connections, 3, agent.mode)
        assert_all_refused(raw, 4, agent.mode)
        assert links.output == "lo\n"


def test_a21_a_metadata_service_is_not_reached():
    """With the network "bridge" this fails."""

    with Listener() as listener:
        places = [f"{address}:{listener.port}" for address in addresses()]
        known = ["169.254.169.254:80", "fd00:ec2::254:80", "metadata.google.internal:80"]
        fake = f"http://127.0.0.1:{listener.port}"
        redirect = f"""
import http.server, threading, urllib.request
class Redirect(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302); self.send_header("Location", "{fake}"); self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Redirect)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{{server.server_port}}", timeout=3).read())
"""
        rebind = f"echo '127.0.0.1 rebound' >>/etc/hosts; curl -sS -m 3 http://rebound:{listener.port}"
        for agent in attack(script(CONNECT, *places, *known), script(redirect), rebind):
            connections, redirected, rebound = agent.observations
            assert_all_refused(connections, len(places) + len(known), agent.mode)
            assert redirected.exit_code != 0
            assert rebound.exit_code != 0
            assert "sk-canary" not in redirected.output + rebound.output
        assert listener.reached == 0


def test_a22_no_proxy_address_or_protocol_leads_around_the_missing_network():
    """With the network "bridge" this fails."""

    with Listener() as listener:
        target, proxies = f"http://1.1.1.1:{listener.port}", [f"{one}:{listener.port}" for one in addresses()]
        ways = [
            *(f"curl -sS -m 2 -x http://{proxy} {target}" for proxy in proxies if "::" not in proxy),
            *(f"curl -sS -m 2 -p -x http://{proxy} https://1.1.1.1" for proxy in proxies if "::" not in proxy),
            f"curl -sS -m 2 --resolve example.com:443:172.17.0.1 https://example.com:{listener.port}",
            f"curl -sS -m 2 -g http://[::1]:{listener.port}",
            f"https_proxy= http_proxy= no_proxy='*' curl -sS -m 2 {target}",
        ]
        for agent in attack("\n".join(f"{way} && echo REACHED || echo refused" for way in ways)):
            assert_all_refused(agent.observations[0], len(ways), agent.mode)
        assert listener.reached == 0


def test_a23_neither_ray_nor_the_engine_is_reached():
    """With the network "bridge" this fails."""

    with Listener() as listener:
        ports = [6379, 8265, 10001, 2375, listener.port]
        places = [f"{address}:{port}" for address in ("172.17.0.1", "127.0.0.1") for port in ports]
        sockets = [f"@{listener.name}", "/var/run/docker.sock", "/run/containerd/containerd.sock"]
        for agent in attack(script(CONNECT, *places, *sockets), "ls /var/run/docker.sock /tmp/ray"):
            assert_all_refused(agent.observations[0], len(places) + len(sockets), agent.mode)
            assert agent.observations[1].exit_code != 0
        assert listener.reached == 0


PROBES = {
    "mount": "mount -t tmpfs x /mnt",
    "remount /proc/sys": "mount -o remount,rw /proc/sys",
    "new user namespace": "unshare -Urm true",
    "new mount namespace": "unshare -m true",
    "device": "mknod /tmp/x b 8 0",
    "chroot": "chroot / true",
    "core pattern": "echo '|/bin/sh' >/proc/sys/kernel/core_pattern",
    "sysrq": "echo h >/proc/sysrq-trigger",
    "kernel memory": "head -c 1 /proc/kcore | grep -q .",
    "release agent": "for f in $(find /sys/fs/cgroup -name 'release_agent'); do echo /x >$f && exit 0; done; exit 1",
    "own limit": "echo 1000 >$(find /sys/fs/cgroup -name pids.max | head -n 1)",
    "new control group": "mkdir $(find /sys/fs/cgroup -name pids.max | head -n 1 | xargs dirname)/x",
    "clock": "date -s 0",
    "host name": "hostname x",
    "keyring": script("import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(250, 0, -3, 1) < 0)"),
    "kernel module": script("import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(175, 0, 0, 0) < 0)"),
    "bpf": script("import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(321, 0, 0, 0) < 0)"),
    "trace of process 1": script("import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, 1, 0, 0) < 0)"),
    "memory of process 1": "head -c 1 /proc/1/mem",
    "root of process 1": "ls /proc/1/root/",
    "set-user-id": "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; python3 -c "
    '\'import os; os.setgid(1000); os.setuid(1000); os.execv("/tmp/id", ["id", "-u"])\' | grep -qx 0',
    "su": 'python3 -c \'import os; os.setgid(1000); os.setuid(1000); os.execvp("su", ["su", "-c", "id"])\'',
}


def test_a24_privileges_are_neither_there_nor_gained():
    """Without `cap_drop`, without `no-new-privileges`, with an unconfined seccomp, and without `setpriv` this fails."""

    for agent in attack(*PROBES.values(), "cat /proc/self/status"):
        *probes, status = agent.observations
        gained = [name for name, one in zip(PROBES, probes, strict=True) if one.exit_code == 0]
        assert gained == [], agent.mode
        found = dict(line.split(":\t", 1) for line in status.output.splitlines())
        assert (found["CapEff"], found["CapBnd"], found["NoNewPrivs"], found["Seccomp"]) == (
            "00000000000000fb",
            "00000000000000fb",
            "1",
            "2",
        )


def test_a25_no_credential_of_this_process_is_found_inside(monkeypatch):
    """With an environment that takes over this process's own this fails."""

    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "HF_TOKEN", "CANARY"):
        monkeypatch.setenv(name, "sk-canary-5")
    hunts = [
        "env",
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
        "grep -rIl 'sk-can[a]ry' / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr; echo searched",
    ]
    for agent in attack(*hunts, tool("read_file", filepath="/proc/1/environ")):
        said = " ".join(one.output + one.error for one in agent.observations)
        assert "searched\n" in said, agent.mode
        assert "sk-canary" not in said
        assert WORK in said
