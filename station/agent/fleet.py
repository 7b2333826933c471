"""One station's connection to Flower's Fleet API. The only module of the station that touches private Flower code.

It carries bytes: instructions in, replies out. It never asks for an app bundle (FAB), follows no redirect, reads no
body above `MAX_RESPONSE_BYTES`, and ends no process; Flower's stock client does each of these (flwr 1.41.0,
`supernode/fleet_http_connection.py`).

Facts it is built on (flwr 1.41.0): a message is handed out once, and its objects stay pullable until confirmed; the
same reply pushed twice is one reply; ActivateNode answers 412 while the node still counts as online, but a heartbeat
with the remembered node id brings the node back at once; every call signs the time with the node's key.
"""

import hashlib
import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, ConfigRecordValues, Message, Metadata, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from policies.errors import NetworkError, WireError
from policies.wire.http import load_private_key
from policies.wire.instructions import ARRAYS_KEY, BODY_KEY, RECORD_KEY
from policies.wire.proxies import Proxy
from policies.wire.steady import steady_client
from station.agent.messages import (
    Answer,
    IncomingMessage,
    NotAdmittedError,
    OversizeError,
    RunOverError,
    StillOnlineError,
)

HEARTBEAT_INTERVAL_S = 10.0
"""The shortest Flower takes; a node that is silent for twice as long counts as offline."""

MAX_RESPONSE_BYTES = 2 * 1024 * 1024

_RETRIED_STATUS = frozenset({502, 503, 504})

_TRIES = 4

_INCOMPLETE_S = 60.0

_MAX_INCOMPLETE = 64

_Result = TypeVar("_Result")


