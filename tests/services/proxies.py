"""nginx and HAProxy from the files in conf/, which are the files an operator would use.

Only what names this machine is replaced: addresses, the user to run as, and where the pid file, logs and
temporary files lie. Each replacement must be found in the file (`_replace`), so a renamed directive fails
here and is not silently left at its production value. Everything else, time limits among it, is tested as
it stands.
"""

from __future__ import annotations

import getpass
import grp
import os
import re
import socket
from pathlib import Path

from tests.services.ports import free_port
from tests.services.processes import Server
from tests.services.requirements import program

CONF = Path(__file__).resolve().parents[2] / "conf"


class Proxy:
    """A running balancer; its address is `127.0.0.1:port`."""

    def __init__(self, server: Server, port: int, error_log: Path) -> None:
        self._server = server
        self._error_log = error_log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.pid = server.pid
        server.wait_until(self._listens, "listening", 10.0)

    def log(self) -> str:
        """Its output and its error log."""
        written = self._error_log.read_text(errors="replace") if self._error_log.exists() else ""
        return self._server.log() + written

    def stop(self) -> int:
        """End it in order and return its exit status; nothing if it has ended."""
        if self._server.returncode is not None:
            return self._server.returncode
        return self._server.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def start_nginx(directory: Path, *upstream_ports: int) -> Proxy:
    """nginx in front of `upstream_ports` on 127.0.0.1."""
    binary = program("nginx")
    port = free_port()
    text = (CONF / "nginx.conf").read_text()
    servers = "".join(f"        server 127.0.0.1:{p} max_fails=3 fail_timeout=2s;\n" for p in upstream_ports)
    text = _replace(r"(?m)(^ +server 10\..*\n)+", servers, text)
    text = _replace(r"listen 80 ", f"listen 127.0.0.1:{port} ", text)
    text = _replace(r"(?m)^user .*;$", f"user {getpass.getuser()};" if os.geteuid() == 0 else "", text)
    text = _replace(r"/run/nginx\.pid", str(directory / "nginx.pid"), text)
    text = _replace(r"/var/log/nginx/error\.log", str(directory / "error.log"), text)
    text = _replace(r"/var/log/nginx/access\.log", str(directory / "access.log"), text)
    # The compiled-in folders for temporary files belong to the system's nginx.
    temp = "".join(
        f"    {kind}_temp_path {directory / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = _replace(r"(?m)^http \{\n", "http {\n" + temp, text)
    (directory / "nginx.conf").write_text(text)
    argv = [
        binary,
        "-p",
        str(directory),
        "-e",
        str(directory / "error.log"),
        "-c",
        str(directory / "nginx.conf"),
    ]
    return Proxy(
        Server([*argv, "-g", "daemon off;"], directory / "nginx.out"),
        port,
        directory / "error.log",
    )


def start_haproxy(directory: Path, *upstream_ports: int) -> Proxy:
    """HAProxy in front of `upstream_ports` on 127.0.0.1; its log goes to its output."""
    binary = program("haproxy")
    port = free_port()
    text = (CONF / "haproxy.cfg").read_text()
    servers = "".join(f"    server tafe{i} 127.0.0.1:{p}\n" for i, p in enumerate(upstream_ports, 1))
    text = _replace(r"(?m)(^    server tafe\d .*\n)+", servers, text)
    text = _replace(r"bind :80 ", f"bind 127.0.0.1:{port} ", text)
    text = _replace(r"(?m)^    user .*$", f"    user {getpass.getuser()}", text)
    text = _replace(r"(?m)^    group .*$", f"    group {grp.getgrgid(os.getgid()).gr_name}", text)
    text = _replace(r"log 127\.0\.0\.1:514 local0 notice", "log stdout format raw local0 notice", text)
    (directory / "haproxy.cfg").write_text(text)
    server = Server([binary, "-W", "-db", "-f", str(directory / "haproxy.cfg")], directory / "haproxy.out")
    return Proxy(server, port, directory / "error.log")


def _replace(pattern: str, replacement: str, text: str) -> str:
    """Replace the one match of `pattern`; it is an error if there is none or more."""
    changed, count = re.subn(pattern, lambda _: replacement, text)
    if count != 1:
        raise ValueError(f"{count} matches of {pattern!r} in a file of conf/, expected 1")
    return changed
