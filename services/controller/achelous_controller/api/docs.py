"""/docs: the OpenAPI document as one page for people, without anything from elsewhere."""

import json
from html import escape
from typing import Any, Final

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
summary { cursor: pointer; padding: .2rem 0 } code, pre { font-family: ui-monospace, monospace }
pre { background: #8881; padding: .6rem; overflow-x: auto } h2 { margin: 1.6rem 0 .3rem }
.method { display: inline-block; width: 4.5rem; font-weight: 600 } .what { opacity: .7 }
"""


def page(document: dict[str, Any]) -> str:
    """An HTML page that lists every operation with its parameters and examples."""
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation["tags"][0]
            sections.setdefault(tag, []).append(_operation(document, path, method, operation))
    content = "".join(f"<h2>{escape(tag)}</h2>{''.join(ops)}" for tag, ops in sections.items())
    info = document["info"]
    paragraphs = "".join(f"<p>{escape(p)}</p>" for p in info["description"].strip().split("\n\n"))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{paragraphs}"
        f"<p>The same for programs: <a href=/openapi.json>/openapi.json</a></p>{content}</html>"
    )


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', operation['summary']))}</p>"]
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        note = parameter.get("description") or schema.get("description") or ""
        parts.append(
            f"<div><code>{escape(parameter['name'])}</code> in {parameter['in']}"
            f"{', required' if parameter.get('required') else ''} {escape(note)}</div>"
        )
    body = operation.get("requestBody")
    if body:
        parts.append(f"<p>Body</p>{_example(document, body)}")
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            parts.append(f"<p>{status}</p>{_example(document, response)}")
    return (
        f"<details><summary><span class=method>{method.upper()}</span> <code>{escape(path)}</code>"
        f" <span class=what>{escape(operation['summary'])}</span></summary>{''.join(parts)}"
        "</details>"
    )


def _example(document: dict[str, Any], holder: dict[str, Any]) -> str:
    for content in holder.get("content", {}).values():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        for example in document["components"]["schemas"].get(name, {}).get("examples", []):
            return f"<pre>{escape(json.dumps(example, indent=2))}</pre>"
    return ""
