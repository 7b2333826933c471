"""The orchestrator's side of Flower: Control API, task claims, and the grid. Its only module with private Flower code.

The run worker speaks the Control API (register a node, start a run) and claims ServerApp tasks; the ServerApp's
process speaks the Runtime API with the task's token. All of it goes to the SuperLink on loopback, with TLS under the
orchestrator's own loopback CA. Stock `flwr-serverapp` is not used: it installs what the FAB holds, and cannot take a
task up again after it was killed, since PullTaskInput answers once (flwr 1.41.0, `activate_task`).

Raises `SuperLinkDownError` for what passes by itself, `SuperLinkRefusedError` for a no, and `LeaseLostError` when the task
is not ours any more.
"""

import ssl
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import httpx
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, message_to_proto, metadata_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import NodeStatus, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.interceptors.http.runtime_token import RuntimeTokenHttpInterceptor
from flwr.supercore.interceptors.http.superexec_auth import SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run
from flwr.supercore.runtime.runtime_http_client import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from orchestrator.federation.bundle import build_bundle
from orchestrator.federation.doorbells import Doorbells
from orchestrator.federation.tasks import (
    Address,
    ClaimedTask,
    LeaseLostError,
    SuperLinkDownError,
    SuperLinkRefusedError,
)
from policies.wire.http import load_public_key
from policies.wire.instructions import RECORD_KEY

MAX_REPLY_OBJECTS = 3
"""Message, RecordDict, ConfigRecord: a station's reply has these and nothing more."""

_MAX_REPLY_OBJECT_BYTES = 2 * 1024 * 1024

_ACQUIRE_TASK = "/flwr.proto.Runtime/AcquireTask"

_Result = TypeVar("_Result")


class Control:
    """What the run worker asks of the SuperLink."""

    def __init__(self, address: Address, superexec_secret: bytes) -> None:
        self._control = _use_own_http(ControlHttpClient(address.url), address)
        self._runtime = _use_own_http(
            RuntimeHttpClient(
                address.url,
                interceptors=[
                    SuperExecAuthHttpInterceptor(
                        master_secret=superexec_secret, protected_methods={_ACQUIRE_TASK}
                    )
                ],
            ),
            address,
        )

    def register_node(self, public_key: bytes, known: Mapping[bytes, int] | None = None) -> int:
        """Register a station's identity key; the node id it has, if it is registered already.

        Args:
            public_key: one OpenSSH line or PEM, on a NIST curve.
            known: what `nodes` said a moment ago, for who registers many.

        Raises:
            WireError: not such a key.
        """
        # Flower's own command reads OpenSSH and sends PEM: the database knows nodes by these PEM bytes.
        pem = public_key_to_bytes(load_public_key(public_key))
        known = self.nodes() if known is None else known
        if pem in known:
            return known[pem]
        response = _call(lambda: self._control.RegisterNode(RegisterNodeRequest(public_key=pem)))
        return int(response.node_id)

    def nodes(self) -> dict[bytes, int]:
        """The registered nodes: public key (PEM) to node id."""
        response = _call(lambda: self._control.ListNodes(ListNodesRequest()))
        return {
            bytes(node.public_key): int(node.node_id)
            for node in response.nodes_info
            if node.status != NodeStatus.UNREGISTERED
        }

    def start_run(self) -> int:
        """Start a Flower run with our bundle; its ServerApp task then waits to be claimed."""
        request = StartRunRequest(fab=Fab(content=build_bundle()))
        run_id = int(_call(lambda: self._control.StartRun(request)).run_id)
        if run_id == 0:
            raise SuperLinkDownError("the SuperLink did not start a run")
        return run_id

    def stop_run(self, run_id: int) -> None:
        """Stop a Flower run; one that is over already stays over."""
        try:
            _call(lambda: self._control.StopRun(StopRunRequest(run_id=run_id)))
        except SuperLinkRefusedError:
            return

    def claim_task(self) -> ClaimedTask | None:
        """Claim the oldest waiting ServerApp task; it must start within 30 s."""
        response = _call(
            lambda: self._runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        )
        if not response.HasField("task") or not response.token:
            return None
        return ClaimedTask(int(response.task.task_id), int(response.task.run_id), response.token)

    def close(self) -> None:
        """Drop the connections."""
        self._control.close()
        self._runtime.close()


