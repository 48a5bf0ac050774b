"""A small web server: fixed files, streams of events, and orders.

It has no passwords, so by default only this computer can reach it. A foreign web page, opened in a
browser on this computer, could reach it too, so it is refused:

- A name in ``Host`` other than ``localhost``: a foreign name may have been rebound to this address
  (DNS rebinding). An address in numbers cannot be.
- A stream or an order that another origin asks for, and an order that is not JSON, which a browser
  would send for any page.
- To be shown inside another page, whose clicks could be borrowed.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lightvla_ros.errors import LightVLAError, one_line

LONGEST_ORDER = 8192  # bytes
PATIENCE = 10.0  # s that a connection may make no progress
MOST_CONNECTIONS = 16
MOST_WATCHERS = 4
TYPES = {
    'html': 'text/html',
    'css': 'text/css',
    'js': 'text/javascript',
    'json': 'application/json',
}
HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}

Order = Callable[[Mapping[str, Any]], str]


class OrderError(LightVLAError):
    """An order that was not carried out; one line says why."""


class PageServer:
    """Serves a page from threads of its own until it is closed.

    :param address: IP address to listen on.
    :param port: TCP port; 0 takes a free one.
    :param files: Contents by name, such as ``page.css``; ``index.html`` is also the root.
    :param watch: Called for everyone who looks, with the query; yields an event, which is sent as
        JSON, whenever one is due. It is asked for the next one in a thread of the server.
    :param orders: By name; each gets the order's JSON object and returns one line.
    :raises OSError: When address and port cannot be had.
    """

    def __init__(
        self,
        address: str,
        port: int,
        files: Mapping[str, bytes],
        watch: Callable[[str], Iterator[Any]],
        orders: Mapping[str, Order],
    ) -> None:
        self.files = files
        self.watch = watch
        self.orders = orders
        self.closed = threading.Event()
        self.watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        self._server = _Server(self, address, port)
        self._thread = threading.Thread(target=self._server.serve_forever, name='page', daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._server.server_address[:2]
        return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'

    def close(self) -> None:
        """Stop serving; a stream ends before its next event."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, page: PageServer, address: str, port: int) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ':' in address else socket.AF_INET
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the computer's name, which can take seconds without a network
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that leaves breaks its connections."""


class _Refused(Exception):
    """A request that is answered with an error's status and one line."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def version_string(self) -> str:
        return 'lightvla_ros'

    def log_message(self, *_: object) -> None:
        """Log nothing: the node's log is for the robot."""

    def _answered(self, respond: Callable[[], None]) -> None:
        try:
            self._check_host()
            respond()
        except _Refused as refusal:
            with suppress(OSError):
                self._send({'message': str(refusal)}, refusal.status)

    def _get(self) -> None:
        path, _, query = self.path.partition('?')
        if path == '/watch':
            self._check_origin()
            self._stream(query)
            return
        name = path.removeprefix('/') or 'index.html'
        content = self.server.page.files.get(name)
        if content is None:
            raise _Refused(HTTPStatus.NOT_FOUND, 'there is no such page')
        self._head(HTTPStatus.OK, name.rpartition('.')[2], len(content))
        self.wfile.write(content)

    def _stream(self, query: str) -> None:
        page = self.server.page
        if not page.watchers.acquire(blocking=False):
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, f'{MOST_WATCHERS} already look')
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header('Content-Type', 'text/event-stream')
            self._end_headers()
            for event in page.watch(query):
                if page.closed.is_set():
                    return
                self.wfile.write(f'data: {json.dumps(event)}\n\n'.encode())
        except OSError:  # who looked has left
            pass
        finally:
            page.watchers.release()

    def _post(self) -> None:
        self._check_origin()
        order = self.server.page.orders.get(self.path.removeprefix('/orders/'))
        if order is None:
            raise _Refused(HTTPStatus.NOT_FOUND, 'there is no such order')
        content = self._content()
        try:
            self._send({'message': order(content)}, HTTPStatus.OK)
        except OrderError as error:
            raise _Refused(HTTPStatus.CONFLICT, str(error)) from None
        except OSError:
            pass
        except (
            Exception
        ) as error:  # such as a middleware's; the page must say that nothing was done
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, one_line(repr(error))) from None

    def _content(self) -> dict[str, Any]:
        if self.headers.get_content_type() != 'application/json':
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'an order must be application/json')
        length = self.headers.get('Content-Length', '')
        if not length.isdecimal():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, 'Content-Length is missing')
        if int(length) > LONGEST_ORDER:
            text = f'an order has at most {LONGEST_ORDER} bytes'
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        try:
            content = json.loads(self.rfile.read(int(length)))
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, 'an order must be a JSON object')
        return content

    def _check_host(self) -> None:
        hosts = self.headers.get_all('Host', [])
        if len(hosts) != 1 or not _is_own_name(hosts[0]):
            text = 'the address must be localhost or in numbers, such as 127.0.0.1'
            raise _Refused(HTTPStatus.FORBIDDEN, text)

    def _check_origin(self) -> None:
        """Refuse what another site's page asks for; programs that are no browsers say nothing."""
        origin = self.headers.get('Origin')
        foreign = origin is not None and urlsplit(origin).netloc != self.headers['Host']
        if foreign or self.headers.get('Sec-Fetch-Site', 'same-origin') != 'same-origin':
            raise _Refused(HTTPStatus.FORBIDDEN, 'another page may not ask for this')

    def _send(self, content: Any, status: HTTPStatus) -> None:
        data = json.dumps(content).encode()
        self._head(status, 'json', len(data))
        self.wfile.write(data)

    def _head(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        self.send_header('Content-Type', f'{TYPES[kind]}; charset=utf-8')
        self.send_header('Content-Length', str(length))
        self._end_headers()

    def _end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f'//{host}').hostname or ''
        if name != 'localhost':
            ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
