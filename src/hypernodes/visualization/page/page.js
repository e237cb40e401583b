"use strict";
(() => {
  const diagram = JSON.parse(document.getElementById("diagram").textContent);
  const svg = document.getElementById("picture");
  const tip = document.getElementById("tip");
  const NS = "http://www.w3.org/2000/svg";
  const LINE = 18, PAD = 9, TITLE = 6;

  // An arrow to a box inside a collapsed pipeline ends at the pipeline, so that each box needs its parent.
  const boxes = new Map(), parents = new Map();
  (function walk(list, parent) {
    for (const box of list) {
      boxes.set(box.id, box);
      if (parent) parents.set(box.id, parent);
      walk(box.boxes, box);
    }
  })(diagram.boxes, null);
  const expanded = new Set(diagram.expanded);

  const make = (name, attributes, ...children) => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const ancestors = (id) => { const found = []; for (let box = parents.get(id); box; box = parents.get(box.id)) found.unshift(box); return found; };
  const visible = (id) => (ancestors(id).find((box) => !expanded.has(box.id)) || boxes.get(id)).id;
  const isExpanded = (box) => box.kind === "group" && expanded.has(box.id);

  const described = (value) => [value.name, (value.type && diagram.types ? `: ${value.type}` : "") + (value.default ? ` = ${value.default}` : "")];
  const lines = (box) => {
    const remarks = box.remarks.map((text) => ({ kind: "remark", parts: [text, ""] }));
    if (box.kind === "input") return box.values.map((value) => ({ kind: "value", parts: described(value) }));
    const name = { kind: "name", parts: [box.name, ""] };
    if (isExpanded(box)) return [name, ...remarks];
    return [name, ...box.values.map((value) => ({ kind: "value", parts: ["→ " + described(value)[0], described(value)[1]] })), ...remarks];
  };
  const text = (line, x, y, anchor) => {
    const element = make("text", { x, y, "text-anchor": anchor, class: line.kind });
    element.append(line.parts[0]);
    if (line.parts[1]) { const faint = make("tspan", { class: "faint" }); faint.append(line.parts[1]); element.append(faint); }
    return element;
  };
  const scratch = svg.appendChild(make("g", { visibility: "hidden" }));
  const widths = new Map();
  const width = (line) => {
    const key = line.kind + line.parts.join("\0");
    if (!widths.has(key)) {
      const element = scratch.appendChild(text(line, 0, 0, "start"));
      widths.set(key, element.getComputedTextLength());
      element.remove();
    }
    return widths.get(key);
  };

  function layout() {
    const graph = new dagre.graphlib.Graph({ compound: true, multigraph: false });
    graph.setGraph({ rankdir: diagram.orient, nodesep: 26, ranksep: 38, edgesep: 14, marginx: 16, marginy: 16 });
    graph.setDefaultEdgeLabel(() => ({}));
    for (const box of boxes.values()) {
      if (visible(box.id) !== box.id) continue;
      const rows = lines(box);
      if (isExpanded(box)) graph.setNode(box.id, { rows });
      else graph.setNode(box.id, { rows, width: Math.max(...rows.map(width)) + 2 * PAD + 6, height: rows.length * LINE + 2 * PAD - 4 });
      const parent = parents.get(box.id);
      if (parent) graph.setParent(box.id, parent.id);
    }
    for (const arrow of diagram.arrows) {
      const source = visible(arrow.source), target = visible(arrow.target);
      if (source === target) continue;
      const known = graph.edge(source, target);
      // An arrow without names passes all values of its source; names of another arrow would hide that.
      const passesAll = !arrow.names.length || (known && !known.names.length);
      const names = passesAll ? [] : [...new Set([...(known ? known.names : []), ...arrow.names])];
      graph.setEdge(source, target, { names, width: names.length ? width({ kind: "along", parts: [names.join(", "), ""] }) + 8 : 0, height: names.length ? LINE : 0, labelpos: "c" });
    }
    dagre.layout(graph);
    return graph;
  }

  // The layout does not know the titles of expanded boxes, so that each box is extended upwards by its title.
  function frames(graph) {
    const found = new Map();
    const deepest = [...boxes.values()].filter((box) => graph.hasNode(box.id) && isExpanded(box)).sort((a, b) => ancestors(b.id).length - ancestors(a.id).length);
    for (const box of deepest) {
      const rows = graph.node(box.id).rows;
      let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
      for (const child of graph.children(box.id)) {
        const inner = found.get(child), node = graph.node(child);
        const [l, t, r, b] = inner || [node.x - node.width / 2, node.y - node.height / 2, node.x + node.width / 2, node.y + node.height / 2];
        [left, top, right, bottom] = [Math.min(left, l), Math.min(top, t), Math.max(right, r), Math.max(bottom, b)];
      }
      const least = Math.max(...rows.map(width)) + 2 * PAD + 8;
      found.set(box.id, [left - PAD, top - rows.length * LINE - TITLE - 4, Math.max(right + PAD, left - PAD + least), bottom + PAD]);
    }
    return found;
  }

  // Arrows start and end at the sides that face the direction of the data: at the other sides they would cross
  // neighbouring boxes.
  function endpoints(graph, edge) {
    const points = graph.edge(edge).points.slice(1, -1);
    const isAcross = ["LR", "RL"].includes(diagram.orient), forward = ["BT", "RL"].includes(diagram.orient) ? -1 : 1;
    const [along, across, length, breadth] = isAcross ? ["x", "y", "width", "height"] : ["y", "x", "height", "width"];
    const end = (node, toward, sign) => {
      const room = Math.max(0, node[breadth] / 2 - 12);
      const aside = Math.min(room, Math.max(-room, toward[across] - node[across]));
      return { [along]: node[along] + sign * node[length] / 2, [across]: node[across] + aside };
    };
    const source = graph.node(edge.v), target = graph.node(edge.w);
    return [end(source, points[0] || target, forward), ...points, end(target, points[points.length - 1] || source, -forward)];
  }

  const curve = (points) => {
    const [first, ...rest] = points;
    let drawn = `M${first.x},${first.y}`;
    rest.forEach((point, at) => {
      const next = rest[at + 1];
      drawn += next ? `Q${point.x},${point.y} ${(point.x + next.x) / 2},${(point.y + next.y) / 2}` : `L${point.x},${point.y}`;
    });
    return drawn;
  };

  let view = null, extent = null;
  const show = () => svg.setAttribute("viewBox", view.join(" "));
  function fit() {
    const [x, y, w, h] = extent, frame = svg.getBoundingClientRect();
    const scale = Math.max(w / frame.width, h / frame.height, 0.7);
    view = [x + w / 2 - frame.width * scale / 2, y + h / 2 - frame.height * scale / 2, frame.width * scale, frame.height * scale];
    show();
  }

  function draw() {
    const graph = layout(), framed = frames(graph);
    const clusters = make("g", {}), arrows = make("g", {}), leaves = make("g", {}), titles = make("g", { class: "titles" });
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    const reach = (l, t, r, b) => { [left, top, right, bottom] = [Math.min(left, l), Math.min(top, t), Math.max(right, r), Math.max(bottom, b)]; };
    for (const edge of graph.edges()) {
      const { names } = graph.edge(edge), points = endpoints(graph, edge);
      const group = make("g", { class: "arrow", "data-source": edge.v, "data-target": edge.w }, make("path", { d: curve(points), "marker-end": "url(#head)" }));
      for (const point of points) reach(point.x, point.y, point.x, point.y);
      if (names.length) { const { x, y } = graph.edge(edge); group.append(text({ kind: "along", parts: [names.join(", "), ""] }, x, y + 4, "middle")); }
      arrows.append(group);
    }
    const order = [...boxes.values()].filter((box) => graph.hasNode(box.id)).sort((a, b) => ancestors(a.id).length - ancestors(b.id).length);
    for (const box of order) {
      const rows = graph.node(box.id).rows, open = isExpanded(box);
      const node = graph.node(box.id);
      const [l, t, r, b] = open ? framed.get(box.id) : [node.x - node.width / 2, node.y - node.height / 2, node.x + node.width / 2, node.y + node.height / 2];
      reach(l, t, r, b);
      const kind = box.kind === "group" ? (open ? "group" : "pipeline") : box.kind;
      const heat = box.heat === null || open ? "" : ` heat${box.heat}`, failed = box.failed ? " failed" : "";
      const group = make("g", { class: `box ${kind}${heat}${failed}`, "data-id": box.id, tabindex: box.kind === "group" ? 0 : -1 });
      if (box.kind === "group") {
        group.setAttribute("role", "button");
        group.setAttribute("aria-expanded", String(open));
        group.setAttribute("aria-label", `pipeline ${box.name}`);
        const toggle = () => { expanded.has(box.id) ? expanded.delete(box.id) : expanded.add(box.id); draw(); fit(); svg.querySelector(`[data-id="${CSS.escape(box.id)}"]`).focus({ preventScroll: true }); };
        group.addEventListener("click", (event) => { event.stopPropagation(); if (!moved) toggle(); });
        group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } });
      }
      group.append(make("rect", { x: l, y: t, width: r - l, height: b - t, rx: 8 }));
      if (kind === "pipeline") group.append(make("rect", { x: l + 3, y: t + 3, width: r - l - 6, height: b - t - 6, rx: 6, "fill-opacity": 0 }));
      rows.forEach((line, at) => {
        const y = t + PAD + 10 + at * LINE;
        if (open) titles.append(text(line, l + PAD + 2, y, "start"));  // drawn last, above the arrows
        else group.append(text(line, (l + r) / 2, y, "middle"));
      });
      group.addEventListener("pointerenter", (event) => hover(box, event));
      group.addEventListener("pointermove", (event) => place(event));
      group.addEventListener("pointerleave", leave);
      (open ? clusters : leaves).append(group);
    }
    svg.replaceChildren(scratch, document.getElementById("head").parentNode.cloneNode(true), clusters, arrows, leaves, titles);
    extent = [left - 16, top - 16, right - left + 32, bottom - top + 32];
  }

  function hover(box, event) {
    const details = [box.signature, box.doc].filter(Boolean);
    if (box.kind === "group") details.push(expanded.has(box.id) ? "click to close" : "click to open");
    if (!details.length) return;
    const parts = [];
    if (box.signature) { const code = document.createElement("code"); code.textContent = box.signature; parts.push(code); }
    parts.push(details.slice(box.signature ? 1 : 0).join("\n"));
    tip.replaceChildren(...parts);
    tip.hidden = false;
    place(event);
    for (const arrow of svg.querySelectorAll(".arrow")) arrow.classList.toggle("lit", arrow.dataset.source === box.id || arrow.dataset.target === box.id);
  }
  function place(event) {
    const { width: w, height: h } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - h - 8))}px`;
  }
  function leave() {
    tip.hidden = true;
    for (const arrow of svg.querySelectorAll(".lit")) arrow.classList.remove("lit");
  }

  let from = null, moved = false;
  svg.addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY, view: [...view] }; moved = false; });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const scale = view[2] / svg.getBoundingClientRect().width, dx = event.clientX - from.x, dy = event.clientY - from.y;
    if (Math.hypot(dx, dy) > 4) { moved = true; svg.classList.add("moving"); }
    if (moved) { view = [from.view[0] - dx * scale, from.view[1] - dy * scale, from.view[2], from.view[3]]; show(); }
  });
  addEventListener("pointerup", () => { from = null; svg.classList.remove("moving"); });
  const zoom = (factor, x, y) => { view = [x + (view[0] - x) * factor, y + (view[1] - y) * factor, view[2] * factor, view[3] * factor]; show(); };
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = svg.getBoundingClientRect();
    zoom(Math.exp(event.deltaY * 0.0015), view[0] + (event.clientX - frame.left) / frame.width * view[2], view[1] + (event.clientY - frame.top) / frame.height * view[3]);
  }, { passive: false });
  const actions = {
    all: () => { for (const box of boxes.values()) if (box.kind === "group") expanded.add(box.id); draw(); fit(); },
    none: () => { expanded.clear(); draw(); fit(); },
    fit,
    in: () => zoom(0.8, view[0] + view[2] / 2, view[1] + view[3] / 2),
    out: () => zoom(1.25, view[0] + view[2] / 2, view[1] + view[3] / 2),
    theme: () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
    },
  };
  for (const button of document.querySelectorAll("button")) button.addEventListener("click", actions[button.dataset.action]);
  addEventListener("resize", fit);
  draw();
  fit();
})();
