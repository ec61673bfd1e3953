"""Downloads from a real server that cuts connections, hangs, or sends another file."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from convoy.model.weights import download as weight_download
from convoy.model.weights.download import DownloadError, Published, download, published

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT from the requested offset; the next `cut` answers end after 1 MB."""

    daemon_threads = True
    cut, ranges, silent, content = 0, True, False, CONTENT

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path != "/weights.h5":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.silent:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(3)
            return
        if server.cut:
            server.cut -= 1
            body = body[:1_000_000]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """A function that downloads into `tmp_path/cache` and returns the printed lines."""

    def run(name="weights.h5", md5=None, timeout=5.0):
        md5 = md5 or hashlib.md5(CONTENT).hexdigest()
        file = Published(f"http://127.0.0.1:{server.server_port}/{name}", md5)
        said = []
        path = download(file, tmp_path / "cache", said.append, timeout)
        assert path == tmp_path / "cache" / name
        assert path.read_bytes() == CONTENT
        return said

    return run


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_a_file_is_downloaded_once_and_completely(fetch, server, tmp_path):
    assert len(fetch()) == 1
    assert fetch() == []
    assert server.asked == [None]
    assert left(tmp_path) == ["weights.h5"]


def test_a_cut_download_continues_where_it_was_cut(fetch, server, tmp_path):
    server.cut = 1
    fetch()
    assert server.asked == [None, "bytes=1000000-"]
    assert left(tmp_path) == ["weights.h5"]


def test_a_download_cut_on_every_try_is_kept_for_the_next_call(fetch, server, tmp_path):
    server.cut, server.ranges = weight_download.TRIES, True
    server.content = CONTENT + CONTENT  # every try is cut before its end
    with pytest.raises(DownloadError, match=r"cut after .* kB are kept"):
        fetch()
    assert left(tmp_path) == ["weights.h5.part"]
    server.content = CONTENT
    fetch()  # the kept part is already complete
    assert left(tmp_path) == ["weights.h5"]


def test_a_server_without_ranges_sends_the_whole_file_again(fetch, server):
    server.cut, server.ranges = 1, False
    fetch()
    assert server.asked == [None, "bytes=1000000-"]


def test_a_silent_server_ends_the_download_after_the_timeout(fetch, server, monkeypatch):
    monkeypatch.setattr(weight_download, "TRIES", 1)
    server.silent = True
    start = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        fetch(timeout=0.3)
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize("name", ["weights.h5", "none.h5"])
def test_a_wrong_or_missing_file_leaves_nothing_in_the_cache(name, fetch, tmp_path):
    with pytest.raises(DownloadError, match=r"not the published file|404"):
        fetch(name, md5="0" * 32)
    assert left(tmp_path) == []


def test_an_unreachable_server_raises_an_error_with_the_reason(tmp_path):
    file = Published("http://127.0.0.1:9/weights.h5", "0" * 32)
    with pytest.raises(DownloadError, match="refused"):
        download(file, tmp_path / "cache", print)
    assert left(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_replaced(fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.h5").write_bytes(CONTENT[:100])
    assert len(fetch()) == 1


def test_only_one_of_several_callers_downloads(fetch, server):
    said = []
    threads = [threading.Thread(target=lambda: said.extend(fetch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == len(server.asked) == 1


def test_addresses_and_checksums_equal_kerass():
    from keras.src.applications import efficientnet, efficientnet_v2

    for i in range(8):
        file = published(f"efficientnet-b{i}")
        assert file.url == f"{efficientnet.BASE_WEIGHTS_PATH}efficientnetb{i}.h5"
        assert file.md5 == efficientnet.WEIGHTS_HASHES[f"b{i}"][0]
    for key, (md5, _) in efficientnet_v2.WEIGHTS_HASHES.items():
        file = published(f"efficientnetv2-{key.removeprefix('-')}")
        assert (
            file.url
            == f"{efficientnet_v2.BASE_WEIGHTS_PATH}efficientnetv2-{key.removeprefix('-')}.h5"
        )
        assert file.md5 == md5
    assert published("resnet50") is None  # Keras' ResNet50 has its strides in other layers
