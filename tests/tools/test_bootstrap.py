"""tools/bootstrap.py with a made-up index on this machine: no test here asks another host."""

import ast
import base64
import functools
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tools import bootstrap

ROOT = Path(bootstrap.__file__).resolve().parents[1]
FILE = "uv-9.9.9-py3-none-any.whl"
# Stands in for uv: writes down how it was called, and makes an environment that is just good enough.
PROGRAM = """#!/bin/sh
echo "$@ | $UV_PYTHON_DOWNLOADS | $UV_PROJECT_ENVIRONMENT | $UV_PYTHON | $VIRTUAL_ENV$UV_DEFAULT_INDEX" >> calls
mkdir -p .venv/bin && ln -sf "$UV_PYTHON" .venv/bin/python
exit ${FAKE_UV_STATUS:-0}
"""


def wheel(program=PROGRAM):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as files:
        files.writestr("uv/__init__.py", "")
        files.writestr("uv-9.9.9.data/scripts/uv", program)
    return data.getvalue()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the files that bootstrap reads, for this machine's kind and a uv of our own."""
    root = tmp_path / "clone"
    (root / "tools").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "uv.lock").write_text("version = 1\n")
    entry = {"file": FILE, "sha256": hashlib.sha256(wheel()).hexdigest()}
    wheels = {"version": "9.9.9", "wheels": {bootstrap.platform_key(): entry}}
    (root / "tools" / "uv_wheels.json").write_text(json.dumps(wheels))
    monkeypatch.setattr(bootstrap, "PYPI", "http://127.0.0.1:9/simple")  # nothing may reach the real one
    return root


