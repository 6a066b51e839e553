"""Clients that offer HTTP/2 with their first request: curl, and Java's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.requirements import program
from tests.services.tafe_server import Running, start_tafe

pytestmark = pytest.mark.real

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpRequest.Builder;

public class Client {
    static final HttpClient client = HttpClient.newHttpClient();

    static void ask(Builder request) throws Exception {
        var answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.version());
    }

    public static void main(String[] arguments) throws Exception {
        var to = HttpRequest.newBuilder(URI.create(arguments[0]));
        var large = "x".repeat(100000);
        ask(to.copy().GET());
        ask(to.copy().POST(BodyPublishers.ofString("[1,2]")));
        ask(to.copy().POST(BodyPublishers.ofString(large)).expectContinue(true));
        ask(to.copy().POST(BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(large.getBytes()))));
    }
}
"""


@pytest.fixture(scope="module")
def server(servers_dir: Path) -> Iterator[Running]:
    folder = servers_dir / "real-clients"
    folder.mkdir()
    running = start_tafe(folder, "tests.corpus.echo:app", "--workers", "1", "--no-profile")
    yield running
    running.stop()


def output_of(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    "options", [(), ("-I",), ("-d", "hello"), ("-d", "hello", "-H", "Expect: 100-continue")], ids=" ".join
)
def test_curl_gets_http_1_1_and_keeps_its_connection(server: Running, options: tuple[str, ...]) -> None:
    told = ("-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}\n")
    urls = (server.url + "/a", "-o", "/dev/null", server.url + "/b")
    assert output_of(program("curl"), "-sS", "--http2", *told, *options, *urls) == "200 1.1 1\n200 1.1 0\n"


@pytest.mark.slow
def test_java_gets_http_1_1(server: Running, tmp_path: Path) -> None:
    program("javac")  # without it no source is run
    source = tmp_path / "Client.java"
    source.write_text(JAVA)
    assert output_of(program("java"), str(source), server.url + "/j") == "200 HTTP_1_1\n" * 4
