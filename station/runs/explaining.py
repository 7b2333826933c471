"""Every rule with its verdict about an order now, in the operator's words; nothing is decided here, and nothing changes by it."""

from dataclasses import dataclass

from policies.errors import PhtError, RefusedError, UnavailableError
from policies.manifest import TrainManifest
from policies.policy import Policy
from policies.profiles.anonymity import Anonymity
from policies.refusals import Permitted, Reason, RefusalCode, Refused
from policies.rules.gpu_rules import GpuWish, gpu_wish
from station.admission.gatekeeper import Gatekeeper, VerifiedOrder
from station.catalogue.anonymity import in_words
from station.runs.places import run_id
from station.runs.repository import Run
from station.runs.warm import WarmRuns
from station.sandbox.spec import Launcher
from station.settings import StationSettings
from station.web.views import AnonymityView, ReasonView, RuleView


@dataclass(frozen=True, slots=True)
class Explaining:
    """Asks every rule, of board, hospital, consent, data and resources."""

    settings: StationSettings
    gatekeeper: Gatekeeper
    warm: WarmRuns
    launcher: Launcher

    def rules_of(self, run: Run) -> list[RuleView]:
        """Return every rule with its verdict now; the first that stands in the way of asking the others is the last."""
        verified = self.gatekeeper.verify(run.envelope, fresh=False)
        if isinstance(verified, Refused):
            return [_rule("policy repository and signatures", verified.reasons)]
        rules = [_rule("policy repository and signatures", ())]
        manifest = self._manifest(verified.value)
        if isinstance(manifest, Refused):
            return [*rules, _rule("train", manifest.reasons)]
        table = self._table(run, verified.value, manifest.value)
        # Those with every consent and an image, of the splits that this train is given; some may still lack a label.
        patients = None if isinstance(table, Refused) else table.patients
        verdicts = self.gatekeeper.explain(run, verified.value, manifest.value, patients)
        rules += [_rule(verdict.rule, verdict.reasons) for verdict in verdicts]
        return [
            *rules,
            self._anonymity_rule(table),
            self._resources_rule(run, verified.value, manifest.value),
            _error_codes(verified.value.in_force.policy, manifest.value),
        ]

    def anonymity_of(self, run: Run) -> AnonymityView:
        """Return the k-anonymity of the clinical table that an order's train would see now.

        Raises:
            RefusedError: it would get no cohort at all.
        """
        verified = self.gatekeeper.verify(run.envelope, fresh=False)
        manifest = self._manifest(verified.value) if isinstance(verified, Permitted) else verified
        if isinstance(verified, Refused) or isinstance(manifest, Refused):
            raise _would_get_none(verified if isinstance(verified, Refused) else manifest)
        table = self._table(run, verified.value, manifest.value)
        if isinstance(table, Refused):
            raise _would_get_none(table)
        return AnonymityView(
            k=table.k,
            wanted=table.wanted,
            patients=table.patients,
            classes=table.classes,
            patients_below=table.patients_below,
            enforced=self.settings.hospital.minimum_k is not None,
        )

    def _table(self, run: Run, verified: VerifiedOrder, manifest: TrainManifest) -> Anonymity | Refused:
        used = self.gatekeeper.would_use(run, verified, manifest)
        return used if isinstance(used, Refused) else self.warm.anonymity(*used.value)

    def _anonymity_rule(self, table: Anonymity | Refused) -> RuleView:
        if isinstance(table, Refused):
            # Another rule says why there is no cohort; this one has nothing to look at.
            return _rule("anonymity", (), "no cohort to look at")
        minimum = self.settings.hospital.minimum_k
        if minimum is not None and table.k < minimum:
            return _rule("anonymity", (Reason(RefusalCode.DATA_ANONYMITY, in_words(table)),))
        return _rule("anonymity", (), in_words(table))

    def _resources_rule(self, run: Run, verified: VerifiedOrder, manifest: TrainManifest) -> RuleView:
        """Say whether a container could be started for this order just now."""
        held, places = len(self.warm.orders() - {run.order_digest}), self.settings.ceilings.runs_at_once
        reasons = []
        if held >= places:
            reasons.append(Reason(RefusalCode.RESOURCES_BUSY, f"{held} of {places} places are taken"))
        try:
            unfit = self.launcher.engine_info().unfit
        except (RefusedError, UnavailableError) as error:
            reasons.append(Reason(RefusalCode.ENGINE_UNAVAILABLE, error.message))
        else:
            if unfit:
                reasons.append(Reason(RefusalCode.ENGINE_UNFIT, f"cannot enforce: {', '.join(unfit)}"))
            reasons += self._gpu_reasons(run, gpu_wish(verified.order, manifest, verified.in_force.policy))
        return _rule("resources", tuple(reasons), f"{held} of {places} places are taken")

    def _gpu_reasons(self, run: Run, wish: GpuWish | None) -> list[Reason]:
        """Say whether a GPU could be leased just now; whether the station has one at all is the hospital's rule."""
        if wish is None or not wish.required:
            return []
        mine, now = run_id(run), {"free", "scrubbing", "unclean"}
        try:
            devices = self.launcher.gpus().devices
        except (RefusedError, UnavailableError) as error:
            return [Reason(RefusalCode.ENGINE_UNAVAILABLE, error.message)]
        large = [each for each in devices if each.memory_mib >= wish.memory_mib]
        if any(each.state in now or each.run_id == mine for each in large):
            return []
        return [Reason(RefusalCode.RESOURCES_BUSY, "no GPU that is large enough is free")]

    def _manifest(self, verified: VerifiedOrder) -> Permitted[TrainManifest] | Refused:
        try:
            return self.gatekeeper.manifest(verified)
        except PhtError as error:
            return Refused.because(RefusalCode.IMAGE_UNAVAILABLE, error.message)


def _would_get_none(refused: Refused | Permitted[TrainManifest]) -> RefusedError:
    code = refused.code if isinstance(refused, Refused) else RefusalCode.DATA_NOT_READY
    return RefusedError(
        code.value, "this order would get no cohort now", hint="`pht-station explain` says why."
    )


def _error_codes(policy: Policy, manifest: TrainManifest) -> RuleView:
    """Say which of the train's own error codes would leave; it refuses nothing."""
    granted = [code for code in manifest.error_codes if code in policy.release.error_codes]
    kept = [code for code in manifest.error_codes if code not in granted]
    note = f"leave: {', '.join(granted) or 'none'}"
    return _rule("error codes", (), f"{note}; stay here: {', '.join(kept)}" if kept else note)


def _rule(name: str, reasons: tuple[Reason, ...], note: str = "") -> RuleView:
    return RuleView(
        rule=name,
        verdict="no" if reasons else "yes",
        reasons=[ReasonView(code=reason.code.value, detail=reason.detail) for reason in reasons],
        note=note,
    )
