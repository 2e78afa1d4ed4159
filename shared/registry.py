"""Finds workflows by entry point, this project's two and anybody's alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from shared.errors import UnknownResource, WorkflowError
from shared.workflow import Workflow

ENTRY_POINT_GROUP = "curation.workflows"


class Registry(Mapping[str, Workflow]):
    """Workflows by resource; built once in an `app` and passed on."""

    def __init__(self, *workflows: Workflow) -> None:
        """Raises `WorkflowError` when two workflows claim one resource or one source table."""
        self._by_resource: dict[str, Workflow] = {}
        tables: set[str] = set()
        for workflow in workflows:
            if workflow.resource in self._by_resource or workflow.source.fullname in tables:
                raise WorkflowError(workflow.resource, "another workflow has this resource or source table")
            self._by_resource[workflow.resource] = workflow
            tables.add(workflow.source.fullname)

    def __getitem__(self, resource: str) -> Workflow:
        """The workflow of a resource. Raises `UnknownResource` (not `KeyError`: a caller of the API reads it)."""
        try:
            return self._by_resource[resource]
        except KeyError:
            raise UnknownResource(resource, list(self._by_resource)) from None

    def __contains__(self, resource: object) -> bool:
        return resource in self._by_resource

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_resource)

    def __len__(self) -> int:
        return len(self._by_resource)


def load_registry() -> Registry:
    """Every workflow that an installed package declares under `curation.workflows`.

    Raises:
        WorkflowError: an entry point cannot be loaded, does not name a `Workflow`, or two collide.
    """
    workflows: list[Workflow] = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        try:
            workflow = entry_point.load()
        except WorkflowError:
            raise
        except Exception as error:
            problem = f"{entry_point.value} cannot be loaded: {type(error).__name__}: {error}"
            raise WorkflowError(entry_point.name, problem) from error
        if not isinstance(workflow, Workflow):
            raise WorkflowError(entry_point.name, f"{entry_point.value} is no Workflow")
        workflows.append(workflow)
    return Registry(*workflows)
