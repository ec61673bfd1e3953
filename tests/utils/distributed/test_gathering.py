"""How elastic processes find together, against Horovod's own key-value server."""

import os
import threading
from types import SimpleNamespace

import pytest

from convoy.utils.distributed import gathering, ranks


@pytest.fixture
def launcher(monkeypatch):
    """A server as horovodrun's, with places to give out; `.answers` maps host:slot to them."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousServer

    launcher = SimpleNamespace(answers={})

    class Handler(RendezvousHandler):
        def _get_value(self, scope, key):
            if scope == "rank_and_size":
                return launcher.answers[key].encode()
            return super()._get_value(scope, key)

    server = RendezvousServer()
    port = server.start(Handler)
    server.init([])
    environment = {"GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "GLOO_RENDEZVOUS_PORT": port}
    environment |= {"HOSTNAME": "node1", "RANK": 0, "SIZE": 2, "LOCAL_RANK": 0, "ELASTIC": 1}
    for name, value in environment.items():
        monkeypatch.setenv(f"HOROVOD_{name}", str(value))
    for name in ("LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE"):
        monkeypatch.setenv(f"HOROVOD_{name}", "")
    yield launcher
    server.stop()
    server._httpd.server_close()


def arrive(rank):
    """What another process does when it has started."""
    gathering._store.put(f"here-{rank}", "process 7 on node2")


def test_all_wait_for_the_last(launcher):
    done = threading.Event()

    def gather():
        gathering.gather()
        done.set()

    thread = threading.Thread(target=gather)
    thread.start()
    assert not done.wait(0.5), "rank 1 is missing"
    arrive(1)
    thread.join(10)
    assert done.is_set()
    assert gathering._store.get("all-here"), "the others hear it from rank 0"


def test_a_process_that_does_not_come_is_done_without(launcher, monkeypatch):
    monkeypatch.setattr(gathering, "_PATIENCE", 0.2)
    launcher.answers["node1:0"] = "0,1,0,1,0,1"
    gathering.gather()
    assert (os.environ["HOROVOD_RANK"], os.environ["HOROVOD_SIZE"]) == ("0", "1")
    assert ranks.elastic(), "still, though Horovod is not told"


def test_a_process_without_a_place_leaves(launcher):
    launcher.answers["node1:0"] = "-1,-1,-1,-1,-1,-1"
    with pytest.raises(gathering.Removed, match="node1 is not among the job's hosts"):
        gathering.gather(again=True)


def test_an_error_is_left_for_the_others(launcher):
    assert gathering.told() is None
    gathering.tell("rank 1: köln.tfrecord is gone")
    assert gathering.told() == "rank 1: köln.tfrecord is gone"


def test_who_hangs_is_named(launcher, capsys):
    arrive(0)
    arrive(1)
    gathering._store.put("asked-0", "1")
    gathering._name_the_silent()
    assert "Not heard of: rank 1 (process 7 on node2)." in capsys.readouterr().err


def test_a_launcher_that_is_gone_is_told_so(launcher, monkeypatch):
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", "9")
    with pytest.raises(ranks.DistributedError, match="horovodrun, does not answer"):
        ranks._gather(again=True)
