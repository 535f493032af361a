"""Make the environment .venv with the locked packages. Needs Python 3.11 or newer and nothing else.

    python3 tools/bootstrap.py        (`make` calls it when it is needed)

One way for every machine: uv, a single program, is fetched as a wheel from the package index, checked
against the SHA-256 in uv_wheels.json and unpacked to .tools/. It needs no pip, no venv module and no
administrator, and changes nothing outside this folder but its own cache. It then installs exactly what
uv.lock names.
"""

# ruff: noqa: E402 - the check of the version comes before all that an older Python may not have
import sys

# This file must stay readable for an older Python, so that it says this and not SyntaxError.
OLDEST = (3, 11)
if sys.version_info < OLDEST:
    sys.exit(
        "This project needs Python 3.11 or newer; {} is Python {}.{}.\n"
        "If a newer one is installed, name it: make PYTHON=python3.12 book".format(
            sys.executable, *sys.version_info[:2]
        )
    )

import hashlib
import http.client
import json
import os
import platform
import shutil
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parents[1]
PYPI = "https://pypi.org/simple"
NEEDED_BYTES = 6.5e9  # torch and its libraries take 5 of it
Environ = Mapping[str, str]


class SetupError(Exception):
    """Something a reader can mend: the text says what was expected, what was found, and what to do."""


class _Links(HTMLParser):
    """The addresses on an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def platform_key(system: str | None = None, machine: str | None = None, libc: str | None = None) -> str:
    """This machine's name in uv_wheels.json."""
    system = system or platform.system()
    machine = (machine or platform.machine()).lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if system == "Darwin":
        return "macos-" + {"aarch64": "arm64"}.get(machine, machine)
    if system == "Linux":
        libc = platform.libc_ver()[0] if libc is None else libc
        return f"linux-{machine}-{'glibc' if libc == 'glibc' else 'musl'}"
    return f"{system.lower()}-{machine}"


def wanted_wheel(wheels: dict[str, Any], key: str) -> tuple[str, str]:
    """File name and checksum for this machine."""
    if key in wheels["wheels"]:
        entry = wheels["wheels"][key]
        return entry["file"], entry["sha256"]
    known = ", ".join(sorted(wheels["wheels"]))
    raise SetupError(
        f"No set-up is prepared for this machine ({key}); prepared are {known}.\n"
        f"On Windows use WSL. Elsewhere install uv {wheels['version']} yourself and run: uv sync --locked"
    )


def index_url(environ: Environ) -> str:
    """The package index: the one that uv or pip is told to use here, else PyPI."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if environ.get(name):
            return environ[name].split("=", 1)[-1] if name == "UV_DEFAULT_INDEX" else environ[name]
    return PYPI


def on_pypi(environ: Environ) -> bool:
    """Whether packages come from PyPI itself, whose files uv.lock names."""
    return index_url(environ).rstrip("/") == PYPI


def public(url: str) -> str:
    """The address without the user name and password that a private index may have in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def opened(url: str) -> http.client.HTTPResponse:
    """Open an address; a user name and password in it are sent as such."""
    parts = urlsplit(url)
    request = urllib.request.Request(public(url), headers={"User-Agent": "resalign-bootstrap"})
    if parts.username:
        import base64

        secret = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return answer


def download(url: str) -> bytes:
    """The bytes at an address."""
    try:
        with opened(url) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise SetupError(
            f"Expected to read {public(url)}, but: {reason}.\n"
            "Is this machine online? Behind a proxy set HTTPS_PROXY; with a package index of your own set\n"
            "UV_DEFAULT_INDEX=https://…/simple; if a certificate was refused, point SSL_CERT_FILE to yours."
        ) from error


def wheel_url(page: str, page_url: str, file: str) -> str:
    """The address of one file, from the index's page on uv."""
    links = _Links()
    links.feed(page)
    for href in links.found:
        url = urljoin(page_url, href).split("#")[0]
        if url.rsplit("/", 1)[-1] == file:
            return url
    raise SetupError(
        f"Expected {file} on {public(page_url)}, but its {len(links.found)} links do not name it.\n"
        "Is this a package index (…/simple)? Check UV_DEFAULT_INDEX, UV_INDEX_URL and PIP_INDEX_URL."
    )


def checked(data: bytes, sha256: str, file: str) -> bytes:
    """The bytes themselves, if they are what they should be."""
    found = hashlib.sha256(data).hexdigest()
    if found == sha256:
        return data
    raise SetupError(
        f"{file} is not the file it should be and was not used.\n"
        f"expected SHA-256 {sha256}\n       but found {found} ({len(data)} bytes)\n"
        "Try again; if it comes again, the index or a proxy between changes files: do not use it."
    )


