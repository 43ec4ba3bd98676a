"""Which clone URLs and refs are taken; no name is looked up and nothing is fetched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cd.errors import ServiceError, UserError
from cd.pipeline.git import Git, Place, Remote, check_ref, check_url, locate, redact


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("https://forge.example/team/shop.git", "https", "forge.example", 443),
        ("https://user:token@forge.example:8443/shop", "https", "forge.example", 8443),
        ("ssh://git@forge.example:2222/team/shop.git", "ssh", "forge.example", 2222),
        ("git@forge.example:team/shop.git", "ssh", "forge.example", 22),
        ("https://8.8.8.8/shop.git", "https", "8.8.8.8", 443),
    ],
)
def test_urls_that_are_taken(url: str, scheme: str, host: str, port: int) -> None:
    assert check_url(url) == Remote(url, scheme, host, port, internal=False)


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/pwned",
        "fd::17/foo",
        "file:///etc",
        "/srv/git/shop.git",
        "http://forge.example/shop.git",
        "git://forge.example/shop.git",
        "--upload-pack=touch /tmp/pwned",
        "-oProxyCommand=id:shop.git",
        "ssh://-oProxyCommand=id/shop.git",
        "ssh://-x@forge.example/shop.git",
        "https://forge.example/$HOME/shop.git",
        "https://forge.example/shop.git?x=1",
        "https://forge.example/a/../../etc",
        "https://forge.example/a b",
        "https://forge.example/a\nb",
        "https://forge.example:port/a",
        "https:///shop.git",
        "https://127.0.0.1/shop.git",
        "https://10.1.2.3/shop.git",
        "https://169.254.169.254/latest",
        "https://[::1]/shop.git",
        "https://[::ffff:127.0.0.1]/shop.git",
        "https://[64:ff9b::a00:1]/shop.git",
        "https://[fe80::1]/shop.git",
        "ssh://git@192.168.0.1/shop.git",
        "",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UserError):
        check_url(url)


def test_a_listed_host_may_be_inside_and_without_tls() -> None:
    assert check_url("http://Forge.lan:3000/shop.git", {"forge.lan"}).internal


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["fd00::1"], ["0.0.0.0"]])
def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    answers = [(0, 0, 0, "", (one, 443)) for one in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(UserError, match="TOWPATH_GIT_INTERNAL_HOSTS"):
        locate(check_url("https://rebind.example/shop.git"))
    assert locate(check_url("https://rebind.example/shop.git", {"rebind.example"})).addresses == tuple(addresses)


def test_a_name_that_is_not_found_may_be_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(-3, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(ServiceError, match=r"forge\.example can't be found"):
        locate(check_url("https://forge.example/shop.git"))


def test_git_is_held_to_the_address_that_was_looked_at() -> None:
    https = Place(check_url("https://forge.example/shop.git"), ("93.184.216.34", "2606:2800::1"))
    command = Git(Path("/m"), Path("/h"), https, "/ca.pem").command("fetch", "--", https.remote.url)
    assert "http.curloptResolve=forge.example:443:93.184.216.34,[2606:2800::1]" in command
    assert "http.sslCAInfo=/ca.pem" in command
    assert "GIT_ALLOW_PROTOCOL=https:ssh" in command
    assert command[:2] == ["/usr/bin/env", "-i"]
    ssh = Place(check_url("git@forge.example:shop.git"), ("93.184.216.34",))
    command = Git(Path("/m"), Path("/h h"), ssh).command("fetch", "--", ssh.remote.url)
    told = next(part for part in command if part.startswith("GIT_SSH_COMMAND="))
    assert "-o HostName=93.184.216.34 -o HostKeyAlias=forge.example" in told
    assert "-o 'UserKnownHostsFile=/h h/known_hosts'" in told
    assert "GIT_ALLOW_PROTOCOL=file" in Git(Path("/m"), Path("/h")).command("init")


@pytest.mark.parametrize(
    "ref",
    ["refs/heads/main", "refs/heads/feature/über-#1_2+x,y", "refs/tags/v1.0", "refs/pull/1/head", "refs/heads/a;$(id)"],
)
def test_refs_that_are_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    ["main", "refs/heads", "refs/heads/", "refs/heads/a b", "refs/heads/a.lock", "refs/heads/.a",
     "refs/heads/-a", "refs/heads/a..b", "refs/heads/a@{1}", "refs/heads/a\n", "refs/heads/a\\b"],
)  # fmt: skip
def test_refs_that_are_refused(ref: str) -> None:
    with pytest.raises(UserError):
        check_ref(ref)


def test_credentials_are_not_shown() -> None:
    assert redact("fatal: 'https://user:token@forge.example/x' and https://t@h/") == (
        "fatal: 'https://***@forge.example/x' and https://***@h/"
    )
