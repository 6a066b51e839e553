"""The servers of threads.py: those of contestants.py with the mix application and 64 threads, and Apache with mod_wsgi.

Apache is Debian's, so it embeds Debian's Python. The packages that the application imports are installed for that
Python, in the versions of peers.txt, into a folder of their own (`.run/bench-mod-wsgi`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import contestants, environment, open_loop
from benchmarks.contestants import Contestant, Launch
from benchmarks.peers import mix

THREADS = mix.POOL_SIZE
OURS, OURS_FAST = "tafe", "tafe, fast connection"
MOD_WSGI, GTHREAD, GEVENT, GRANIAN = "Apache mod_wsgi", "gunicorn -k gthread", "gunicorn -k gevent", "granian"
NAMES = (OURS, OURS_FAST, MOD_WSGI, GTHREAD, GEVENT, GRANIAN)

_THEIRS, _APPLICATION = "benchmarks.peers.plain_wsgi:app", "benchmarks.peers.mix_wsgi:app"
_PEERS = Path(__file__).parent / "peers"
_MODULES = Path("/usr/lib/apache2/modules")  # Debian's
MODULE = _MODULES / "mod_wsgi.so"  # of libapache2-mod-wsgi-py3
_PACKAGES = ("PyMySQL", "ujson")
_DEBIAN_PYTHON = "/usr/bin/python3"
_PACKAGES_FOLDER = environment.ROOT / ".run" / "bench-mod-wsgi"
# Only a master that is root may be told whom its workers run as; Apache and mod_wsgi refuse to serve as root.
_NOT_ROOT = "www-data"


def all_of(loops: int) -> Iterator[Contestant]:
    """Every server, in the order of `NAMES`; `loops`: how much Python the mix has."""
    told = ((mix.LOOPS_VARIABLE, str(loops)),)
    fast = (mix.CONNECTION_VARIABLE, "tafe.db.fast:Connection")
    threads = ("--threads", str(THREADS))
    yield _with_mix("tafe", told, name=OURS, note="greenlets, profiler on, the application as it is for all")
    yield dataclasses.replace(
        _with_mix("tafe", (*told, fast), name=OURS_FAST),
        note="the same application, its connections made by `tafe.db.fast.Connection` instead of PyMySQL's class",
    )
    yield Contestant(
        MOD_WSGI,
        (),
        f"Debian's, daemon mode, one process of {THREADS} threads, MPM event; Debian's Python",
        _apache,
        environment=told,
        program="apache2",
    )
    gthread = _with_mix("gunicorn -k gevent", told, "-k", "gthread", *threads, name=GTHREAD)
    yield dataclasses.replace(gthread, packages=("gunicorn", "pymysql"), note=f"{THREADS} threads")
    yield _with_mix("gunicorn -k gevent", told, name=GEVENT, note="greenlets")
    blocking = ("--blocking-threads", str(THREADS))
    yield _with_mix("granian", told, *blocking, name=GRANIAN, note=f"WSGI, {THREADS} blocking threads")


def _with_mix(like: str, told: tuple[tuple[str, str], ...], *options: str, name: str, note: str = "") -> Contestant:
    """A contestant that serves the mix application, with further options: of one given twice, the last counts."""
    known = next(each for each in contestants.CONTESTANTS if each.name == like)

    def argv(launch: Launch) -> list[str]:
        return [*(_APPLICATION if word == _THEIRS else word for word in known.argv(launch)), *options]

    return dataclasses.replace(known, name=name, note=note, argv=argv, environment=told)


def _apache(launch: Launch) -> list[str]:
    conf = launch.directory / "apache.conf"
    user = f"User {_NOT_ROOT}\nGroup {_NOT_ROOT}" if os.geteuid() == 0 else ""
    conf.write_text(
        string.Template((_PEERS / "apache.conf").read_text()).substitute(
            user=user,
            port=launch.port,
            directory=launch.directory,
            modules=_MODULES,
            front_threads=open_loop.CONNECTIONS + THREADS,
            threads=THREADS,
            packages=_debian_packages(),
            root=environment.ROOT,
            folder=_PEERS,
            application=_PEERS / "mix_wsgi.py",
        )
    )
    return [environment.found("apache2") or "apache2", "-f", str(conf), "-DFOREGROUND"]


@functools.cache
def debian_python() -> str:
    """The version of the Python that mod_wsgi embeds."""
    done = subprocess.run([_DEBIAN_PYTHON, "-V"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def work_us_in_debian(loops: int) -> float | None:
    """What the mix's Python takes in the Python that mod_wsgi embeds; None where that is not here."""
    if not os.path.exists(_DEBIAN_PYTHON):
        return None
    program = f"from benchmarks.peers import mix; print(mix.work_us({loops}))"
    env = environment.clean_environment() | {"PYTHONPATH": str(environment.ROOT)}
    done = subprocess.run([_DEBIAN_PYTHON, "-c", program], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def _debian_packages() -> Path:
    """A folder with the packages for Debian's Python, made once and remade when the list or that Python changes."""
    wanted = [line.strip() for line in (_PEERS.parent / "peers.txt").read_text().splitlines()]
    wanted = [line for line in wanted if line.partition("==")[0] in _PACKAGES]
    stamp = _PACKAGES_FOLDER / "made-from"
    made_from = hashlib.sha256("\n".join([*wanted, debian_python()]).encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == made_from):
        shutil.rmtree(_PACKAGES_FOLDER, ignore_errors=True)
        version = ".".join(debian_python().split(".")[:2])
        for_python = ["--python-version", version, "--only-binary", ":all:", "--target", str(_PACKAGES_FOLDER)]
        subprocess.run([*environment.pip(), "install", "--quiet", *for_python, *wanted], check=True)
        stamp.write_text(made_from)
    return _PACKAGES_FOLDER


def versions(contestant: Contestant, programs: Path) -> dict[str, str]:
    """What a server's figures belong to."""
    if contestant.program:
        said = subprocess.run(
            [environment.found("apache2") or "apache2", "-v"], capture_output=True, text=True, check=True
        )
        apache = re.search(r"Apache/([\d.]+)", said.stdout)
        query = ["dpkg-query", "--show", "--showformat", "${Version}", "libapache2-mod-wsgi-py3"]
        mod_wsgi = subprocess.run(query, capture_output=True, text=True, check=False).stdout
        return {"apache": apache[1] if apache else "", "mod_wsgi": mod_wsgi, "python": debian_python()}
    installed = environment.versions(Path(sys.executable) if contestant.ours else programs / "python")
    return {package: installed[package] for package in contestant.packages if package in installed}