def unpack_uv(wheel: bytes, target: Path) -> None:
    """Write the wheel's one program to `target` in one step: an interruption leaves nothing half-made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"uv.{os.getpid()}.part")
    archive = target.with_name(f"wheel.{os.getpid()}.part")
    try:
        archive.write_bytes(wheel)
        with zipfile.ZipFile(archive) as files:
            name = next(n for n in files.namelist() if n.endswith(".data/scripts/uv"))
            with files.open(name) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out)
        part.chmod(0o755)
        part.replace(target)
    finally:
        archive.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def get_uv(root: Path, environ: Environ) -> Path:
    """The pinned uv, fetched unless it is there."""
    wheels = json.loads((root / "tools" / "uv_wheels.json").read_text(encoding="utf-8"))
    uv = root / ".tools" / f"uv-{wheels['version']}" / "uv"
    if uv.is_file():
        return uv
    file, sha256 = wanted_wheel(wheels, platform_key())
    page_url = index_url(environ).rstrip("/") + "/uv/"
    print(f"Fetching uv {wheels['version']} (18 MB) from {public(page_url)}", flush=True)
    page = download(page_url).decode("utf-8", "replace")
    unpack_uv(checked(download(wheel_url(page, page_url, file)), sha256, file), uv)
    return uv


def interpreter() -> str:
    """The Python that runs this; in a virtual environment the one behind it, which stays when that goes."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def uv_environment(root: Path, environ: Environ) -> dict[str, str]:
    """uv's settings: this Python, this folder, and none that another project's shell left behind."""
    foreign = ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")
    kept = {name: value for name, value in environ.items() if name not in foreign}
    if not on_pypi(environ):
        kept["UV_DEFAULT_INDEX"] = index_url(environ)  # not on the command line, which others can see
    kept.update(
        UV_PYTHON=interpreter(),
        UV_PYTHON_DOWNLOADS="never",
        UV_PROJECT_ENVIRONMENT=str(root / ".venv"),
    )
    return kept


def sync_commands(uv: Path, root: Path, environ: Environ) -> list[list[str | Path]]:
    """What installs the locked packages.

    uv.lock names files on PyPI; with another index the same versions are taken from there by name and checked
    against the lock's checksums.
    """
    if on_pypi(environ):
        return [[uv, "sync", "--locked"]]
    names, python = root / ".tools" / "locked.txt", root / ".venv"
    return [
        [uv, "export", "--frozen", "--no-emit-project", "--quiet", "--output-file", names],
        [uv, "venv", "--clear", "--no-project", root / ".venv"],
        [uv, "pip", "sync", "--python", python, "--require-hashes", names],
        [uv, "pip", "install", "--python", python, "--no-deps", "--editable", root],
    ]


def fingerprint(root: Path) -> str:
    """What the environment depends on; equal means nothing to do."""
    parts = [sys.version, interpreter()]
    files = ("pyproject.toml", "uv.lock", "tools/uv_wheels.json")
    parts += [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files]
    return "\n".join(parts) + "\n"


def up_to_date(root: Path) -> bool:
    """Whether .venv is what the lock file says, and its Python still starts."""
    stamp, python = root / ".venv" / ".resalign-stamp", root / ".venv" / "bin" / "python"
    return python.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint(root)


def announce(root: Path) -> None:
    """Say what comes and what it costs, before it costs it."""
    free = shutil.disk_usage(root).free
    first = not (root / ".venv").exists()
    cost = " The first time: 1 to 10 minutes, and 6 GB of disk, 5 of them for torch." if first else ""
    version = platform.python_version()
    print(f"Installing the locked packages into .venv with Python {version}.{cost}", flush=True)
    if first and free < NEEDED_BYTES:
        print(f"Only {free / 1e9:.1f} GB are free in {root}: this may not be enough.", flush=True)


def install(uv: Path, root: Path, environ: Environ) -> None:
    """Run uv; its own output is shown as it comes."""
    settings = uv_environment(root, environ)
    for command in sync_commands(uv, root, environ):
        done = subprocess.run([str(part) for part in command], cwd=root, env=settings, check=False)
        if done.returncode:
            raise SetupError(
                f"Expected uv to end with 0, it ended with {done.returncode}; its reason is above.\n"
                "Most often: no network, a full disk (torch takes 5 of 6 GB), or no torch for this system."
            )


def main(root: Path = ROOT, environ: Environ | None = None) -> int:
    """Make the environment, or see that it is there. 0, or 1 with the reason on stderr."""
    environ = os.environ if environ is None else environ
    stamp, start = root / ".venv" / ".resalign-stamp", time.monotonic()
    try:
        if up_to_date(root):
            os.utime(stamp)  # make compares times
            print("The environment .venv is up to date")
            return 0
        uv = get_uv(root, environ)
        announce(root)
        install(uv, root, environ)
    except SetupError as error:
        print(f"The environment could not be made.\n{error}", file=sys.stderr)
        return 1
    stamp.write_text(fingerprint(root), encoding="utf-8")
    print(f"The environment .venv is ready after {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