class Index(http.server.SimpleHTTPRequestHandler):
    asked: list = []  # noqa: RUF012

    def log_message(self, *args):
        self.asked.append((self.path, self.headers.get("Authorization")))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that offers the made-up uv; `index.environ` leads to it."""
    page = tmp_path / "www" / "simple" / "uv"
    page.mkdir(parents=True)
    (page / "index.html").write_text(
        f'<a href="other.whl">x</a><a href="../../files/{FILE}#sha256=0">{FILE}</a>', encoding="utf-8"
    )
    files = tmp_path / "www" / "files"
    files.mkdir()
    (files / FILE).write_bytes(wheel())
    monkeypatch.setattr(Index, "asked", [])
    handler = functools.partial(Index, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.environ = {"PATH": os.environ["PATH"], "no_proxy": "127.0.0.1", "VIRTUAL_ENV": "/elsewhere"}
    server.host, server.wheel = f"127.0.0.1:{server.server_port}", files / FILE
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(bootstrap, "PYPI", f"http://{server.host}/simple")
    yield server
    server.shutdown()
    server.server_close()


def test_environment_is_made_and_the_second_call_does_nothing(project, index, capfd):
    assert bootstrap.main(project, index.environ) == 0
    said = capfd.readouterr().out
    assert "Fetching uv 9.9.9" in said
    assert "5 of them for torch" in said
    assert "minutes" in said
    python = bootstrap.interpreter()
    line = f"sync --locked | never | {project / '.venv'} | {python} | \n"
    assert (project / "calls").read_text() == line
    asked = len(Index.asked)
    assert bootstrap.main(project, index.environ) == 0
    assert capfd.readouterr().out == "The environment .venv is up to date\n"
    assert (project / "calls").read_text() == line
    assert len(Index.asked) == asked
    assert [path.name for path in (project / ".tools" / "uv-9.9.9").iterdir()] == ["uv"]


def test_changed_lock_runs_uv_again_but_fetches_nothing(project, index):
    bootstrap.main(project, index.environ)
    asked = len(Index.asked)
    (project / "uv.lock").write_text("version = 2\n")
    assert bootstrap.main(project, index.environ) == 0
    assert (project / "calls").read_text().count("sync --locked") == 2
    assert len(Index.asked) == asked


def test_environment_whose_python_is_gone_is_made_again(project, index):
    bootstrap.main(project, index.environ)
    (project / ".venv" / "bin" / "python").unlink()
    (project / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    assert bootstrap.main(project, index.environ) == 0
    assert (project / "calls").read_text().count("sync --locked") == 2


def test_wrong_checksum_is_refused(project, index, capfd):
    changed = wheel("#!/bin/sh\necho evil\n")
    index.wheel.write_bytes(changed)
    assert bootstrap.main(project, index.environ) == 1
    said = capfd.readouterr().err
    assert f"expected SHA-256 {hashlib.sha256(wheel()).hexdigest()}" in said
    assert f"but found {hashlib.sha256(changed).hexdigest()}" in said
    assert "do not use it" in said
    assert not (project / ".tools").exists()
    assert not (project / ".venv").exists()


def test_an_interrupted_unpacking_leaves_nothing(project, index, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.main(project, index.environ)
    assert list((project / ".tools" / "uv-9.9.9").iterdir()) == []


def test_no_network(project, capfd):
    assert bootstrap.main(project, {"UV_INDEX_URL": "http://127.0.0.1:9/simple"}) == 1
    said = capfd.readouterr().err
    assert "Expected to read http://127.0.0.1:9/simple/uv/, but: [Errno" in said
    assert "HTTPS_PROXY" in said


def test_a_connection_that_breaks_off(project, index, capfd, monkeypatch):
    monkeypatch.setattr(Index, "copyfile", lambda *args: None)
    assert bootstrap.main(project, index.environ) == 1
    assert f"Expected to read http://{index.host}/simple/uv/, but: IncompleteRead" in capfd.readouterr().err


def test_an_index_without_the_file(project, index, capfd):
    (index.wheel.parents[1] / "simple" / "uv" / "index.html").write_text("<a href='x.whl'>x</a>")
    assert bootstrap.main(project, index.environ) == 1
    assert f"Expected {FILE} on http://{index.host}/simple/uv/, but its 1 links do not" in capfd.readouterr().err


def test_unknown_platform(project, index, capfd, monkeypatch):
    monkeypatch.setattr(bootstrap, "platform_key", lambda: "plan9-mips")
    assert bootstrap.main(project, index.environ) == 1
    said = capfd.readouterr().err
    assert "No set-up is prepared for this machine (plan9-mips); prepared are " in said
    assert "uv sync --locked" in said


def test_uv_that_fails(project, index, capfd):
    assert bootstrap.main(project, {**index.environ, "FAKE_UV_STATUS": "2"}) == 1
    assert "Expected uv to end with 0, it ended with 2" in capfd.readouterr().err
    assert not (project / ".venv" / ".resalign-stamp").exists()


def test_another_index_serves_the_locked_versions(project, index, monkeypatch):
    monkeypatch.setattr(bootstrap, "PYPI", "https://pypi.invalid/simple")
    address = f"http://me:secret@{index.host}/simple"
    assert bootstrap.main(project, {**index.environ, "PIP_INDEX_URL": address}) == 0
    calls = (project / "calls").read_text().splitlines()
    assert [call.split(" --")[0] for call in calls] == ["export", "venv", "pip sync", "pip install"]
    assert "--require-hashes" in calls[2]
    assert all(call.endswith(f" | {address}") for call in calls)
    secret = base64.b64encode(b"me:secret").decode()
    assert {header for _, header in Index.asked} == {f"Basic {secret}"}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "https://pypi.org/simple"),
        ({"PIP_INDEX_URL": "https://a/simple"}, "https://a/simple"),
        ({"PIP_INDEX_URL": "https://a/simple", "UV_INDEX_URL": "https://b/simple"}, "https://b/simple"),
        ({"UV_DEFAULT_INDEX": "mine=https://c/simple", "UV_INDEX_URL": "https://b/simple"}, "https://c/simple"),
        ({"UV_DEFAULT_INDEX": ""}, "https://pypi.org/simple"),
    ],
)
def test_index_url(environ, url):
    assert bootstrap.index_url(environ) == url


def test_password_is_not_shown():
    assert bootstrap.public("https://me:secret@host:8/simple/uv/") == "https://host:8/simple/uv/"


@pytest.mark.parametrize(
    ("system", "machine", "libc", "key"),
    [
        ("Linux", "x86_64", "glibc", "linux-x86_64-glibc"),
        ("Linux", "x86_64", "", "linux-x86_64-musl"),
        ("Linux", "aarch64", "glibc", "linux-aarch64-glibc"),
        ("Linux", "arm64", "", "linux-aarch64-musl"),
        ("Darwin", "arm64", "", "macos-arm64"),
        ("Darwin", "x86_64", "", "macos-x86_64"),
    ],
)
def test_every_promised_platform_has_a_wheel(system, machine, libc, key):
    assert bootstrap.platform_key(system, machine, libc) == key
    wheels = json.loads((ROOT / "tools" / "uv_wheels.json").read_text())
    file, sha256 = bootstrap.wanted_wheel(wheels, key)
    assert file.startswith(f"uv-{wheels['version']}-")
    assert len(bytes.fromhex(sha256)) == 32


def test_windows_has_none():
    assert bootstrap.platform_key("Windows", "AMD64") == "windows-x86_64"


def test_an_older_python_is_told_so_in_words():
    """The file is readable for Python 3.6, and the check comes before all that 3.6 does not have."""
    source = Path(bootstrap.__file__).read_text(encoding="utf-8")
    body = ast.parse(source, feature_version=(3, 6)).body
    assert [ast.unparse(node).split()[0] for node in body[1:4]] == ["import", "OLDEST", "if"]
    old = source.replace("import sys\n", "import sys\nsys.version_info = (3, 9, 2)\n", 1)
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is Python 3.9" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bare_python_is_enough():
    """Without site-packages, pip, ensurepip and venv, as Debian's python3 comes."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['pip', 'ensurepip', 'venv', 'setuptools']));"
        f"sys.path.insert(0, {str(ROOT / 'tools')!r}); import bootstrap; print(bootstrap.platform_key())"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == bootstrap.platform_key(), done.stderr
