"""The operator's desk: implements `station.web.views.Desk` on the station's state."""

import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from policies.documents import digest_of_file
from policies.errors import NotFoundError, PhtError, RefusedError, StateError, UnavailableError, UsageError
from policies.order import unverified_order
from policies.refusals import Permitted, RefusalCode, Refused
from policies.trust.policy_set import PolicySet
from policies.wire.instructions import decode_reply
from station.admission.gatekeeper import Gatekeeper
from station.agent.loop import Agent
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue.catalogue import Catalogue
from station.egress.records.releases import ReleaseStore, StoredRelease
from station.evidence.collecting import EvidenceCollector
from station.runs.chains import Chains, chain_view
from station.runs.explaining import Explaining
from station.runs.repository import Run, RunRepository
from station.runs.states import HOLDS_RESOURCES, Decision, RunState
from station.runs.usage import UsageRecords
from station.runs.warm import WarmRuns
from station.sandbox.spec import Launcher
from station.settings import StationSettings
from station.web.views import (
    AnonymityView,
    ChainView,
    CollectionView,
    ReasonView,
    ReleaseView,
    RuleView,
    RunView,
    StatusView,
)

_WORDS = {"approve": Decision.APPROVED, "hold": Decision.HELD, "stop": Decision.STOPPED}


