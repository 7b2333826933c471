"""Run by Alembic: migrates over the connection that `station.storage.database` hands it, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