class OrderGrid(Grid):
    """Flower's Grid for one claimed task: the admitted stations, no sleeping, errors by name."""

    def __init__(self, address: Address, token: str, doorbells: Doorbells | None = None) -> None:
        self._doorbells = doorbells
        self._client = _use_own_http(
            RuntimeHttpClient(address.url, interceptors=[RuntimeTokenHttpInterceptor(token)]), address
        )
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._run = Run.create_empty(0)
        self._unfinished: dict[str, tuple[ProtoMessage, ObjectTree]] = {}
        self._unconfirmed: list[str] = []
        # One call costs the SuperLink about 5 ms, most of it waiting: some at once.
        self._calls = ThreadPoolExecutor(4, thread_name_prefix="grid-call")

    def start_task(self) -> Context:
        """Start the claimed task. Answers once per task: after that, `resume_task`."""
        response = _call_as_task(lambda: self._client.PullTaskInput(PullTaskInputRequest()))
        self.resume_task(int(response.task_id), int(response.run.run_id))
        return context_from_proto(response.context)

    def resume_task(self, task_id: int, run_id: int) -> None:
        """Go on with a task that an earlier process started."""
        TaskIdentity.task_id = task_id
        TaskIdentity.run_id = run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._run = Run.create_empty(run_id)

    def heartbeat(self) -> None:
        """Extend the task's lease by 60 s.

        Raises:
            LeaseLostError: it has run out.
        """
        if not _call_as_task(lambda: self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())).success:
            raise LeaseLostError("the SuperLink does not extend the task's lease")

    def finish_task(self, *, completed: bool) -> None:
        """Say that the task is done, which ends the Flower run."""
        sub_status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        # Details would be text of ours in Flower's database: the run's folder has them.
        request = PushTaskOutputRequest(sub_status=sub_status, details="")
        _call_as_task(lambda: self._client.PushTaskOutput(request))

    def set_run(self, run: Run) -> None:
        """Take the run as it is."""
        self._run = run

    @property
    def run(self) -> Run:
        """The Flower run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message of this run."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online now."""
        response = _call_as_task(lambda: self._client.GetNodes(GetNodesRequest()))
        return [int(node.node_id) for node in response.nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages with their objects; an empty id where one was not taken."""
        protos: list[ProtoMessage] = []
        trees: list[ObjectTree] = []
        contents: dict[str, bytes] = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                protos.append(message_to_proto(remove_content_from_message(message)))
                trees.append(get_object_tree(message))
                contents.update(
                    {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
                )
        if not protos:
            return []
        request = PushAppMessagesRequest(messages_list=protos, message_object_trees=trees)
        response = _call_as_task(lambda: self._client.PushMessages(request))
        session_id = response.session_id

        def push(object_id: str) -> None:
            self._push_object(session_id, object_id, contents[object_id])

        # A station takes a message by its innermost object and may confirm it at once, which deletes all three: the
        # innermost go last. Messages of one content share it, named once for each: it goes once.
        wanted = dict.fromkeys(response.objects_to_push)
        innermost = {leaf for tree in trees for leaf in _leaves(tree)}
        for part in (
            [key for key in wanted if key not in innermost],
            [key for key in wanted if key in innermost],
        ):
            for _ in self._calls.map(push, part):
                pass
        if self._doorbells is not None:
            # All of it is there: who looks now finds it whole.
            self._doorbells.ring({proto.metadata.dst_node_id for proto in protos})
        return list(response.message_ids)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are complete now. One that is still being sent waits, and holds up no other."""
        # A reply is handed out once; asked for again while its objects are on their way, Flower would call it lost.
        on_the_way = {proto.metadata.reply_to_message_id for proto, _ in self._unfinished.values()}
        wanted = [message_id for message_id in message_ids if message_id not in on_the_way]
        if wanted:
            request = PullAppMessagesRequest(message_ids=wanted)
            response = _call_as_task(lambda: self._client.PullMessages(request))
            for proto, tree in zip(response.messages_list, response.message_object_trees, strict=False):
                self._unfinished[proto.metadata.message_id] = (proto, tree)
        complete: list[Message] = []
        waiting = list(self._unfinished.items())
        found = self._calls.map(lambda item: self._completed(*item[1]), waiting)
        for (message_id, _), message in zip(waiting, found, strict=True):
            if message is not None:
                del self._unfinished[message_id]
                self._unconfirmed.append(message_id)
                complete.append(message)
        if not complete and self._unconfirmed:
            # While stations compute: the SuperLink's copies can go.
            self._confirm(self._unconfirmed.pop())
        return complete

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Not offered: the rounds wait in their own way, each station under its own deadline."""
        raise LookupError("send_and_receive is not offered; use push_messages and pull_messages")

    def close(self) -> None:
        """Drop the connection."""
        self._calls.shutdown(wait=True)
        self._client.close()

    def _push_object(self, session_id: str, object_id: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=self._node,
            run_id=self._run.run_id,
            object_id=object_id,
            object_content=content,
            session_id=session_id,
        )
        if not _call_as_task(lambda: self._client.PushObject(request)).stored:
            raise SuperLinkDownError("the SuperLink did not store an instruction's object")

    def _completed(self, proto: ProtoMessage, tree: ObjectTree) -> Message | None:
        """The whole reply, or an error in its place when it cannot be read; None while it is still being sent.

        Of the three objects that Flower keeps a message as, only the innermost says something new.
        """
        chain = [tree]
        while len(chain[-1].children) == 1 and len(chain) <= MAX_REPLY_OBJECTS:
            chain.append(chain[-1].children[0])
        if chain[-1].children:
            return _unreadable(proto)
        object_id = chain[-1].object_id
        request = PullObjectRequest(node=self._node, run_id=self._run.run_id, object_id=object_id)
        response = _call_as_task(lambda: self._client.PullObject(request))
        if not response.object_found or len(response.object_content) > _MAX_REPLY_OBJECT_BYTES:
            return _unreadable(proto)
        if not response.object_available:
            return None
        return _read_reply(proto, len(chain), bytes(response.object_content))

    def _confirm(self, message_id: str) -> None:
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=self._run.run_id, message_object_id=message_id
        )
        _call_as_task(lambda: self._client.ConfirmMessageReceived(request))


def _leaves(tree: ObjectTree) -> list[str]:
    return [leaf for child in tree.children for leaf in _leaves(child)] if tree.children else [tree.object_id]


def _read_reply(proto: ProtoMessage, depth: int, content: bytes) -> Message:
    metadata = metadata_from_proto(proto.metadata)
    try:
        if depth == MAX_REPLY_OBJECTS:
            # Refuses every other class than this one, which parses protobuf and nothing else.
            return make_message(metadata, content=RecordDict({RECORD_KEY: ConfigRecord.inflate(content)}))
        if depth == 1:
            # A message without content: Flower's own word about a node or a lost reply.
            return make_message(metadata, error=Message.inflate(content).error)
    except (UnexpectedObjectContentError, DecodeError, ValueError, KeyError, TypeError, IndexError):
        return _unreadable(proto)
    return _unreadable(proto)


def _unreadable(proto: ProtoMessage) -> Message:
    return make_message(
        metadata=metadata_from_proto(proto.metadata),
        error=Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="the reply cannot be read"),
    )


def _call_as_task(call: Callable[[], _Result]) -> _Result:
    try:
        return _call(call)
    except SuperLinkRefusedError as error:
        raise LeaseLostError(error.message) from None


_Client = TypeVar("_Client", ControlHttpClient, RuntimeHttpClient)


def _use_own_http(client: _Client, address: Address) -> _Client:
    client.close()
    client._client = httpx.Client(  # noqa: SLF001 - the pinned version has no other way to forbid redirects
        verify=ssl.create_default_context(cafile=str(address.ca_path)),
        timeout=httpx.Timeout(30.0, connect=5.0),
        follow_redirects=False,
        trust_env=False,
    )
    return client


def _call(call: Callable[[], _Result]) -> _Result:
    try:
        return call()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        # flwr 1.41.0, supercore/error/catalog.py: 401 token unknown, 403 not running, 404 run unknown, 412 task over.
        if status in {401, 403, 404, 412}:
            raise SuperLinkRefusedError(f"the SuperLink refused ({status})") from None
        raise SuperLinkDownError(f"the SuperLink answered {status}") from None
    except httpx.TransportError as error:
        raise SuperLinkDownError(f"the SuperLink does not answer ({type(error).__name__})") from None
    except (DecodeError, ValueError) as error:
        raise SuperLinkDownError(f"the SuperLink's answer makes no sense ({type(error).__name__})") from None
