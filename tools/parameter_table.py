# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Render config/vseg.schema.json as docs/parameters.md, in place."""
from html import escape
import json
from pathlib import Path
import re
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = '<!-- parameters: begin (tools/parameter_table.py) -->', '<!-- parameters: end -->'


def render(page: str) -> str:
    """Return the page's text with the table as the schema has it."""
    schema = json.loads((ROOT / 'config/vseg.schema.json').read_text())
    node = schema['properties']['/**']['properties']['ros__parameters']
    entries = dict(node['properties'])
    for name, entry in node['additionalProperties']['properties'].items():
        entries[f'<camera>.{name}'] = entry
    rows = ['| parameter | type | default | allowed | meaning |',
            '| --- | --- | --- | --- | --- |']
    for name, entry in entries.items():
        default = json.dumps(entry['default']) if 'default' in entry else ''
        rows.append(f'| `{name}` | {entry["type"]} | {default and f"`{default}`"} '
                    f'| {_allowed(entry)} | {escape(entry["description"], quote=False)} |')
    table = '\n'.join([BEGIN, *rows, END])
    return re.sub(f'{re.escape(BEGIN)}.*?{re.escape(END)}', lambda _: table, page, flags=re.S)


def _allowed(entry: dict[str, Any]) -> str:
    if 'enum' in entry:
        return ', '.join(entry['enum'])
    if 'minimum' in entry:
        return f'{entry["minimum"]} to {entry["maximum"]}'
    return ''


if __name__ == '__main__':
    path = ROOT / 'docs/parameters.md'
    path.write_text(render(path.read_text()))
