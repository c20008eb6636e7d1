"""Which account is at the other end of a connection, on real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.serving.caller import Caller, _owner
from fleet.protocol.errors import NotPermitted

OTHER = 12345


@pytest.fixture(name="listener")
def listener_fixture() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_unix_socket_tells_its_peer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert Caller(ours).account() == os.geteuid()


def test_loopback_tells_its_peer(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as theirs:
        ours, _ = listener.accept()
        with ours:
            caller = Caller(ours)
            assert caller.account() == os.geteuid()
            theirs.close()
            assert caller.account() == os.geteuid()  # it was told while the connection was there


def test_loopback_tells_a_peer_with_a_socket_for_both_versions(listener: socket.socket) -> None:
    with socket.socket(socket.AF_INET6) as theirs:
        try:
            theirs.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        except OSError:
            pytest.skip("There is no IPv6 here.")
        ours, _ = listener.accept()
        with ours:
            assert Caller(ours).account() == os.geteuid()


def test_a_peer_that_has_gone_is_nobody_and_not_root(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as theirs:
        ours, _ = listener.accept()
    with ours:
        assert ours.recv(1) == b""  # its end has come, so the table has it in another state
        assert theirs.fileno() == -1
        with pytest.raises(NotPermitted):
            Caller(ours).account()


_CONNECTS = """
import encodings.idna, os, socket, sys  # what is loaded later may not be readable then
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
tcp = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
unix = socket.socket(socket.AF_UNIX)
unix.connect(chr(0) + sys.argv[3])
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can be another account.")
def test_another_account_is_told_either_way(listener: socket.socket) -> None:
    name = f"muster-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{name}")  # in no folder, so that any account may connect
        unix.listen()
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-c", _CONNECTS, str(OTHER), port, name]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            try:
                for each in (listener, unix):
                    each.settimeout(10)
                    ours, _ = each.accept()
                    with ours:
                        assert Caller(ours).account() == OTHER
            finally:
                child.communicate()


def test_only_an_established_connection_counts(tmp_path: Path) -> None:
    rows = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 17 1\n"
        "   1: 0100007F:88A0 0100007F:1F40 06 00000000:00000000 03:00001099 00000000     0        0 0 3\n"
        "   2: 0100007F:88A1 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  1001        0 18 1\n"
    )
    table = tmp_path / "tcp"
    assert _owner(table, "0100007F:88A1", "0100007F:1F40") is None
    table.write_text(rows, "ascii")
    assert _owner(table, "0100007F:88A0", "0100007F:1F40") is None
    assert _owner(table, "0100007F:88A1", "0100007F:1F40") == 1001
    assert _owner(table, "0100007F:1F40", "0100007F:88A1") is None
