"""The sandbox over the real engine: images that move, trains that stay warm, crashes that leave nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sandbox_kit import PACKAGES, Station, build_image, logged, remove_image, store_image

from policies.blobs import BlobFolder
from policies.errors import UnavailableError
from station.sandbox import unix
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.launcher.service import local_launcher
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import (
    MIB,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)
from train_images.base.build import BASE_IMAGE, SYSTEM_IMAGE, build_base_images

pytestmark = pytest.mark.docker

PASS_ON = """
import numpy as np
for name, array in message.content["arrays"].items():
    arrays[name] = np.asarray(array.numpy() * 2)
kept["turns"] = kept.get("turns", 0) + 1
metrics["turns"] = kept["turns"]
"""


def test_building_the_base_again_builds_nothing() -> None:
    lines: list[str] = []
    (first,) = build_base_images(lines.append, torch=False)
    (again,) = build_base_images(lines.append, torch=False)
    assert again.reused
    assert again.image_id == first.image_id
    assert again.seconds == 0
    assert lines[-1] == f"{BASE_IMAGE}: already built"
    assert again.size_bytes < 300e6


def test_a_train_stays_warm_and_keeps_types(station: Station, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"w": np.ones((500, 1000), np.float32), "n": np.array(3, np.int64)}, weights)
    with station.session() as session:
        for turn in (1, 2, 3):
            answer = session.exchange(
                TrainRequest("train", turn, {"code": PASS_ON}, weights),
                ReplyLimits(tmp_path / "reply", 8 * MIB),
                60,
            )
            assert isinstance(answer, TrainReply)
            assert answer.metrics == {"turns": turn}
    arrays = load_file(tmp_path / "reply")
    assert arrays["n"].dtype == np.int64
    assert arrays["n"] == 6
    assert (arrays["w"] == 2).all()


def test_only_the_layers_that_the_engine_lacks_are_sent(station: Station, tmp_path: Path) -> None:
    tag = "pht-test-moved:1"
    # A layer that no other image has, so that the engine forgets it with the image.
    build_image(tag, f"FROM {BASE_IMAGE}\nCOPY app.py {PACKAGES}/pht_test_app.py\nCOPY own.txt train.json /opt/pht/\n",
                **{"own.txt": str(tmp_path)})  # fmt: skip
    (tmp_path / "compute" / "cohorts").mkdir(parents=True)
    digest = store_image(tag, BlobFolder(tmp_path / "compute" / "layers"))
    remove_image(tag)
    launcher = local_launcher(tmp_path, station.settings)
    first = launcher.load_image(digest)
    assert 0 < first.layers_sent <= 2
    assert launcher.load_image(digest).layers_sent == 0
    tags = subprocess.run(
        ["docker", "image", "inspect", "-f", "{{.RepoTags}}", first.image_id],
        check=True,
        capture_output=True,
        text=True,
    )
    assert tags.stdout.strip() == "[]"
    with station.session() as session:  # the base has not been harmed
        assert station.find(session, "found = 1") == 1
    remove_image(first.image_id)
    shutil.rmtree(tmp_path / "compute")


def test_a_program_in_any_language_is_a_train(station: Station, tmp_path: Path) -> None:
    tag = "pht-test-command:1"
    script = 'set -e\nmkdir -p reply\ncp request/arrays.safetensors reply/\nprintf \'{"metrics":{"n":4}}\' > reply/head.json\n'
    build_image(
        tag,
        f"FROM {BASE_IMAGE}\nCOPY run.sh /opt/pht/run.sh\nCOPY train.json /opt/pht/train.json\n",
        {"interface": "command", "argv": ["/bin/sh", "/opt/pht/run.sh"]},
        **{"run.sh": script},
    )
    digest = store_image(tag, station.store)
    remove_image(tag)
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "weights")
    with station.session(image_config_digest=digest, interface="command") as session:
        answer = session.exchange(
            TrainRequest("analyse", 0, {}, tmp_path / "weights"), ReplyLimits(tmp_path / "reply", MIB), 120
        )
        assert isinstance(answer, TrainReply)
        assert answer.metrics == {"n": 4}
        assert load_file(tmp_path / "reply")["w"].tolist() == [1, 1, 1]
    with pytest.raises(TrainStartError, match="interface"), station.session(image_config_digest=digest):
        pass


def test_a_train_that_cannot_be_imported_ends_at_its_start(station: Station) -> None:
    tag = "pht-test-broken:1"
    build_image(tag, description={"interface": "flower", "clientapp": "missing:app"})
    digest = store_image(tag, station.store)
    remove_image(tag)
    with pytest.raises(TrainStartError) as caught, station.session(image_config_digest=digest):
        pass
    assert caught.value.failure.exit_class is ExitClass.CRASH
    assert "No module named 'missing'" in caught.value.log
    assert "missing" not in str(caught.value)
    assert station.launcher.list_runs() == ()


def test_an_image_that_is_not_built_on_ours_ends_at_its_start(station: Station) -> None:
    tag = "pht-test-foreign:1"
    build_image(tag, f"FROM {SYSTEM_IMAGE}\nCOPY train.json /opt/pht/train.json\nCMD sleep 1000\n")
    digest = store_image(tag, station.store)
    remove_image(tag)
    with pytest.raises(TrainStartError) as caught, station.session(image_config_digest=digest):
        pass
    assert caught.value.failure == TrainFailure(ExitClass.CRASH, detail="it ended with exit code 127")
    assert station.launcher.list_runs() == ()


def test_a_crash_and_a_new_start_under_the_same_run(station: Station) -> None:
    spec = station.spec()
    sandbox = TrainSandbox(station.launcher, start_timeout_s=180)
    for _ in range(2):
        session = sandbox.start(spec)
        answer = station.ask(session, "import os; os.abort()")
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.CRASH
        session.stop()
        assert station.launcher.status(spec.run_id).state == "absent"


def test_stop_from_another_thread_ends_a_request(station: Station) -> None:
    session = TrainSandbox(station.launcher, start_timeout_s=180).start(station.spec())
    answers: list[TrainReply | TrainFailure] = []
    code = "print('working'); import time; time.sleep(600)"
    waiting = threading.Thread(target=lambda: answers.append(station.ask(session, code, timeout_s=300)))
    waiting.start()
    logged(session, "working")
    session.stop()
    waiting.join(120)
    assert isinstance(answers[0], TrainFailure)
    assert answers[0].session_ended
    assert station.launcher.status(session.run_id).state == "absent"


SERVE = """
import json, sys, pathlib
from station.sandbox.launcher.service import serve
from station.sandbox.spec import LauncherSettings
serve(pathlib.Path(sys.argv[1]), LauncherSettings.model_validate(json.loads(sys.argv[2])))
"""


def start_launcher(home: Path, **settings: object) -> subprocess.Popen[bytes]:
    values = {"station": "test-station", "compute_uid": os.getuid(), **settings}
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(home), json.dumps(values)])
    path = home / "run" / "launcher.sock"
    deadline = time.monotonic() + 180
    while True:
        try:
            unix.connect(path, timeout_s=5).close()
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
        else:
            return process


def test_a_killed_launcher_comes_back_and_removes_what_it_left(station: Station) -> None:
    process = start_launcher(station.home)
    client = LauncherClient(station.home / "run" / "launcher.sock")
    session = TrainSandbox(client, start_timeout_s=180).start(station.spec())
    process.send_signal(signal.SIGKILL)
    process.wait(120)
    with pytest.raises(UnavailableError, match="launcher"):
        client.list_runs()
    assert station.launcher.status(session.run_id).state == "running"
    process = start_launcher(station.home)
    assert client.list_runs() == ()
    answer = station.ask(session, "")
    assert isinstance(answer, TrainFailure)
    assert answer.session_ended
    session.stop()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert not (station.home / "run" / "launcher.sock").exists()


def test_a_launcher_ends_with_its_containers(station: Station) -> None:
    process = start_launcher(station.home)
    client = LauncherClient(station.home / "run" / "launcher.sock")
    session = TrainSandbox(client, start_timeout_s=180).start(station.spec())
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert station.launcher.list_runs() == ()
    with pytest.raises(UnavailableError):
        session.stop()