@dataclass(frozen=True, slots=True)
class StationDesk:
    """What the operator can see and say."""

    settings: StationSettings
    gatekeeper: Gatekeeper
    catalogue: Catalogue
    run_repository: RunRepository
    warm: WarmRuns
    release_store: ReleaseStore
    audit: AuditLog
    chains: Chains
    launcher: Launcher
    agent: Agent
    collector: EvidenceCollector

    def status(self) -> StatusView:
        """How the station is: never fails because one of its parts does not answer."""
        policies = self._policies()
        handover = self.take_up()
        consent = self.catalogue.consent_state()
        contact = self.agent.last_contact
        return StatusView(
            station=self.settings.name,
            orchestrator_contact=None if contact is None else datetime.fromtimestamp(contact, UTC),
            engine=self._engine(),
            gpus=self._gpus(),
            policies="verified" if isinstance(policies, Permitted) else policies.code.value,
            policy_count=len(policies.value.policies) if isinstance(policies, Permitted) else 0,
            consent_sequence=None if consent is None else consent.sequence,
            consent_source=None if consent is None else consent.source_date,
            handover=handover,
            runs_active=len(self.run_repository.list(HOLDS_RESOURCES)),
            separation=self.settings.services.separation,
            records="good" if (reason := self.gatekeeper.records_reason()) is None else reason.code.value,
        )

    def runs(self) -> list[RunView]:
        """Every order this station has seen."""
        return [self._view(run) for run in self.run_repository.list()]

    def decide(self, order: str, word: Literal["approve", "hold", "stop"], actor: str) -> RunView:
        """Record the operator's word."""
        self._run(order)
        name = re.sub(r"[^A-Za-z0-9_.@-]", "_", actor)[:100]

        def record() -> Run:
            try:
                return self.run_repository.decide(order, _WORDS[word], name or "unknown")
            except StateError as error:
                raise UsageError(error.message, hint=error.hint) from error

        if word == "approve":
            return self._view(record())
        return self._view(self.warm.stop(order, record))

    def explain(self, order: str) -> list[RuleView]:
        """Every rule with its verdict now."""
        return self._explaining.rules_of(self._run(order))

    def anonymity(self, order: str) -> AnonymityView:
        """The k-anonymity of the clinical table that an order's train would see now."""
        return self._explaining.anonymity_of(self._run(order))

    @property
    def _explaining(self) -> Explaining:
        return Explaining(self.settings, self.gatekeeper, self.warm, self.launcher)

    def releases(self) -> list[ReleaseView]:
        """Everything that left."""
        return [self._release(stored) for stored in self.release_store.list()]

    def _release(self, stored: StoredRelease) -> ReleaseView:
        entry = self.release_store.entry_of(stored)
        told = {} if stored.purged is not None else decode_reply(stored.reply).metrics
        run = self.run_repository.get(stored.order_digest)
        return ReleaseView(
            order=stored.order_digest,
            policy=stored.policy_id,
            round=stored.round,
            stage=stored.stage,
            digest=stored.arrays_digest,
            size=entry.size + (stored.arrays_size or 0),
            metrics={key: float(value) for key, value in told.items()},
            suppressed=[],
            released=stored.recorded,
            type=entry.type.value,
            reply_digest=entry.digest,
            reply_size=entry.size,
            run="" if run is None else run.correlation_id,
            rules_digest=entry.rules_digest,
            purged=stored.purged,
            capacity_bits=entry.capacity_bits,
        )

    def payload(self, order: str, round_: int, stage: str, part: Literal["reply", "arrays"]) -> bytes | Path:
        """The very bytes that left; audited first."""
        found = [
            stored
            for stored in self.release_store.list(order)
            if (stored.round, stored.stage) == (round_, stage)
        ]
        if not found or (part == "arrays" and found[0].arrays_digest is None):
            raise NotFoundError("there is no such release", hint="`pht-station releases list` lists them.")
        (stored,) = found
        if stored.purged is not None:
            raise RefusedError(
                RefusalCode.RELEASE_PURGED.value,
                "what was released is kept no longer",
                hint="egress.keep_days says how long; the ledger keeps its digest and size.",
            )
        self.audit.append(
            AuditRecord(
                event=AuditEvent.AUDIT_EXPORTED,
                actor="operator:desk",
                object=order,
                numbers={"round": round_},
                detail=f"the {part} of stage {stage} as it left",
            )
        )
        return stored.reply if stored.arrays is None or part == "reply" else stored.arrays

    def collections(self) -> list[CollectionView]:
        """What the station holds."""
        self.take_up()
        return [
            CollectionView(name=c.collection, patients=c.patients, studies=c.studies, images=c.images)
            for c in self.catalogue.collections()
        ]

    def logs(self, order: str) -> str:
        """What the train printed."""
        run = self._run(order)
        self.audit.append(
            AuditRecord(
                event=AuditEvent.LOGS_SHOWN,
                actor="operator:desk",
                on_behalf_of=run.requester,
                purpose=run.purpose,
                object=run.order_digest,
            )
        )
        return self.warm.logs(run.order_digest)

    def verify(self, chain: Literal["audit", "egress"]) -> ChainView:
        """Check a chain from its first entry."""
        return chain_view(chain, self.chains.verify(chain))

    def export(self, chain: Literal["audit", "egress"]) -> bytes:
        """The chain as JSON lines, with a signed head; audited."""
        self.audit.append(
            AuditRecord(event=AuditEvent.AUDIT_EXPORTED, actor="operator:desk", object=f"chain:{chain}")
        )
        return self.chains.export(chain)

    def evidence(self, order: str) -> Path:
        """Write the evidence pack of an order's run; audited before it leaves the station's hands."""
        run = self._run(order)
        descriptor, name = tempfile.mkstemp(dir=self.chains.work, prefix=".evidence-", suffix=".zip")
        os.close(descriptor)
        path = Path(name)
        try:
            self.collector.collect(run.order_digest, path)
            self.audit.append(
                AuditRecord(
                    event=AuditEvent.EVIDENCE_EXPORTED,
                    actor="operator:desk",
                    # The pack's digest, not the order's: the pack tells of the run, and this is no part of it.
                    object=digest_of_file(path),
                    numbers={"bytes": path.stat().st_size},
                    detail=f"evidence of order {run.order_digest}",
                )
            )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def usage(self, policy: str | None) -> bytes:
        """Whose data were used in which study, by pseudonym, signed; audited."""
        chains = self.chains
        records = UsageRecords(chains.station, chains.database, self.audit, chains.identity, chains.clock)
        return records.export(policy)

    def _policies(self) -> Permitted[PolicySet] | Refused:
        try:
            return self.gatekeeper.policy_set(fresh=False)
        except PhtError as error:
            return Refused.because(RefusalCode.TRUST_UNVERIFIED, error.message)

    def take_up(self) -> str:
        """Take up what intake handed over, and say how that went."""
        try:
            self.catalogue.sync()
        except PhtError as error:
            return error.message
        return "taken up"

    def _engine(self) -> str:
        try:
            info = self.launcher.engine_info()
        except (RefusedError, UnavailableError) as error:
            return error.message
        unfit = f" cannot enforce: {', '.join(info.unfit)}" if info.unfit else ""
        return f"{info.name} {info.version}{unfit}"

    def _gpus(self) -> str:
        if not self.settings.gpu.devices:
            return "none are offered"
        try:
            report = self.launcher.gpus()
        except (RefusedError, UnavailableError) as error:
            return error.message
        if report.problem:
            return report.problem
        offered = [each for each in report.devices if each.state != "not-offered"]
        free = sum(each.state == "free" for each in offered)
        return f"{free} of {len(offered)} free, driver {report.driver or 'none'}"

    def _run(self, order: str) -> Run:
        run = self.run_repository.get(order)
        if run is None:
            raise NotFoundError("no such order at this station", hint="`pht-station runs` lists them.")
        return run

    def _view(self, run: Run) -> RunView:
        order = unverified_order(run.envelope)
        policies = self._policies()
        found = (
            policies.value.find(run.policy_id, run.policy_version)
            if isinstance(policies, Permitted)
            else policies
        )
        policy = found.value.policy if isinstance(found, Permitted) else None
        return RunView(
            order=run.order_digest,
            policy=run.policy_id,
            version=run.policy_version,
            title=policy.title if policy else "(no policy in force)",
            requester=policy.requester.organisation if policy else "",
            state=run.state.value,
            operator="pending" if run.state is RunState.WAITING_OPERATOR else run.decision.value,
            rounds=order.rounds,
            stages=list(order.stages),
            releases=len(self.release_store.list(run.order_digest)),
            failures=run.failures,
            reasons=[ReasonView(code=run.code, detail="")] if run.code else [],
            correlation_id=run.correlation_id,
            seen=run.first_seen,
        )
