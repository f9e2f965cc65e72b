"""Alembic's entry point; `store.migrate` hands it the connection and owns the transaction."""

from alembic import context

from achelous_controller.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
