"""Alembic's entry: runs the migrations on the connection that `Database.migrate` passes in."""

from alembic import context

from orchestrator.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
context.config.attributes["connection"].commit()
