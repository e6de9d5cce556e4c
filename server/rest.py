"""The hinge between HTTP and the funnel: one handler serves every route of the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import hdrs, web

from handlers.blobs import Blob, Stream
from handlers.context import Context
from handlers.registry import Catalogue, Route
from handlers.services import Services
from handlers.shapes import unclean
from models.auth.apikeys.rules import PREFIX
from models.errors import Refusal
from server.addresses import client_address
from server.blobs import REVALIDATE, known, pour, serve
from server.clock import SystemClock
from server.funnel import Answer, Funnel, fault
from server.metrics import REQUESTS
from server.packets import too_deep_or_large
from server.proofs import note_misuse, note_stranger
from server.security import REQUEST_ID
from server.uploads import upload_of

BODY_MAX = 256 * 1024
# What somebody was refused with who had shown no good token, at a door that is not a gateway's.
STRANGER = web.RequestKey("stranger", str)
DEVICE_ID_MAX = 64
# Fields that are read from a body only, in small letters and without ``_``: proxies and browsers keep addresses.
NEVER_IN_ADDRESSES = frozenset(
    "password currentpassword newpassword pin currentpin oldpin newpin transactionpin totp recoverycode code "
    "refreshtoken accesstoken idtoken devicetoken token".split()
)

Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


def add_routes(
    app: web.Application, catalogue: Catalogue, services: Services, funnel: Funnel, *, proxy_hops: int
) -> None:
    """Give every route of the catalogue, under all its names, to aiohttp."""
    for route in catalogue.routes:
        handler = _handler(route, services, funnel, proxy_hops)
        for path in (route.path, *route.also):
            app.router.add_route(route.method, path, handler)
            if route.blob:
                app.router.add_route(hdrs.METH_HEAD, path, handler)


def _handler(route: Route, services: Services, funnel: Funnel, proxy_hops: int) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if funnel.draining:
                raise Refusal("SERVER_DRAINING")
            ctx = await _context(request, route, services, proxy_hops)
            if route.body == "json":
                payload = await _payload(request)
            else:
                payload = {**request.query, **request.match_info}
                ctx = await _with_body(ctx, request, route)
        except Exception as error:
            no = error if isinstance(error, Refusal) else fault(error, route.path)
            name, address = f"{route.method} {route.path}", client_address(request, proxy_hops)
            REQUESTS.labels(name, no.code).inc()
            note_stranger(name, no, address)
            note_misuse(name, no.code, "", address, SystemClock.monotonic())
            if route.body != "raw":
                request[STRANGER] = no.code
            return answer_with(Answer(refusal=no), request)
        key = request.headers.get("Idempotency-Key")
        answer = await funnel.run(route, ctx, payload, key=key)
        if answer.refusal is not None and not ctx.user_id and route.body != "raw":
            request[STRANGER] = answer.refusal.code
        if isinstance(answer.data, Stream):
            return await pour(answer.data, request)
        if isinstance(answer.data, Blob):
            return await _file(answer.data, request)
        if route.etag and answer.refusal is None:
            return _tagged(answer, request, status=route.status)
        return answer_with(answer, request, status=route.status)

    return handle


async def _context(request: web.Request, route: Route, services: Services, proxy_hops: int) -> Context:
    address = client_address(request, proxy_hops)
    request_id = request.get(REQUEST_ID, "")
    if route.public:
        return Context(services=services, address=address, request_id=request_id, extra=_extra(request))
    header = request.headers.get("Authorization", "")
    token = header[7:] if header[:7].lower() == "bearer " else None
    if token is not None and token.startswith(PREFIX):
        key = await services.accounts.api_keys.admit(token, route.scope)
        return Context(
            services=services,
            user_id=key.user_id,
            session_id=f"key:{key.id}",
            device_id=f"key:{key.id}",
            address=address,
            request_id=request_id,
            extra=_extra(request),
        )
    identity = await services.accounts.authenticate(token)
    device = request.headers.get("X-Device-Id", "")
    return Context(
        services=services,
        user_id=identity.user_id,
        session_id=identity.session_id,
        device_id=device
        if 0 < len(device) <= DEVICE_ID_MAX and not unclean(device)
        else f"session:{identity.session_id}",
        address=address,
        request_id=request_id,
        role=identity.role,
        extra=_extra(request),
    )


def _extra(request: web.Request) -> dict[str, Any]:
    # Bytes that are no UTF-8 come as halves of characters, which nothing can store.
    agent = request.headers.get("User-Agent", "")[:256].encode(errors="replace").decode()
    return {"user_agent": agent}


async def _with_body(ctx: Context, request: web.Request, route: Route) -> Context:
    """The context with a body that is not ours to read as JSON."""
    if route.body == "raw":
        headers = {name.lower(): value for name, value in request.headers.items()}
        return replace(ctx, raw=await _whole(request), headers=headers)
    return replace(ctx, upload=await upload_of(request))


async def _whole(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal("PAYLOAD_TOO_LARGE") from None


async def _payload(request: web.Request) -> dict[str, Any]:
    """Path, query and body as one object; the path wins over the body, the body over the query."""
    body: Any = {}
    query = _query(request)
    if request.can_read_body:
        raw = await _whole(request)
        if raw:
            body = _json(raw)
    return {**query, **body, **request.match_info}


def _query(request: web.Request) -> dict[str, str]:
    """What an address may say: nothing where a body says it, and never a secret, since addresses are kept."""
    if request.method in (hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_PATCH):
        return {}
    return {
        name: request.query[name]  # the first, where it is said twice
        for name in request.query
        if name.lower().replace("_", "") not in NEVER_IN_ADDRESSES
    }


def _json(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
        code = too_deep_or_large(text, BODY_MAX)
        if code is not None:
            raise Refusal(code)
        body = orjson.loads(text)
    except (UnicodeDecodeError, orjson.JSONDecodeError, RecursionError):
        raise Refusal("BAD_JSON") from None
    if not isinstance(body, dict):
        raise Refusal("VALIDATION_FAILED", _schema=["An object is expected."])
    return body


def answer_with(answer: Answer, request: web.Request, *, status: int = 200) -> web.Response:
    """An HTTP answer: the resource, nothing (204), or the refusal with its status and Retry-After."""
    headers: dict[str, str] = {}
    if answer.refusal is not None:
        no = answer.refusal
        headers |= come_back(no)
        if no.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {"error": no.body(), "requestId": request.get(REQUEST_ID, "")}
        return _response(body, no.status, headers)
    if answer.data is None:
        return web.Response(status=204 if status == 200 else status)
    return _response(answer.data, status, headers)


def come_back(no: Refusal) -> dict[str, str]:
    """The header that says when to come back, where waiting helps: in whole seconds (RFC 9110 §10.2.3)."""
    if no.retry_after_ms is None or no.status not in (403, 429, 503):
        return {}
    return {hdrs.RETRY_AFTER: str(max(1, -(-no.retry_after_ms // 1000)))}


def _tagged(answer: Answer, request: web.Request, *, status: int) -> web.Response:
    """An answer with its entity tag, or 304 when the client has it (RFC 9110 §13.1.2).

    The tag is weak: it says that the resource is the same, whatever a proxy has done to its bytes. A client may keep
    the answer, for itself alone, and asks each time whether it still holds.
    """
    body = orjson.dumps(answer.data)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {hdrs.ETAG: f"W/{tag}", hdrs.CACHE_CONTROL: REVALIDATE, hdrs.VARY: hdrs.AUTHORIZATION}
    if known(request.headers.get(hdrs.IF_NONE_MATCH), tag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _file(blob: Blob, request: web.Request) -> web.StreamResponse:
    try:
        return await serve(blob, request)
    except Refusal as refusal:
        answer = answer_with(Answer(refusal=refusal), request)
        answer.headers[hdrs.CONTENT_RANGE] = f"bytes */{blob.size_bytes}"
        return answer


def _response(body: Any, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )
