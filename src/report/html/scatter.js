"use strict";

// The data: classes [{name, count, light, dark, corners}], splits [name], radius, opacity and points
// [{x, y, class, predicted, split, path, image}], mixed so that no class hides the others. x and y are in -1..1,
// y upwards; predicted and image may be null.
const data = JSON.parse(document.getElementById("data").textContent);
const { classes, points, splits } = data;

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const card = byId("card");
const halo = byId("halo");
const dark = matchMedia("(prefers-color-scheme: dark)");

const PADDING = 24;
const NATURAL = 550; // the side of the plot, in pixels, that the radius of the marks is meant for
const REACH = { mouse: 14, pen: 18, touch: 28 };
const FARTHEST = 200;
const MOST_ROWS = 1000;

const hidden = new Set(); // numbers of classes
let onlyWrong = false;
let selected = null; // a point
const view = { zoom: 1, x: 0, y: 0 }; // how far the middle is moved, in pixels

const isWrong = (point) => point.predicted !== null && point.predicted !== point.class;
const isShown = (point) => !hidden.has(point.class) && (!onlyWrong || isWrong(point));

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- places ----

const side = () => Math.min(canvas.clientWidth, canvas.clientHeight);

/** Pixels for one unit of the data. */
const scale = () => Math.max(1, side() / 2 - PADDING) * view.zoom;

/** A function from a point to its place on the canvas, in pixels, as long as the view stays. */
function projection() {
  const unit = scale();
  const [x, y] = [canvas.clientWidth / 2 + view.x, canvas.clientHeight / 2 + view.y];
  return (point) => ({ x: x + unit * point.x, y: y - unit * point.y });
}

const place = (point) => projection()(point);

/** Marks grow with the plot, and slowly with the zoom. */
const radius = () => data.radius * Math.max(1, side() / NATURAL) * Math.min(view.zoom, 8) ** 0.4;

/** The shown point nearest to a pixel, within reach. */
function nearest(x, y, reach) {
  const project = projection();
  let found = null;
  let least = (reach + radius()) ** 2;
  for (const point of points) {
    if (!isShown(point)) continue;
    const at = project(point);
    const distance = (at.x - x) ** 2 + (at.y - y) ** 2;
    if (distance <= least) [found, least] = [point, distance];
  }
  return found;
}

// ---- drawing ----

let waiting = false;

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const size = radius();
  const project = projection();
  const near = (value, most) => value > -2 * size && value < most + 2 * size;
  const visible = points.filter(isShown).map((point) => ({ point, at: project(point) }))
    .filter(({ at }) => near(at.x, width) && near(at.y, height));
  const shade = dark.matches ? "dark" : "light";
  context.globalAlpha = data.opacity;
  for (const { point, at } of visible) {
    const look = classes[point.class];
    context.fillStyle = look[shade];
    trace(context, look.corners, at, size);
    context.fill();
  }
  context.globalAlpha = 1;
  const style = getComputedStyle(document.documentElement);
  for (const [wider, name, line] of [[1.2, "--paper", 1.4], [0, "--ink", 1.2]]) {
    context.strokeStyle = style.getPropertyValue(name);
    context.lineWidth = line;
    for (const { point, at } of visible) {
      if (!isWrong(point)) continue;
      trace(context, [], at, 1.35 * size + 1 + wider);
      context.stroke();
    }
  }
}

/** The outline of a mark: a disc if it has no corners. */
function trace(context, corners, at, size) {
  context.beginPath();
  if (corners.length === 0) context.arc(at.x, at.y, size, 0, 2 * Math.PI);
  for (const [x, y] of corners) context.lineTo(at.x + size * x, at.y + size * y);
  context.closePath();
}

// ---- the card of the selected point ----

function facts(point) {
  const list = [["class", classes[point.class].name]];
  if (point.predicted !== null) list.push(["predicted", classes[point.predicted].name]);
  list.push(["split", splits[point.split]], ["path", point.path]);
  return list.filter(([, value]) => value !== "");
}

function select(point, aloud) {
  if (point !== selected) {
    selected = point;
    if (point) fillCard(point);
    if (aloud && point) byId("status").textContent = facts(point).map((fact) => fact.join(": ")).join(", ");
  }
  placeCard();
}

