"""The accounts file: Mosquitto's own tool and ours agree on it."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest

from fleet.protocol.errors import InvalidConfiguration, InvalidName, StorageError
from hub.broker.accounts import (
    AccountsFile,
    hash_password,
    new_password,
    read_accounts,
    verify_password,
    write_accounts,
)


def test_a_password_matches_its_hash_and_no_other() -> None:
    password = new_password()
    hashed = hash_password(password)
    assert verify_password(password, hashed)
    assert not verify_password(password + "x", hashed)
    assert not verify_password("", hashed)
    assert hash_password(password) != hashed, "two hashes of one password must not look alike"
    assert password not in hashed


def test_the_hash_is_pbkdf2_as_the_format_says() -> None:
    _, kind, iterations, salt, derived = hash_password("correct horse").split("$")
    expected = hashlib.pbkdf2_hmac("sha512", b"correct horse", base64.b64decode(salt), int(iterations))
    assert (kind, base64.b64decode(derived)) == ("7", expected)


@pytest.mark.parametrize(
    "hashed",
    ["", "x", "$7$101$AAAA", "$6$101$AAAA$AAAA", "$7$0$AAAA$AAAA", "$7$999999999$AAAA$AAAA", "$7$x$!$!"],
)
def test_a_malformed_hash_lets_nobody_in(tmp_path: Path, hashed: str) -> None:
    with pytest.raises(InvalidConfiguration):
        verify_password("", hashed)
    path = tmp_path / "accounts"
    path.write_text(f"cam-1:{hashed}\n")
    assert not AccountsFile(path).accepts("cam-1", "")


def test_what_is_written_is_read_and_only_the_owner_can(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    accounts = {"cam-2": hash_password("b"), "cam-1": hash_password("a"), "_probe": hash_password("c")}
    write_accounts(path, accounts)
    assert read_accounts(path) == accounts
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("username", ["", "a:b", "a\nb", "#", "+", "../x", "A", "a" * 65, "-x"])
def test_an_unusable_name_is_refused_before_anything_is_written(tmp_path: Path, username: str) -> None:
    path = tmp_path / "accounts"
    write_accounts(path, {"cam-1": hash_password("a")})
    before = path.read_bytes()
    with pytest.raises(InvalidName):
        write_accounts(path, {"cam-1": hash_password("a"), username: hash_password("b")})
    with pytest.raises(InvalidConfiguration):
        write_accounts(path, {"cam-1": "plain\nroot:" + hash_password("b")})
    assert path.read_bytes() == before


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    write_accounts(path, {"cam-1": hash_password("old")})
    accounts = AccountsFile(path)
    assert accounts.accepts("cam-1", "old")
    write_accounts(path, {"cam-1": hash_password("new")})
    assert accounts.accepts("cam-1", "new")
    assert not accounts.accepts("cam-1", "old")
    assert not accounts.accepts(None, "new")
    assert not accounts.accepts("cam-1", None)


def test_without_a_file_nobody_is_let_in(tmp_path: Path) -> None:
    accounts = AccountsFile(tmp_path / "none")
    assert not accounts.accepts("cam-1", "")
    with pytest.raises(StorageError):
        accounts.current()
    (tmp_path / "none").write_bytes(os.urandom(64))
    assert not accounts.accepts("cam-1", "")
