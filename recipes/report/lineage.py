"""The lineage: stages and the artifacts that pass between them as one graph, and the details of every stage."""

from __future__ import annotations

from pathlib import Path, PurePath

from markupsafe import Markup

from recipes.pipeline import artifacts
from recipes.report.layout import NODE_WIDTH, Layout, is_trunk, lay_out
from recipes.report.load import BLOCKED, DONE, POLICY_KINDS, WAITING, Run, Stage
from recipes.report.numbers import duration, fmt, size
from recipes.report.svg import esc, wrap

HEIGHT, ROW = 44, 78
FAMILY = {
    "world": "data", "data": "data", "pairs": "data", "base": "policy", "sft": "policy", "preference": "policy",
    "reward": "rm", "generate": "make", "score": "make", "evaluate": "eval",
    "audit": "eval", "from_hf": "policy", "from_nemo2": "policy", "to_hf": "make",
}  # fmt: skip
OUTSIDE = "outside:"
STATES = {DONE: "", WAITING: " waiting", BLOCKED: " waiting", "failed": " failed", "refused": " failed"}


def anchor(name: str) -> str:
    """The id of a stage's details in the page."""
    return "stage-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def edges(run: Run) -> dict[tuple[str, str], list[str]]:
    """(source, target) -> what passes. A file from outside the run is a source named "outside:<path>"."""
    found: dict[tuple[str, str], list[str]] = {}
    for stage in run.stages.values():
        for name, entry in stage.inputs().items():
            path = str(entry.get("path") or "")
            source = entry.get("producer")
            if source not in run.stages:
                source = OUTSIDE + path
            passed = path.split("/outputs/")[-1] if source in run.stages else PurePath(path).name
            found.setdefault((source, stage.name), []).append(f"{name}: {passed}")
        for parent in (stage.manifest or {}).get("parents") or {}:
            if parent in run.stages:
                found.setdefault((parent, stage.name), [])
    return found


def changed_parents(run: Run) -> dict[tuple[str, str], str]:
    """(parent, stage) -> why, where a parent's manifest is not the one the stage was made from."""
    found = {}
    for stage in run.stages.values():
        for parent, recorded in ((stage.manifest or {}).get("parents") or {}).items():
            path = run.path / parent / artifacts.MANIFEST
            if not path.is_file():
                found[parent, stage.name] = f"{stage.name} was made from {parent}, which is not done any more"
            elif artifacts.sha256_file(path) != recorded:
                found[parent, stage.name] = (
                    f"{stage.name} was made from another {parent}: that stage's manifest has changed since"
                )
    return found


def graph(run: Run) -> Markup:
    """The lineage as SVG, sources above, every stage a link to its details."""
    links, broken = edges(run), changed_parents(run)
    outside = [source for source, _ in links if source.startswith(OUTSIDE)]
    spine = [(s.producer("init"), s.name) for s in run.of_kind(*POLICY_KINDS) if s.producer("init")]
    layout = lay_out([*dict.fromkeys(outside), *run.stages], list(links), spine)
    row = {node: i for i, layer in enumerate(layout.layers) for node in layer}
    parts = [_link(layout, row, a, b, run, links, broken) for a, b in layout.links]
    parts += [_trunk(layout, row, node, run) for node in layout.x if is_trunk(node)]
    parts += [_node(layout, row, node, run) for node in layout.x if not is_trunk(node)]
    inner = f'<g transform="translate(8 8)">{"".join(parts)}</g>'
    return wrap(
        [inner], layout.width + 16, len(layout.layers) * ROW - (ROW - HEIGHT) + 16, "Lineage of the run", "lineage"
    )


def _family(node: object, run: Run) -> str:
    source = node[1] if is_trunk(node) else node
    return FAMILY.get(run.stages[source].kind, "make") if source in run.stages else "outside"


def _link(layout: Layout, row: dict, a: object, b: object, run: Run, links: dict, broken: dict) -> str:
    x1, y1, x2, y2 = layout.x[a], row[a] * ROW + HEIGHT, layout.x[b], row[b] * ROW
    middle = (y1 + y2) / 2
    source = a[1] if is_trunk(a) else a
    state = " broken" if (source, b) in broken else ""
    text = (
        f"{_name(source, run)} → {_name(b, run)}: {'; '.join(links.get((source, b), []))}"
        if not is_trunk(b)
        else _name(source, run)
    )
    curve = f"M{x1:.1f} {y1}C{x1:.1f} {middle} {x2:.1f} {middle} {x2:.1f} {y2}"
    return f'<path class="link {_family(a, run)}{state}" d="{curve}"><title>{esc(text)}</title></path>'


