"""The machinery's tables, step by step, by Alembic. Workflows' tables are their authors' own."""
