"""The gRPC service: sets statuses in batches, lists items, streams what becomes of them."""
