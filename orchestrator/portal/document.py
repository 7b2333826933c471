"""What the OpenAPI document says of every route alike: the one error shape, who may ask, and when to come back.

FastAPI writes the document from the routes; its own form of a validation error is not ours, and leaves it here.
"""

from typing import Any, Final

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details, of every error.",
    "required": ["type", "status", "code", "title"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {
            "type": "string",
            "description": "A refusal's code (see the catalogue of refusals), or the kind of error.",
        },
        "title": {"type": "string"},
        "hint": {"type": "string", "description": "What to do about it."},
    },
}
_REF: Final = {"$ref": "#/components/schemas/Problem"}
_CONTENT: Final = {"application/problem+json": {"schema": _REF}}
_COMMON: Final[dict[str, dict[str, Any]]] = {
    "429": {
        "description": "Too many requests; come back after Retry-After.",
        "headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}},
        "content": _CONTENT,
    },
    "4XX": {"description": "Not as it was asked.", "content": _CONTENT},
    "5XX": {"description": "The orchestrator cannot, now.", "content": _CONTENT},
}
_WHO: Final[dict[str, dict[str, Any]]] = {
    "401": {"description": "No proof of who asks, or none that holds.", "content": _CONTENT},
    "403": {"description": "Not for this role.", "content": _CONTENT},
}
_SCHEMES: Final[dict[str, Any]] = {
    "token": {"type": "http", "scheme": "bearer", "description": "`pht-orchestrator token new`"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "PHT-Signature",
        "description": "A station's request, signed with its node key: policies/wire/http.py.",
    },
}
_METHODS: Final = ("get", "head", "put", "post", "patch", "delete")


def described(document: dict[str, Any], open_paths: frozenset[str]) -> dict[str, Any]:
    """Complete FastAPI's document, in place.

    Args:
        document: what FastAPI wrote.
        open_paths: whose GET asks nobody who they are.
    """
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for foreign in ("HTTPValidationError", "ValidationError"):
        schemas.pop(foreign, None)
    schemas["Problem"] = PROBLEM
    components["securitySchemes"] = _SCHEMES
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                _complete(item[method], is_open=method == "get" and path in open_paths)
    return document


def body_of(description: str, media_type: str = "application/json") -> dict[str, Any]:
    """Describe a route's body that it reads by itself, for `openapi_extra`."""
    schema = (
        {"type": "string", "format": "binary"} if media_type != "application/json" else {"type": "object"}
    )
    return {
        "requestBody": {
            "required": True,
            "description": description,
            "content": {media_type: {"schema": schema}},
        }
    }


def _complete(operation: dict[str, Any], *, is_open: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses.update(_COMMON if is_open else _WHO | _COMMON)
    operation["security"] = [] if is_open else [{name: []} for name in _SCHEMES]
