"""A browser with no network on this machine's built book (first `make html` or `make book`)."""

import functools
import http.server
import threading

import pytest
from browsers import lacking

from tools.shots import HTML, draw_all


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def end_headers(self):
        self.send_header("LinkChecker", "allowed")  # without it linkchecker asks for ten files a second at most
        super().end_headers()


@pytest.fixture(scope="module")
def base():
    """The address under which the built book is served on this machine."""
    if not HTML.is_dir():
        lacking(f"there is no built book in {HTML}: run `make html`")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, base):
    """`visit(name, width)` opens a page; at the end of the test nothing may have gone wrong in it."""
    pages, wrong = [], []

    def look(request):
        if request.url.startswith(("http", "ws")) and not request.url.startswith(base):
            wrong.append(f"asked another host: {request.url}")

    def visit(name, width=1280, body=None, scheme="light"):
        """With a `body`, a page of its own instead of a file of the book."""
        page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        if body is not None:
            page.route(base + name, lambda route: route.fulfill(body=body, content_type="text/html; charset=utf-8"))
        pages.append(page)
        page.on("request", look)
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.goto(base + name, wait_until="load")
        draw_all(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not wrong, wrong
