"""What is said of a link that did not come about: TLS on one side only is the usual cause."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from threading import Thread

import pytest

from tests.papers import LOCAL, Papers
from tests.waiting import wait_for
from wire.links.link import parse_link
from wire.transport import Down


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path)


@pytest.fixture
def reason(papers, client):
    """Returns a function that says why a link fails to a port where `answer` has each connection to itself."""
    servers = []

    def found(answer, scheme):
        servers.append(socket.create_server(("127.0.0.1", 0)))
        Thread(target=serve, args=(servers[-1], answer), daemon=True).start()
        url = f"{scheme}://127.0.0.1:{servers[-1].getsockname()[1]}"
        link = parse_link(url, ca_file=papers.ca_file if scheme == "mqtts" else None)
        return wait_for(client(link, "caller", up=False), Down).reason

    yield found
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)  # ends the wait for another connection
        server.close()


def serve(server, answer):
    with suppress(OSError):
        while True:
            with server.accept()[0] as far, suppress(OSError):
                answer(far)


def speaking_tls(papers, wants=ssl.CERT_NONE):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(papers.ca_file))
    context.load_cert_chain(*papers.issue("broker", LOCAL))
    context.verify_mode = wants
    return lambda far: context.wrap_socket(far, server_side=True).close()


def saying(data):
    return lambda far: (far.recv(1000), far.sendall(data))


@pytest.mark.parametrize("words", [b"", bytes.fromhex("15030100020246")])
def test_a_port_that_closes_without_an_answer_may_want_tls(reason, words):
    said = reason(saying(words), "mqtt")
    assert said.startswith("127.0.0.1:")
    assert said.endswith("; does this port want mqtts://?")


def test_a_port_with_tls_is_met_without(reason, papers):
    assert reason(speaking_tls(papers), "mqtt").endswith("; does this port want mqtts://?")


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes.fromhex("20020001")])
def test_a_port_without_tls_is_met_with_it(reason, words):
    assert reason(saying(words), "mqtts").endswith("; does this port speak TLS?")


def test_a_port_that_proves_itself_wrongly_speaks_tls(reason, tmp_path):
    (tmp_path / "other").mkdir()
    said = reason(speaking_tls(Papers(tmp_path / "other")), "mqtts")
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "does this port" not in said


def test_a_port_that_closes_after_the_handshake_may_want_a_certificate(reason, papers):
    assert reason(speaking_tls(papers, ssl.CERT_REQUIRED), "mqtts").endswith(
        "; does it want a certificate (cert_file)?"
    )