class FleetConnection:
    """A node-authenticated connection; safe to use from several threads at once.

    Every method raises `NetworkError` (or a subclass above) when the orchestrator cannot be reached or refuses.
    """

    def __init__(self, url: str, ca_path: Path, node_key_path: Path, proxy: Proxy | None = None) -> None:
        self._url = url
        self._key: ec.EllipticCurvePrivateKey = load_private_key(node_key_path)
        self._client = _BoundedFleetClient(url, ca_path, self._key, proxy)
        self._node: Node | None = None
        self._stop = threading.Event()
        self._incomplete: list[_Incomplete] = []
        self._calls = ThreadPoolExecutor(3, thread_name_prefix="fleet-call")

    @property
    def url(self) -> str:
        """The orchestrator's address."""
        return self._url

    @property
    def node_id(self) -> int | None:
        """Flower's id of this node, once known."""
        return None if self._node is None else int(self._node.node_id)

    def resume(self, node_id: int) -> None:
        """Take up a remembered node id; the next `heartbeat` shows whether it still holds."""
        self._node = Node(node_id=node_id)

    def activate(self) -> int:
        """Ask for this node's id by its public key.

        Raises:
            StillOnlineError: an earlier life still counts as online; ask again later.
        """
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(self._key.public_key()), heartbeat_interval=HEARTBEAT_INTERVAL_S
        )
        response = self._call(lambda: self._client.ActivateNode(request))
        self._node = Node(node_id=response.node_id)
        return int(response.node_id)

    def heartbeat(self) -> None:
        """Tell the SuperLink that this node is there; also brings a node back online."""
        request = SendNodeHeartbeatRequest(node=self._known_node(), heartbeat_interval=HEARTBEAT_INTERVAL_S)
        if not self._call(lambda: self._client.SendNodeHeartbeat(request)).success:
            raise NotAdmittedError("the SuperLink does not know this node id")

    def poll(self) -> list[IncomingMessage]:
        """Take the next message, and those whose objects have arrived by now; the caller confirms what it stored."""
        node = self._known_node()
        response = self._call(lambda: self._client.PullMessages(PullMessagesRequest(node=node)))
        for proto, tree in zip(response.messages_list, response.message_object_trees, strict=False):
            # Handed out once: kept until its objects are here, without holding up other runs' messages.
            self._incomplete.append(_Incomplete(proto.metadata, tree, time.monotonic() + _INCOMPLETE_S))
        del self._incomplete[:-_MAX_INCOMPLETE]
        complete: list[IncomingMessage] = []
        for entry in list(self._incomplete):
            if (message := self._completed(entry)) is not None:
                self._incomplete.remove(entry)
                complete.append(message)
        return complete

    def confirm(self, message: IncomingMessage) -> None:
        """Say that a message is stored here; the SuperLink then forgets its objects."""
        request = ConfirmMessageReceivedRequest(
            node=self._known_node(), run_id=message.run_id, message_object_id=message.message_id
        )
        self._call(lambda: self._client.ConfirmMessageReceived(request))

    def reply(self, answer: Answer) -> None:
        """Push an answer, objects and all. The same answer may be pushed again: it is the same bytes.

        Raises:
            RunOverError: the run does not take answers any more.
            WireError: the stored answer is damaged.
        """
        message, contents = _reply_message(answer)
        request = PushMessagesRequest(
            node=self._known_node(),
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
            # How long a train ran is a measurement of the data: it leaves in the policy's quantum, in the reply.
            clientapp_runtime_list=[0.0],
        )
        response = self._call(lambda: self._client.PushMessages(request))
        for object_id in response.objects_to_push:
            if object_id in contents:
                self._push_object(
                    message.metadata.run_id, response.session_id, object_id, contents[object_id]
                )

    def run_is_over(self, run_id: int) -> bool:
        """Ask whether a run still takes part."""
        try:
            self._call(lambda: self._client.GetRun(GetRunRequest(node=self._known_node(), run_id=run_id)))
        except RunOverError:
            return True
        return False

    def interrupt(self) -> None:
        """Stop retrying: calls under way end with their present try."""
        self._stop.set()

    def close(self) -> None:
        """Drop the connection. The node stays registered and active."""
        self._stop.set()
        self._calls.shutdown(wait=True)
        self._client.close()

    def _known_node(self) -> Node:
        if self._node is None:
            raise NotAdmittedError("the node is not activated yet")
        return self._node

    def _completed(self, entry: "_Incomplete") -> IncomingMessage | None:
        """The whole message; one without a body when it is not one of ours; None while objects are missing."""
        metadata = entry.metadata
        body, arrays = None, None
        try:
            content = self._pull_record(metadata.run_id, entry.tree)
            if content is not None:
                body, arrays = _read_record(content)
            elif time.monotonic() < entry.given_up:
                return None
        except (WireError, RunOverError, OversizeError):
            # Not one of ours, or of a run that ended meanwhile: either way nothing to hand on.
            body, arrays = None, None
        except NetworkError:
            # One message's trouble is not the others'; when it is everybody's, the next poll says so.
            if time.monotonic() < entry.given_up:
                return None
        return IncomingMessage(
            run_id=metadata.run_id,
            message_id=metadata.message_id,
            body=body,
            arrays=arrays,
            reply_to=ProtoMessage(metadata=metadata).SerializeToString(deterministic=True),
            expires=metadata.created_at + metadata.ttl,
        )

    def _pull_record(self, run_id: int, tree: ObjectTree) -> bytes | None:
        """The bytes of the message's one record; None while it is still being sent.

        Flower keeps a message as three objects. The other two hold its address, which came with it, and the record's
        name: they are not asked for.
        """
        object_id = _record_id(tree)
        request = PullObjectRequest(node=self._known_node(), run_id=run_id, object_id=object_id)
        response = self._call(lambda: self._client.PullObject(request))
        if not response.object_found:
            raise WireError("the message's record is not there")
        if not response.object_available:
            return None
        content = bytes(response.object_content)
        if hashlib.sha256(content).hexdigest() != object_id:
            raise WireError("the message's record is not what its id says")
        return content

    def _push_object(self, run_id: int, session_id: str, object_id: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=self._known_node(),
            run_id=run_id,
            object_id=object_id,
            object_content=content,
            session_id=session_id,
        )
        if not self._call(lambda: self._client.PushObject(request)).stored:
            raise NetworkError("the SuperLink did not store a reply's object; its push session has expired")

    def _call(self, call: Callable[[], _Result]) -> _Result:
        """Call, try again after what passes by itself, and name what went wrong."""
        for attempt in range(1, _TRIES + 1):
            try:
                return call()
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status not in _RETRIED_STATUS or attempt == _TRIES or self._stop.is_set():
                    raise _named(status) from None
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if attempt == _TRIES or self._stop.is_set():
                    raise NetworkError(f"the orchestrator does not answer ({type(error).__name__})") from None
            except (DecodeError, ValueError, RuntimeError) as error:
                # RuntimeError: httpx's "client has been closed".
                raise NetworkError(
                    f"the orchestrator's answer makes no sense ({type(error).__name__})"
                ) from None
            self._stop.wait(0.1 * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        raise NetworkError("the orchestrator does not answer")


class _BoundedFleetClient(FleetHttpClient):
    """Flower's client with our own HTTP underneath: no redirects, no environment proxies, bounded bodies, calls that end."""

    def __init__(self, url: str, ca_path: Path, key: ec.EllipticCurvePrivateKey, proxy: Proxy | None) -> None:
        super().__init__(url, interceptors=[NodeAuthHttpInterceptor(key, key.public_key())])
        self._client.close()
        self._client = steady_client(
            ssl.create_default_context(cafile=str(ca_path)),
            read_s=30.0,
            connect_s=10.0,
            proxy=proxy,
            headers={"accept-encoding": "identity"},
        )

    def _send(self, context: ProtobufRequestContext, *, stream: bool = False) -> httpx.Response:
        def send(current: ProtobufRequestContext) -> httpx.Response:
            response = self._client.send(current.request, stream=True)
            try:
                content = bytearray()
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise OversizeError(f"a response of more than {MAX_RESPONSE_BYTES} bytes")
            finally:
                response.close()
            # Raw bytes, and no header of theirs: nothing of the body is decoded by name.
            return httpx.Response(response.status_code, content=bytes(content), request=current.request)

        call_next: _Call = send
        for interceptor in reversed(self._interceptors):
            call_next = _wrapped(interceptor.intercept, call_next)
        return call_next(context)


_Call = Callable[[ProtobufRequestContext], httpx.Response]


def _wrapped(intercept: Callable[[ProtobufRequestContext, _Call], httpx.Response], call_next: _Call) -> _Call:
    return lambda context: intercept(context, call_next)


def _named(status: int) -> NetworkError:
    # flwr 1.41.0, supercore/error/catalog.py: 403 for a run that is over or unknown, 412 for activation.
    if status == 403:
        return RunOverError("the run is over (403)")
    if status == 401:
        return NotAdmittedError(
            "the SuperLink does not accept this node's key",
            hint="Is the station registered? Is its clock right?",
        )
    if status == 412:
        return StillOnlineError("the node still counts as online or is not registered (412)")
    return NetworkError(f"the orchestrator answered {status}")


@dataclass(frozen=True, slots=True)
class _Incomplete:
    metadata: ProtoMetadata
    tree: ObjectTree
    given_up: float


def _record_id(tree: ObjectTree) -> str:
    """The id of the one record of a message of ours: Message, RecordDict, ConfigRecord, one under the other."""
    entry = tree
    for _ in range(2):
        if len(entry.children) != 1:
            raise WireError("the message is not one of ours")
        entry = entry.children[0]
    if entry.children:
        raise WireError("the message is not one of ours")
    return str(entry.object_id)


def _read_record(content: bytes) -> tuple[bytes, bytes | None]:
    try:
        # Refuses every other class than this one, which parses protobuf and nothing else.
        record = ConfigRecord.inflate(content)
        body, arrays = record[BODY_KEY], record.get(ARRAYS_KEY)
    except (UnexpectedObjectContentError, DecodeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise WireError(f"the message's record is not one of ours ({type(error).__name__})") from None
    if not isinstance(body, bytes) or not (arrays is None or isinstance(arrays, bytes)):
        raise WireError("the message's record is not one of ours")
    return body, arrays


def _reply_message(answer: Answer) -> tuple[Message, dict[str, bytes]]:
    proto = ProtoMessage()
    try:
        proto.ParseFromString(answer.reply_to)
    except DecodeError:
        raise WireError("the stored address of a reply is damaged") from None
    asked = proto.metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=answer.answered,
        ttl=asked.created_at + asked.ttl - answer.answered,
        message_type=asked.message_type,
        dst_task_id=asked.src_task_id if asked.HasField("src_task_id") else None,
    )
    metadata.delivered_at = ""
    record: dict[str, ConfigRecordValues] = {BODY_KEY: answer.body}
    if answer.arrays is not None:
        record[ARRAYS_KEY] = answer.arrays
    content = RecordDict({RECORD_KEY: ConfigRecord(record)})
    with no_object_id_recompute():
        message = make_message(metadata=metadata, content=content)
        message.metadata.__dict__["_message_id"] = message.object_id
        return message, {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
