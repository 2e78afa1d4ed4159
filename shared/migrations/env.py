"""Alembic's hook: runs the steps on the connection that `shared.db.migrate` opened, in its transaction."""

from __future__ import annotations

from alembic import context

from shared.db.models import machinery

context.configure(target_metadata=machinery, **context.config.attributes)
context.run_migrations()