def _trunk(layout: Layout, row: dict, node: object, run: Run) -> str:
    x, y = layout.x[node], row[node] * ROW
    title = f"<title>{esc(_name(node[1], run))}</title>"
    return f'<path class="link {_family(node, run)}" d="M{x:.1f} {y}v{HEIGHT}">{title}</path>'


def _name(node: str, run: Run) -> str:
    return node if node in run.stages else node.removeprefix(OUTSIDE)


def _node(layout: Layout, row: dict, node: str, run: Run) -> str:
    x, y, stage = layout.x[node] - NODE_WIDTH / 2, row[node] * ROW, run.stages.get(node)
    box = f'<rect x="{x:.1f}" y="{y}" width="{NODE_WIDTH:g}" height="{HEIGHT}" rx="7"/>'
    if stage is None:
        path = node.removeprefix(OUTSIDE)
        text = f'<text x="{x + 12:.1f}" y="{y + 18}">{esc(_short(PurePath(path).name))}</text>'
        text += f'<text class="sub" x="{x + 12:.1f}" y="{y + 34}">file from outside</text>'
        return f'<g class="node outside">{box}{text}<title>{esc(path)}</title></g>'
    strip = f'<path class="tab" d="M{x + 3.5:.1f} {y + 7}v{HEIGHT - 14}"/>'
    title = f'<text x="{x + 14:.1f}" y="{y + 18}">{esc(_short(node))}</text>'
    wall = duration(stage.wall) if stage.status == DONE else stage.status
    right = f'<text class="sub" x="{x + NODE_WIDTH - 9:.1f}" y="{y + 34}" text-anchor="end">{esc(wall)}</text>'
    print_ = (stage.manifest or {}).get("fingerprint")
    sub = stage.kind + (f" · {print_[:8]}" if isinstance(print_, str) else "")
    left = f'<text class="sub" x="{x + 14:.1f}" y="{y + 34}">{esc(sub)}</text>'
    state = STATES.get(stage.status, " unfinished")
    inner = f"{box}{strip}{title}{left}{right}<title>{esc(node)} ({esc(stage.kind)}): {esc(stage.status)}</title>"
    return f'<a href="#{anchor(node)}"><g class="node {_family(node, run)}{state}">{inner}</g></a>'


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def details(run: Run) -> list[dict]:
    """For every stage what the fold-out shows: inputs, outputs, facts (but for the data) and the config."""
    return [
        {
            "name": s.name,
            "anchor": anchor(s.name),
            "kind": s.kind,
            "family": FAMILY.get(s.kind, "make"),
            "status": s.status,
            "wall": duration(s.wall) if s.wall is not None else "",
            "progress": s.progress(),
            "fingerprint": (s.manifest or {}).get("fingerprint"),
            "started": (s.manifest or {}).get("started"),
            "inputs": [{"name": n, **e} for n, e in s.inputs().items()],
            "outputs": _outputs(s, run),
            "facts": flat({k: v for k, v in s.facts.items() if k != "data"}),
            "config": s.config_text,
            "folder": s.name,
        }
        for s in run.stages.values()
    ]


def _outputs(stage: Stage, run: Run) -> list[dict]:
    """Outputs by their first path part; a directory (a model) is one line with the content hash its consumers saw."""
    found: dict[str, dict] = {}
    for rel, entry in ((stage.manifest or {}).get("outputs") or {}).items():
        top = rel.split("/")[0]
        line = found.setdefault(top, {"name": top, "files": 0, "bytes": 0, "sha256": None})
        line["files"] += 1
        line["bytes"] += entry.get("bytes") or 0
        line["sha256"] = entry.get("sha256") if rel == top else _seen_hash(run, stage.name, top)
    return [{**line, "size": size(line["bytes"])} for line in found.values()]


def _seen_hash(run: Run, producer: str, top: str) -> str | None:
    for stage in run.stages.values():
        for entry in stage.inputs().values():
            if entry.get("producer") == producer and Path(str(entry.get("path"))).name == top and entry.get("sha256"):
                return entry["sha256"]
    return None


def flat(value: object, key: str = "") -> list[tuple[str, str]]:
    """Nested facts as (dotted key, text) lines; long lists are cut and say so."""
    if isinstance(value, dict):
        return [line for k, v in value.items() for line in flat(v, f"{key}.{k}" if key else str(k))]
    if isinstance(value, list):
        text = ", ".join(fmt(v) if not isinstance(v, (dict, list)) else "{…}" for v in value[:12])
        return [(key, text + (f", … ({len(value)} in all)" if len(value) > 12 else ""))]
    return [(key, str(value) if isinstance(value, (bool, str, int)) else fmt(value))] if key else []
