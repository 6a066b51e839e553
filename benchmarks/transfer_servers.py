"""The servers of transfer.py: nginx from a configuration of its own, us, and the peers that have a WSGI worker."""

from __future__ import annotations

import getpass
import os
import string
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from benchmarks import environment
from benchmarks.contestants import Contestant, Launch
from benchmarks.peers import contract
from benchmarks.peers.transfers import FILE_VARIABLE

OURS, NGINX = "tafe", "nginx"
_NGINX_CONF = Path(__file__).parent / "peers" / "nginx-transfer.conf"


def contestants(file: Path, *, peers: bool) -> Iterator[Contestant]:
    """All servers of `file`; nginx and we are neighbours in each round."""
    app = "benchmarks.peers.transfers:app"
    told = ((FILE_VARIABLE, str(file)),)

    def ours(launch: Launch) -> list[str]:
        serve = [sys.executable, "-m", "tafe", "serve", app, "--workers", "1", "--bind", f"127.0.0.1:{launch.port}"]
        return [*serve, "--run-dir", str(launch.directory)]

    def gunicorn(launch: Launch) -> list[str]:
        options = ["-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{launch.port}", "--log-level", "error"]
        return [str(launch.programs / "gunicorn"), *options, app]

    def granian(launch: Launch) -> list[str]:
        options = ["--interface", "wsgi", "--http", "1", "--no-ws", "--log-level", "warning", "--workers", "1"]
        return [str(launch.programs / "granian"), *options, "--port", str(launch.port), app]

    yield Contestant(NGINX, (), "one worker, sendfile", lambda launch: _nginx(launch, file))
    yield Contestant(OURS, (), "profiler on", ours, ours=True, environment=told)
    if peers:
        yield Contestant("gunicorn -k gevent", ("gunicorn", "gevent"), "", gunicorn, environment=told)
        yield Contestant("granian", ("granian",), "WSGI", granian, environment=told)


def _nginx(launch: Launch, file: Path) -> list[str]:
    template = string.Template(_NGINX_CONF.read_text())
    conf = launch.directory / "nginx.conf"
    # Only a master that is root may, and must, be told whom its worker is to run as.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    hello = contract.HELLO_BYTES.decode()
    conf.write_text(
        template.substitute(user=user, port=launch.port, directory=launch.directory, hello=hello, file=file)
    )
    program = environment.found(NGINX)
    if program is None:
        raise click.UsageError("nginx is missing; try: apt-get install nginx-light")
    return [program, "-p", str(launch.directory), "-e", "stderr", "-c", str(conf)]


def versions(programs: Path, names: Collection[str]) -> dict[str, str]:
    """Of the servers of these names but ours."""
    found = environment.versions(programs / "python") if len(names) > 2 else {}
    return {
        name: environment.program_version(NGINX) if name == NGINX else found[name.split()[0]]
        for name in names
        if name != OURS
    }