function fillCard(point) {
  const image = byId("card-image");
  image.hidden = point.image === null;
  if (point.image === null) image.removeAttribute("src");
  else image.src = point.image;
  const cells = facts(point).flatMap(([name, value]) => [element("dt", "", name), element("dd", "name", value)]);
  byId("card-facts").replaceChildren(...cells);
}

/** Puts the halo around the selected point and the card beside it, on the side that has room. */
function placeCard() {
  card.hidden = halo.hidden = selected === null;
  if (!selected) return;
  const at = place(selected);
  halo.style.width = halo.style.height = `${2 * (1.35 * radius() + 5)}px`;
  halo.style.left = `${at.x}px`;
  halo.style.top = `${at.y}px`;
  const [width, height] = [card.offsetWidth, card.offsetHeight];
  const right = at.x + 16 + width <= canvas.clientWidth;
  const within = (value, most) => Math.max(4, Math.min(value, most - 4));
  card.style.left = `${within(right ? at.x + 16 : at.x - 16 - width, canvas.clientWidth - width)}px`;
  // Where neither side has room, as on a phone, above or below.
  const beside = right || at.x - 16 - width >= 0;
  const below = at.y + 16 + height <= canvas.clientHeight;
  const top = beside ? at.y - height / 2 : below ? at.y + 16 : at.y - 16 - height;
  card.style.top = `${within(top, canvas.clientHeight - height)}px`;
}

// The height of a card is known only once its image is there.
byId("card-image").addEventListener("load", placeCard);

// ---- moving ----

/** Zooms by a factor, keeping the pixel (x, y) in place. */
function zoomAt(x, y, factor) {
  const zoom = Math.min(FARTHEST, Math.max(1, view.zoom * factor));
  const change = zoom / view.zoom;
  const [fromX, fromY] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
  moveTo(zoom, fromX - change * (fromX - view.x), fromY - change * (fromY - view.y));
}

function moveTo(zoom, x, y) {
  view.zoom = zoom;
  // The middle of the window stays within the data; unzoomed there is nothing to move.
  const limit = zoom === 1 ? 0 : scale();
  view.x = Math.max(-limit, Math.min(limit, x));
  view.y = Math.max(-limit, Math.min(limit, y));
  // One finger scrolls the page until there is something to move.
  canvas.style.touchAction = zoom === 1 ? "pan-y" : "none";
  placeCard();
  redraw();
}

const zoomMiddle = (factor) => zoomAt(canvas.clientWidth / 2, canvas.clientHeight / 2, factor);

canvas.addEventListener("wheel", (event) => {
  if (view.zoom === 1 && event.deltaY > 0) return; // nothing to zoom out of: the page scrolls
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
  zoomAt(event.offsetX, event.offsetY, Math.exp(-0.002 * lines * event.deltaY));
}, { passive: false });

const fingers = new Map(); // pointers that are down, by number: their latest place
let travelled = 0;

/** The middle of the pointers that are down, and how far two of them are apart. */
function grip() {
  const [a, b = a] = fingers.values();
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, spread: Math.hypot(a.x - b.x, a.y - b.y) };
}

const locate = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  if (fingers.size === 0) travelled = 0;
  if (fingers.size < 2) fingers.set(event.pointerId, locate(event));
});

canvas.addEventListener("pointermove", (event) => {
  const at = locate(event);
  if (!fingers.has(event.pointerId)) {
    select(nearest(at.x, at.y, REACH[event.pointerType] ?? REACH.mouse));
    return;
  }
  const before = grip();
  fingers.set(event.pointerId, at);
  const after = grip();
  travelled += Math.hypot(after.x - before.x, after.y - before.y) + Math.abs(after.spread - before.spread);
  if (travelled < 6) return; // a tap is never quite still
  moveTo(view.zoom, view.x + after.x - before.x, view.y + after.y - before.y);
  if (before.spread > 0) zoomAt(after.x, after.y, after.spread / before.spread);
});

