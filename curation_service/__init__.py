"""The gRPC service: sets statuses in batches, lists items, streams what becomes of them.

`servicer` has a method for each call, `app` puts it all together. The way of the three that matter most:

- an update: `batch_request` → `batch_update` → `shared.db.curate`, by way of `update_groups` if it is of one item
- a list: `item_requests` with `filters` and `ordering` → `listing` → `messages`
- a watch: `watch_request` → `snapshot` of `selected_rows` → `watch`, which `fanout` wakes → `event_frames`; beside
  events, `progress` measures a batch, `states` reads the workflow, and `matches` asks the database about a filter

What a caller did wrong is collected by `violations`, raised, and mapped by `interceptor` and `rpc_errors`. With NATS,
`relay` reads the log for all replicas, and `backbone_tail` hears it.
"""
