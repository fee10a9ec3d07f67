"""The page at /docs, made from the application's own description. It loads nothing from elsewhere."""

import json
from typing import Any

import jinja2

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ api.info.title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em }
pre { background: #f4f4f4; padding: 0.7rem; overflow-x: auto }
td, th { text-align: left; padding: 0.1rem 1rem 0.1rem 0 }
h2 { margin-top: 2rem; border-top: 1px solid #ccc; padding-top: 1rem }
</style></head><body>
<h1>{{ api.info.title }}</h1>
<p>widehead {{ api.info.version }}. Programs read <a href="openapi.json">openapi.json</a>.
This page needs no network.</p>
{% for path, methods in api.paths.items() %}{% for method, operation in methods.items() %}
<h2><code>{{ method.upper() }} {{ path }}</code></h2>
<p>{{ operation.description }}</p>
{% if operation.requestBody %}{% set schema = resolve(operation.requestBody.content["application/json"].schema) %}
<table><tr><th>field</th><th>type</th><th></th></tr>
{% for name, field in schema.properties.items() %}
<tr><td><code>{{ name }}</code></td><td>{{ kind(field) }}</td><td>{{ field.description }}</td></tr>
{% endfor %}</table>
<p>For example:</p>
{% for example in schema.examples %}<pre>curl -s localhost:8000{{ path }} -H 'Content-Type: application/json' \\
  -d '{{ json(example) }}'</pre>{% endfor %}{% endif %}
<table><tr><th>status</th><th></th></tr>
{% for code, response in operation.responses.items() %}<tr><td>{{ code }}</td><td>{{ response.description }}</td></tr>
{% endfor %}</table>
{% endfor %}{% endfor %}
<h2>Models</h2>
{% for name, schema in api.components.schemas.items() %}<h3>{{ name }}</h3><pre>{{ json(schema, 2) }}</pre>{% endfor %}
</body></html>
"""


def page_of(api: dict[str, Any]) -> str:
    """An HTML page of an OpenAPI description."""
    schemas = api["components"]["schemas"]

    def resolve(schema: dict[str, Any]) -> dict[str, Any]:
        return schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema

    def kind(field: dict[str, Any]) -> str:
        if "anyOf" in field:
            return " or ".join(map(kind, field["anyOf"]))
        name = field["$ref"].rsplit("/", 1)[1] if "$ref" in field else str(field.get("type", ""))
        inner = f" of {kind(field['items'])}" if "items" in field else ""
        return name + inner

    template = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined).from_string(_PAGE)
    return template.render(
        api=api,
        resolve=resolve,
        kind=kind,
        json=lambda data, indent=None: json.dumps(data, indent=indent, ensure_ascii=False),
    )
