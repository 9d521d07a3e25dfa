"""The only room that talks HTTP.

    calls         client, resources, view, options, config
    one call      opening, exchange (attempts, errors), build, request, url, headers, body
    answers       reply, parsing, response, stream, paging
    two ways      ways: directly, or by httpx's client with bodies that stream (bodies)
    connections   lanes, pool, slots, connection, head, answer, streams, tls, proxy
    keys          auth, authority, credential_file
    no network    inprocess, asgi: the embedded service in the same process
    heartbeat     beats from a thread of its own
    http          what the rest of the package needs

Whether something is sent again, when a token is renewed, and the like, is decided in `protocol`.
"""
