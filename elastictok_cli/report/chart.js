"use strict";
// The usage chart. `segments.js` follows it in the page and uses what `report` hands over.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const B = data.blocks, F = data.frames, S = data.strip;
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const NS = "http://www.w3.org/2000/svg";
  const start = data.start, end = Math.max(data.end, data.start + 1e-3);

  // ---- words ----
  const clock = (t, digits = 2) => {
    const scale = 10 ** digits, total = Math.round(Math.abs(t) * scale);
    const whole = Math.floor(total / scale), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    const s = String(whole % 60).padStart(2, "0");
    const rest = digits ? "." + String(total % scale).padStart(digits, "0") : "";
    return (t < 0 ? "-" : "") + (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + s + rest;
  };
  const whole = (n) => Math.round(n).toLocaleString("en-US");
  const bytes = (n) => (n < 1000 ? Math.round(n) + " B" : n < 999950 ? (n / 1e3).toFixed(1) + " kB" : (n / 1e6).toFixed(1) + " MB");
  const psnr = (mse) => (mse === null ? null : mse === 0 ? Infinity : 10 * Math.log10(4 / mse));
  const decibels = (mse) => { const p = psnr(mse); return p === null ? "unknown" : p === Infinity ? "exact" : p.toFixed(2) + " dB"; };
  const short = (v) => (v === null ? "unknown" : v.toPrecision(3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""));

  // ---- theme ----
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (on) => {
    root.dataset.theme = on ? "dark" : "light";
    $("theme").textContent = on ? "Light" : "Dark";
    $("theme").setAttribute("aria-pressed", String(on));
  };
  setTheme(dark.matches);
  dark.addEventListener("change", () => { setTheme(dark.matches); report.paint(); });
  $("theme").addEventListener("click", () => { setTheme(root.dataset.theme !== "dark"); report.paint(); });

  let ramp = [];
  const readRamp = () => {
    ramp = getComputedStyle(root).getPropertyValue("--heat").split(",").map((c) => {
      const v = parseInt(c.trim().slice(1), 16);
      return [v >> 16, (v >> 8) & 255, v & 255];
    });
  };
  const heat = (x) => {
    const at = Math.min(Math.max(x, 0), 1) * (ramp.length - 1), i = Math.min(Math.floor(at), ramp.length - 2), f = at - i;
    return ramp[i].map((c, k) => Math.round(c + f * (ramp[i + 1][k] - c)));
  };
  const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const fill = (canvas, w, h, value) => {
    canvas.width = w; canvas.height = h;
    const context = canvas.getContext("2d"), image = context.createImageData(w, h);
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      const at = 4 * (y * w + x), [r, g, b] = heat(value(x, y));
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  };

  // ---- chart ----
  const box = $("chart");
  const known = F.worst.some((v) => v !== null);
  let view = [start, end], unit = "psnr", per = "tokens", cursor = null, drag = null;
  const M = { left: 58, right: 64 };
  let W = 1000, P = {};
  const svg = document.createElementNS(NS, "svg");
  const stripCanvas = document.createElement("canvas");
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true;
  box.append(svg, stripCanvas, tip);
  const el = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const X = (t) => M.left + ((t - view[0]) / (view[1] - view[0])) * (W - M.left - M.right);
  const T = (x) => view[0] + ((x - M.left) / (W - M.left - M.right)) * (view[1] - view[0]);
  // the last row that starts at or before t
  const rowAt = (series, t) => {
    let low = 0, high = series.start.length - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; if (series.start[mid] <= t) low = mid; else high = mid - 1; }
    return low;
  };
  const visible = (series) => {
    if (!series.start.length) return [0, -1];
    return [Math.max(0, rowAt(series, view[0])), rowAt(series, view[1])];
  };
  const nice = (top, count) => {
    const raw = top / count, power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  };
  const timeSteps = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

  function layout() {
    W = Math.max(320, box.clientWidth);
    let y = 22;
    P.tokens = { top: y, height: 210 }; y += 210;
    if (known) { y += 40; P.error = { top: y, height: 110 }; y += 110; }
    y += 30; P.strip = { top: y, height: Math.max(28, Math.min(72, 4 * S.rows)) }; y += P.strip.height;
    P.axis = y; y += 34;
    P.all = { top: y, height: 34 }; y += 36;
    P.height = y;
    svg.setAttribute("viewBox", `0 0 ${W} ${y}`);
    svg.setAttribute("width", W); svg.setAttribute("height", y);
  }

  // at most two points for each pixel: the peaks of what falls on it
  function columns(series, names, from, to) {
    const wide = Math.max(1, Math.floor((to - from + 1) / (W - M.left - M.right)));
    const out = [];
    for (let i = from; i <= to; i += wide) {
      const last = Math.min(i + wide - 1, to), point = { start: series.start[i], end: series.end[last] };
      for (const [name, larger] of names) {
        let best = null;
        for (let k = i; k <= last; k++) {
          const v = series[name][k];
          if (v !== null && (best === null || (larger ? v > best : v < best))) best = v;
        }
        point[name] = best;
      }
      out.push(point);
    }
    // a row ends where the next begins
    out.forEach((p, i) => { if (i + 1 < out.length) p.end = out[i + 1].start; else p.end = Math.max(p.end, p.start); });
    return out;
  }

  function drawTokens() {
    const { top, height } = P.tokens, [from, to] = visible(B);
    const points = columns(B, [[per, true]], from, to);
    const most = Math.max(1, ...points.map((p) => p[per]));
    const step = nice(most, 4), limit = Math.ceil(most / step - 1e-9) * step;
    const Y = (v) => top + height * (1 - v / limit);
    P.tokens.Y = Y;
    svg.append(el("text", { x: M.left, y: top - 9, class: "title" }, per === "tokens" ? "tokens per block" : "tokens per frame"));
    if (per === "tokens") svg.append(el("text", { x: W, y: top - 9, "text-anchor": "end" }, "% of a full block"));
    for (let v = 0; v <= limit + step / 2; v += step) {
      svg.append(el("line", { x1: M.left, x2: W - M.right, y1: Y(v), y2: Y(v), class: v ? "grid" : "axis" }));
      svg.append(el("text", { x: M.left - 8, y: Y(v) + 4, "text-anchor": "end" }, v >= 1 || v === 0 ? whole(v) : v));
      if (per === "tokens") svg.append(el("text", { x: W - M.right + 8, y: Y(v) + 4 }, ((100 * v) / data.capacity).toPrecision(2).replace(/\.0$/, "") + "%"));
    }
    let line = "";
    for (const p of points) line += `${line ? "L" : "M"}${X(p.start).toFixed(1)} ${Y(p[per]).toFixed(1)}L${X(p.end).toFixed(1)} ${Y(p[per]).toFixed(1)}`;
    if (line) {
      const bottom = Y(0).toFixed(1);
      const g = el("g", { "clip-path": "url(#clip)" });
      g.append(el("path", { d: `${line}L${X(points.at(-1).end).toFixed(1)} ${bottom}L${X(points[0].start).toFixed(1)} ${bottom}Z`, class: "area" }));
      g.append(el("path", { d: line, class: "top", "data-points": points.length }));
      svg.append(g);
    }
    drawMarks(from, to);
  }

  function drawMarks(from, to) {
    const { top, height, Y } = P.tokens;
    const g = el("g", { "clip-path": "url(#clip)" });
    let lastCut = -9, lastMiss = -9;
    for (let i = from; i <= to; i++) {
      const x = X(B.start[i]);
      if (B.flags[i] & 2 && x - lastCut >= 2) {
        lastCut = x;
        g.append(el("line", { x1: x, x2: x, y1: top, y2: top + height, class: "cut" }));
      }
      if (B.flags[i] & 4 && x - lastMiss >= 3) {
        lastMiss = x;
        const y = Math.max(top + 10, Y(B[per][i]) - 4), c = (x + X(Math.min(B.end[i], view[1]))) / 2;
        g.append(el("path", { d: `M${c} ${y}l-5 -8h10z`, class: "mark" }));
      }
    }
    svg.append(g);
  }

  function drawError() {
    if (!known) return;
    const { top, height } = P.error, [from, to] = visible(F);
    const points = columns(F, [["worst", true], ["best", false]], from, to).filter((p) => p.worst !== null);
    const value = unit === "mse" ? (m) => m : (m) => Math.min(psnr(m), 99);
    const all = points.flatMap((p) => [value(p.worst), value(p.best)]);
    if (data.target !== null) all.push(value(data.target));
    let low = Math.min(...all), high = Math.max(...all);
    if (unit === "mse") low = 0;
    if (!(high > low)) { high = low + Math.max(Math.abs(low) * 0.1, 1e-6); }
    const step = nice(high - low, 3);
    low = Math.floor(low / step + 1e-9) * step; high = Math.ceil(high / step - 1e-9) * step;
    const Y = (v) => top + height * (1 - (v - low) / (high - low));
    P.error.Y = (mse) => Y(value(mse));
    svg.append(el("text", { x: M.left, y: top - 9, class: "title" }, unit === "mse" ? "mse per frame" : "PSNR per frame, dB"));
    for (let n = 0; low + n * step <= high + step / 2; n++) {
      const v = low + n * step;
      svg.append(el("line", { x1: M.left, x2: W - M.right, y1: Y(v), y2: Y(v), class: n ? "grid" : "axis" }));
      svg.append(el("text", { x: M.left - 8, y: Y(v) + 4, "text-anchor": "end" }, unit === "mse" ? short(v) || "0" : +v.toFixed(2)));
    }
    const g = el("g", { "clip-path": "url(#clip)" });
    const path = (name, back) => {
      const order = back ? [...points].reverse() : points;
      return order.map((p) => { const y = Y(value(p[name])).toFixed(1), a = X(p.start).toFixed(1), b = X(p.end).toFixed(1); return back ? `L${b} ${y}L${a} ${y}` : `L${a} ${y}L${b} ${y}`; }).join("");
    };
    if (points.length) {
      g.append(el("path", { d: "M" + (path("worst") + path("best", true)).slice(1) + "Z", class: "band" }));
      g.append(el("path", { d: "M" + path("worst").slice(1), class: "err" }));
    }
    if (data.target !== null) {
      const y = Y(value(data.target));
      g.append(el("line", { x1: M.left, x2: W - M.right, y1: y, y2: y, class: "target" }));
      data.target_label.forEach((line, n) => svg.append(el("text", { x: W - M.right + 8, y: y + 4 + 14 * n - 7 * (data.target_label.length - 1) }, line)));
    }
    svg.append(g);
  }

  function drawTime() {
    const span = view[1] - view[0], room = (W - M.left - M.right) / 90;
    const step = timeSteps.find((s) => span / s <= room) || 7200 * Math.ceil(span / room / 7200);
    const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
    for (let n = Math.ceil(view[0] / step - 1e-6); n * step <= view[1] + 1e-6; n++) {
      const x = X(n * step);
      svg.append(el("line", { x1: x, x2: x, y1: P.axis, y2: P.axis + 5, class: "axis" }));
      svg.append(el("text", { x, y: P.axis + 18, "text-anchor": "middle", class: "tick" }, clock(n * step, digits)));
    }
  }

  const stripData = unpack(S.data);
  function drawStrip() {
    const { top, height } = P.strip, wide = Math.max(1, Math.round(W - M.left - M.right));
    svg.append(el("text", { x: M.left, y: top - 8, class: "title" }, "tokens a cell, by height in the picture"));
    svg.append(el("text", { x: M.left - 8, y: top + 10, "text-anchor": "end" }, "top"));
    svg.append(el("text", { x: M.left - 8, y: top + height - 2, "text-anchor": "end" }, "bottom"));
    svg.append(el("text", { x: W - M.right + 8, y: top + 10 }, "max " + short(S.top)));
    stripCanvas.style.cssText = `left:${M.left}px;top:${top}px;width:${wide}px;height:${height}px`;
    fill(stripCanvas, wide, S.rows, (x, y) => (S.start.length ? stripData[rowAt(S, T(M.left + x + 0.5)) * S.rows + y] / 255 : 0));
  }

  function drawAll() {
    const { top, height } = P.all, kept = view;
    view = [start, end];
    const points = columns(B, [[per, true]], 0, B.start.length - 1), most = Math.max(1, ...points.map((p) => p[per]));
    const Y = (v) => (top + height * (1 - v / most)).toFixed(1);
    let line = `M${M.left} ${top + height}`;
    for (const p of points) line += `L${X(p.start).toFixed(1)} ${Y(p[per])}L${X(p.end).toFixed(1)} ${Y(p[per])}`;
    svg.append(el("path", { d: line + `L${W - M.right} ${top + height}Z`, class: "area" }));
    const [a, b] = kept.map(X);
    view = kept;
    svg.append(el("rect", { x: a, y: top, width: Math.max(2, b - a), height, rx: 3, class: "brush" }));
  }

  const over = el("g", {});
  function draw() {
    layout();
    svg.replaceChildren();
    const defs = el("defs", {}), clip = el("clipPath", { id: "clip" });
    clip.append(el("rect", { x: M.left, y: 0, width: W - M.left - M.right, height: P.height }));
    defs.append(clip);
    svg.append(defs);
    drawTokens(); drawError(); drawStrip(); drawTime(); drawAll();
    svg.append(over);
    drawCursor();
  }

  function describe(t) {
    const i = rowAt(B, t), k = rowAt(F, t);
    const blocks = B.step > 1 ? `up to ${B.step} blocks from ${whole(B.block[i])}` : `block ${whole(B.block[i])}`;
    const notes = [[1, "keyframe"], [2, "scene cut"], [4, data.missed_label]].filter(([bit]) => B.flags[i] & bit).map(([, word]) => word);
    const share = ((100 * B.tokens[i]) / data.capacity).toPrecision(3);
    return { i, k, time: clock(Math.max(B.start[i], Math.min(t, end)), 3), blocks, notes, share };
  }

  function drawCursor() {
    over.replaceChildren();
    tip.hidden = true;
    if (drag && drag.to !== undefined && drag.kind === "zoom") {
      const [a, b] = [drag.from, drag.to].sort((p, q) => p - q);
      over.append(el("rect", { x: a, y: P.tokens.top, width: b - a, height: P.axis - P.tokens.top, class: "select" }));
    }
    if (cursor === null || !B.start.length) return;
    const x = X(cursor);
    if (x < M.left - 1 || x > W - M.right + 1) return;
    const at = describe(cursor), mse = F.worst[at.k];
    over.append(el("line", { x1: x, x2: x, y1: P.tokens.top, y2: P.axis, class: "cross" }));
    over.append(el("circle", { cx: x, cy: P.tokens.Y(B[per][at.i]), r: 5, class: "dot", style: "fill:var(--tokens)" }));
    if (known && mse !== null) over.append(el("circle", { cx: x, cy: P.error.Y(mse), r: 5, class: "dot", style: "fill:var(--error)" }));
    const lines = [
      ["b", `${at.time}  ${at.notes.join(", ")}`],
      ["p", `${whole(B.tokens[at.i])} tokens (${at.share}%), ${short(B.each[at.i])} a frame`, "--tokens"],
      ["p", mse === null ? "error unknown" : `${decibels(mse)}, mse ${short(mse)}`, "--error"],
      ["span", `${at.blocks}, from frame ${whole(B.frame[at.i])}`],
      ["span", `${bytes(B.bytes[at.i])}${B.step > 1 ? " together" : ""}`],
    ];
    tip.replaceChildren(...lines.map(([tag, text, color]) => {
      const node = document.createElement(tag);
      if (color) { const key = document.createElement("i"); key.style.background = `var(${color})`; node.append(key); }
      node.append(text);
      return node;
    }));
    tip.hidden = false;
    const left = x + 14 + tip.offsetWidth > W ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = Math.max(0, left) + "px";
    tip.style.top = P.tokens.top + 8 + "px";
  }

  function say() {
    if (cursor === null) return;
    const at = describe(cursor), mse = F.worst[at.k];
    $("status").textContent = `${at.time}: ${whole(B.tokens[at.i])} tokens, ${at.share} percent, ${decibels(mse)} ${at.notes.join(", ")}`;
  }

  const shortest = Math.min(end - start, Math.max(4 * ((end - start) / Math.max(1, B.start.length)), 0.1));
  function zoom(a, b) {
    let span = Math.min(Math.max(b - a, shortest), end - start);
    const middle = (a + b) / 2;
    let from = Math.min(Math.max(middle - span / 2, start), end - span);
    view = [from, from + span];
    draw();
  }
  function scaleBy(factor) {
    const middle = cursor !== null && cursor >= view[0] && cursor <= view[1] ? cursor : (view[0] + view[1]) / 2;
    zoom(middle - (middle - view[0]) * factor, middle + (view[1] - middle) * factor);
  }
  function show(a, b) {
    const span = Math.max((b - a) * 3, Math.min(end - start, Math.max(2, 12 * shortest)));
    cursor = (a + b) / 2;
    zoom(cursor - span / 2, cursor + span / 2);
    box.scrollIntoView({ block: "center", behavior: "smooth" });
    box.focus({ preventScroll: true });
    say();
  }

  const place = (event) => {
    const r = svg.getBoundingClientRect();
    return [((event.clientX - r.left) * W) / r.width, ((event.clientY - r.top) * P.height) / r.height];
  };
  const inside = (x) => Math.min(Math.max(x, M.left), W - M.right);
  const wholeTime = (x) => start + ((x - M.left) / (W - M.left - M.right)) * (end - start);
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const [x, y] = place(event);
    drag = { kind: y >= P.all.top ? "pan" : "zoom", from: inside(x) };
    if (drag.kind === "pan") { const c = wholeTime(inside(x)), half = (view[1] - view[0]) / 2; zoom(c - half, c + half); }
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (drag && drag.kind === "pan") { const c = wholeTime(inside(x)), half = (view[1] - view[0]) / 2; zoom(c - half, c + half); return; }
    if (drag) drag.to = inside(x);
    cursor = x >= M.left - 2 && x <= W - M.right + 2 && y < P.axis + 4 ? T(inside(x)) : null;
    drawCursor();
  });
  const finish = () => {
    const done = drag;
    drag = null;
    if (done && done.kind === "zoom" && done.to !== undefined && Math.abs(done.to - done.from) > 6) zoom(...[T(done.from), T(done.to)].sort((p, q) => p - q));
    else drawCursor();
  };
  svg.addEventListener("pointerup", finish);
  svg.addEventListener("pointercancel", () => { drag = null; drawCursor(); });
  svg.addEventListener("pointerleave", () => { if (!drag) { cursor = null; drawCursor(); } });
  svg.addEventListener("dblclick", () => zoom(start, end));
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // plain scrolling stays scrolling
    event.preventDefault();
    cursor = T(inside(place(event)[0]));
    scaleBy(event.deltaY < 0 ? 0.8 : 1.25);
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !B.start.length) return;
    const series = event.shiftKey ? null : B;
    const move = (by) => {
      if (series) cursor = cursor === null ? view[0] : series.start[Math.min(Math.max(rowAt(series, cursor) + by, 0), series.start.length - 1)];
      else { const step = (by * (view[1] - view[0])) / 4; zoom(view[0] + step, view[1] + step); }
      if (cursor !== null && (cursor < view[0] || cursor > view[1])) { const half = (view[1] - view[0]) / 2; zoom(cursor - half, cursor + half); }
    };
    const keys = {
      ArrowRight: () => move(1), ArrowLeft: () => move(-1), Home: () => { cursor = start; zoom(start, start + view[1] - view[0]); },
      End: () => { cursor = B.start.at(-1); zoom(end - (view[1] - view[0]), end); },
      "+": () => scaleBy(0.5), "=": () => scaleBy(0.5), "-": () => scaleBy(2), 0: () => zoom(start, end), Escape: () => { cursor = null; zoom(start, end); },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    drawCursor();
    say();
  });
  box.addEventListener("blur", () => { cursor = null; drawCursor(); });
  $("zoom-in").addEventListener("click", () => scaleBy(0.5));
  $("zoom-out").addEventListener("click", () => scaleBy(2));
  $("zoom-all").addEventListener("click", () => zoom(start, end));
  const switches = (prefix, names, choose) => names.forEach((name) => $(prefix + name).addEventListener("click", () => {
    choose(name);
    for (const other of names) $(prefix + other).setAttribute("aria-pressed", String(other === name));
    draw();
  }));
  switches("unit-", ["psnr", "mse"], (name) => { unit = name; });
  switches("per-", ["block", "frame"], (name) => { per = name === "block" ? "tokens" : "each"; });
  $("units").hidden = !known;

  const legend = [["--tokens", B.step > 1 ? `tokens: the most of ${B.step} blocks` : "tokens"]];
  if (known) legend.push(["--error", F.step > 1 ? `error: worst of ${F.step} frames, band down to the best` : "error of a frame"]);
  if (B.flags.some((f) => f & 2)) legend.push(["--cut", "scene cut"]);
  if (B.flags.some((f) => f & 4)) legend.push(["--missed", data.missed_label]);
  $("legend").replaceChildren(...legend.map(([color, text]) => {
    const item = document.createElement("span"), key = document.createElement("i");
    key.style.background = `var(${color})`;
    item.append(key, text);
    return item;
  }));

  new ResizeObserver(() => { if (Math.abs(box.clientWidth - W) > 1) draw(); }).observe(box);
  return { data, $, draw, show, fill, unpack, readRamp, clock, whole, bytes, short, paint: () => {} };
})();
