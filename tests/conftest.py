"""The fixtures that every kind of test may ask for."""

pytest_plugins = ["tests.support.chaos", "tests.support.postgres", "tests.support.service", "tests.support.worker"]
