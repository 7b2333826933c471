"""Alembic's entry: runs the migrations on the connection that `storage.upgrading` passes in, in its transaction."""

from alembic import context

from orchestrator.storage.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
