"""`realwork view` on the command line: what it prints, whom it serves, how it ends."""

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.dataset.records import graded
from tests.dataset.store import committed
from tests.e2e.command import REALWORK, WITHOUT_PANDAS, clean_environment, realwork, wait_until


@pytest.fixture
def run(tmp_path):
    committed(tmp_path / "first", [graded(0)])
    return tmp_path / "first"


def begun(*arguments, cwd, **screen):
    """The viewer as a process, and the address that it prints."""
    here = clean_environment(**WITHOUT_PANDAS)
    process = subprocess.Popen(
        [REALWORK, "view", *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in here.items() if "DISPLAY" not in name} | screen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def fetched(address):
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


def test_it_serves_loopback_prints_the_address_and_ends_quietly(run, tmp_path):
    process, address = begun(run, cwd=tmp_path)
    with process:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert fetched(f"{address}runs/first")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == "Ctrl-C ends it.\nStopped.\n"


def test_it_opens_a_browser_where_there_is_a_screen(run, tmp_path):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    process, address = begun(run, cwd=tmp_path, DISPLAY=":99", BROWSER=str(browser))
    with process:
        try:
            wait_until(lambda: opened.exists() and opened.read_text(), seconds=20, what="the browser")
            assert opened.read_text() == f"{address}\n"
        finally:
            process.kill()


def test_another_address_is_served_to_those_who_have_the_token(run, tmp_path):
    process, address = begun(run, "--host", "127.0.0.1", "--no-open", cwd=tmp_path)
    with process:
        try:
            without, _, token = address.partition("?token=")
            assert len(token) >= 32
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                fetched(f"{without}runs/first")
            refused.value.close()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address, timeout=30) as answer:
                assert answer.status == 200
                assert answer.url == f"{without}runs/first"
        finally:
            process.kill()


def test_mistakes_are_said_in_a_sentence(run, tmp_path):
    done = realwork("view", tmp_path / "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere is no directory. Give the directory of a run" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = realwork("view", run, "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert f"port {port} cannot be served" in done.stderr
