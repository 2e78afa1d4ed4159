"""The process that claims queued items, runs their enrichers, and saves what came of it in batches.

An item's way: `claimer` → `runner` → `completer`, sharing one `lane` per workflow. `app` puts it all together.
"""
