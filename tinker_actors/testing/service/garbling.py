"""Answers that are none."""

from __future__ import annotations

import attrs

from .reply import JSON, ReplyPlan

__all__ = ["garbled"]

_HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"


def garbled(plan: ReplyPlan, form: str) -> ReplyPlan:
    """Return a plan whose body is not what was asked for, in one of the forms of `ServiceFaults.garbage`."""
    match form:
        case "html":
            return attrs.evolve(plan, status=200, headers=(("content-type", "text/html"),), body=_HTML)
        case "truncated":  # in whatever form it was, JSON or protobuf; its length is that of what is left
            return attrs.evolve(plan, status=200, body=plan.body[: max(1, len(plan.body) * 2 // 3)])
        case "wrong_type":
            headers = tuple(
                ("content-type", "text/plain") if name == "content-type" else (name, value)
                for name, value in plan.headers
            )
            return attrs.evolve(plan, headers=headers)
        case "wrong_shape":
            return attrs.evolve(
                plan, status=200, headers=(("content-type", JSON),), body=b'["unexpected",{"answer":42}]'
            )
        case "empty":
            return attrs.evolve(plan, status=200, body=b"")
        case _:
            return attrs.evolve(
                plan, status=200, headers=(("content-type", JSON),), body=b'{"request_id": \x00\xff'
            )
