"""The client for threads has the calls of the client for asyncio, and nobody has to learn both."""

from __future__ import annotations

from inspect import Signature, signature

from curation.v1 import curation_pb2
from curation_client import aio, sync


def calls(client: type) -> dict[str, str]:
    """The parameters of each method, by its name."""
    methods = {name: signature(method) for name, method in vars(client).items() if callable(method)}
    return {
        name: str(found.replace(return_annotation=Signature.empty))
        for name, found in methods.items()
        if not name.startswith("_") or name == "__init__"
    }


def test_both_clients_have_the_same_calls_with_the_same_parameters() -> None:
    assert calls(sync.CurationClient) == calls(aio.CurationClient)


def test_each_call_of_the_service_has_its_method() -> None:
    service = curation_pb2.DESCRIPTOR.services_by_name["CurationService"]
    words = {"BatchUpdateStatus": "set_status", "WatchStatus": "watch"}
    named = {
        words.get(name) or "".join(f"_{c}" if c.isupper() else c for c in name).lower()[1:]
        for name in service.methods_by_name
    }
    assert named <= calls(aio.CurationClient).keys()
