"""What predictions were kept, and which of them went again."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from station.storage.schema import Base, UtcTime


class PredictionRow(Base):
    """One object, written once per order, round, case and prediction; its row stays when the object goes (triggers hold that).

    Attributes:
        case: in the project.
        patient: the project's pseudonym.
        purposes: what the patient had to agree to, joined by spaces.
        sources: digests of the pseudonymised files that it lies on.
        file: where it lies in the hospital's folder.
        removed: when it went; None while it is there.
        why: a word of ours.
    """

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("order_digest", "round", "case", "name"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    order_digest: Mapped[str] = mapped_column(String(71), ForeignKey("orders.order_digest"))
    round: Mapped[int]
    case: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    policy_id: Mapped[str] = mapped_column(String(64))
    patient: Mapped[str] = mapped_column(String(32), index=True)
    purposes: Mapped[str] = mapped_column(String(256))
    sources: Mapped[list[str]] = mapped_column(JSON)
    file: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(71))
    size_bytes: Mapped[int]
    kept: Mapped[datetime] = mapped_column(UtcTime)
    removed: Mapped[datetime | None] = mapped_column(UtcTime)
    why: Mapped[str | None] = mapped_column(String(16))
