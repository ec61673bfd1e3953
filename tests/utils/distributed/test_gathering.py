"""How elastic processes meet, on Horovod's own key-value server."""

import os
import threading
from types import SimpleNamespace

import pytest

from convoy.utils.distributed import gathering, ranks


@pytest.fixture
def launcher(monkeypatch):
    """A server like horovodrun's; `.answers` maps host:slot to the place that it assigns."""
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
    """Registers another process, as its start would."""
    gathering._store.put(f"here-{rank}", "process 7 on node2")


def test_gather_returns_when_the_last_process_has_arrived(launcher):
    done = threading.Event()

    def gather():
        gathering.gather()
        done.set()

    thread = threading.Thread(target=gather)
    thread.start()
    assert not done.wait(0.5), "rank 1 has not arrived yet"
    arrive(1)
    thread.join(10)
    assert done.is_set()
    assert gathering._store.get("all-here"), "rank 0 must tell the others"


def test_the_job_continues_without_a_process_that_does_not_arrive(launcher, monkeypatch):
    monkeypatch.setattr(gathering, "_PATIENCE", 0.2)
    launcher.answers["node1:0"] = "0,1,0,1,0,1"
    gathering.gather()
    assert (os.environ["HOROVOD_RANK"], os.environ["HOROVOD_SIZE"]) == ("0", "1")
    assert ranks.elastic(), "the job must stay elastic"


def test_a_process_without_a_place_raises_removed(launcher):
    launcher.answers["node1:0"] = "-1,-1,-1,-1,-1,-1"
    with pytest.raises(gathering.Removed, match="node1 is no longer one of the job's hosts"):
        gathering.gather(again=True)


def test_an_error_is_passed_to_the_other_processes(launcher):
    assert gathering.told() is None
    gathering.tell("rank 1: köln.tfrecord is gone")
    assert gathering.told() == "rank 1: köln.tfrecord is gone"


def test_a_process_that_does_not_answer_is_named(launcher, capsys):
    arrive(0)
    arrive(1)
    gathering._store.put("asked-0", "1")
    gathering._name_the_silent()
    assert "No answer from: rank 1 (process 7 on node2)." in capsys.readouterr().err


def test_a_launcher_that_does_not_answer_raises_an_error(launcher, monkeypatch):
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", "9")
    with pytest.raises(ranks.DistributedError, match="horovodrun, does not answer"):
        ranks._gather(again=True)