canvas.addEventListener("pointerup", (event) => {
  const at = locate(event);
  if (fingers.delete(event.pointerId) && travelled < 6) {
    select(nearest(at.x, at.y, REACH[event.pointerType] ?? REACH.mouse), true);
  }
});
canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
canvas.addEventListener("pointerleave", (event) => {
  // A finger leaves when it is lifted, and what it tapped stays.
  if (event.pointerType === "mouse" && fingers.size === 0) select(null);
});

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The shown point that lies next to the selected one in a direction; the middle one if none is selected. */
function next([right, down]) {
  if (!selected) return nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);
  const project = projection();
  const from = project(selected);
  let found = selected;
  let least = Infinity;
  for (const point of points) {
    if (point === selected || !isShown(point)) continue;
    const at = project(point);
    const [x, y] = [at.x - from.x, at.y - from.y];
    const along = right * x + down * y;
    const cost = along + 2 * Math.abs(right * y - down * x);
    if (along > 0 && cost < least) [found, least] = [point, cost];
  }
  return found;
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const direction = DIRECTIONS[event.key];
  if (direction) {
    select(next(direction), true);
    if (selected) bringIntoView(selected);
  } else if (event.key === "+" || event.key === "=") zoomMiddle(1.5);
  else if (event.key === "-") zoomMiddle(1 / 1.5);
  else if (event.key === "0") moveTo(1, 0, 0);
  else if (event.key === "Escape") select(null);
  else return;
  event.preventDefault();
});

function bringIntoView(point) {
  const at = place(point);
  const inside = at.x >= 0 && at.y >= 0 && at.x <= canvas.clientWidth && at.y <= canvas.clientHeight;
  if (!inside) moveTo(view.zoom, view.x + canvas.clientWidth / 2 - at.x, view.y + canvas.clientHeight / 2 - at.y);
}

byId("zoom-in").addEventListener("click", () => zoomMiddle(1.5));
byId("zoom-out").addEventListener("click", () => zoomMiddle(1 / 1.5));
byId("reset").addEventListener("click", () => moveTo(1, 0, 0));

// ---- which points are shown ----

function swatch(look) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1.6 -1.6 3.2 3.2");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  svg.style.setProperty("--light", look.light);
  svg.style.setProperty("--dark", look.dark);
  const disc = look.corners.length === 0;
  const shape = document.createElementNS(svg.namespaceURI, disc ? "circle" : "polygon");
  shape.setAttribute(disc ? "r" : "points", disc ? "1" : look.corners.join(" "));
  svg.append(shape);
  return svg;
}

const buttons = classes.map((look, number) => {
  const button = element("button");
  button.type = "button";
  button.title = look.name;
  button.append(swatch(look), element("span", "name", look.name), element("span", "count", look.count));
  button.addEventListener("click", () => {
    if (!hidden.delete(number)) hidden.add(number);
    filter();
  });
  const item = element("li");
  item.append(button);
  byId("legend").append(item);
  return button;
});

byId("toggle-all").addEventListener("click", () => {
  if (hidden.size > 0) hidden.clear();
  else classes.forEach((_, number) => hidden.add(number));
  filter();
});

byId("only-wrong").addEventListener("change", (event) => {
  onlyWrong = event.target.checked;
  filter();
});

function filter() {
  buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(!hidden.has(number))));
  byId("toggle-all").textContent = hidden.size > 0 ? "Show all" : "Hide all";
  if (selected && !isShown(selected)) select(null);
  byId("status").textContent = `${points.filter(isShown).length} of ${points.length} images shown`;
  fillTable();
  redraw();
}

/** The shown points by class and path, once the table is open. */
function fillTable() {
  if (!byId("table").open) return;
  const shown = points.filter(isShown).sort((a, b) => a.class - b.class || (a.path < b.path ? -1 : 1));
  const rows = shown.slice(0, MOST_ROWS).map((point) => {
    const row = element("tr");
    const predicted = point.predicted === null ? "" : classes[point.predicted].name;
    const cells = [classes[point.class].name, predicted, splits[point.split], point.path];
    row.append(...cells.map((cell) => element("td", "name", cell)));
    return row;
  });
  byId("rows").replaceChildren(...rows);
  const left = shown.length - rows.length;
  byId("table-note").textContent = left > 0 ? `The first ${rows.length}; hide classes to see the other ${left}.` : "";
}

byId("table").addEventListener("toggle", fillTable);

const predicted = points.filter((point) => point.predicted !== null).length;
byId("only-wrong-label").hidden = predicted === 0;
byId("only-wrong-text").textContent = `only misclassified (${points.filter(isWrong).length} of ${predicted}, ringed)`;
dark.addEventListener("change", redraw);
new ResizeObserver(() => moveTo(view.zoom, view.x, view.y)).observe(canvas);
moveTo(1, 0, 0);
filter();
