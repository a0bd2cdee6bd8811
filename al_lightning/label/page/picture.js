// What is seen of a row: its picture, which can be zoomed and moved, and its other parts.

import { element, made } from "/server.js";

const STEP = 1.5;
const MOST = 40;
const SMALL = 64; // pixels; up to here each is shown as a square, and larger pictures are smooth
const MOVE = 60; // pixels of the screen

const pictures = new Map(); // by address: the one on the screen and those that come next
const pointers = new Map(); // fingers or the mouse on the picture
let view = { zoom: 1, x: 0, y: 0 };
let shown = null; // the row
let isOriginal = false;

export function showRow(row, coming, title, folder) {
  const holder = element("picture");
  const needed = [row.picture, ...coming].filter(Boolean);
  for (const address of pictures.keys()) if (!needed.includes(address)) pictures.delete(address);
  for (const address of needed) if (!pictures.has(address)) pictures.set(address, load(address));
  shown = row;
  isOriginal = false;
  fit();
  element("parts").replaceChildren(...row.parts.map(partOf));
  holder.hidden = !row.picture && row.parts.length > 0;
  if (!row.picture) {
    holder.textContent = `There is no picture of this row in ${folder}; it can still be answered.`;
    return;
  }
  put(pictures.get(row.picture), title);
}

export function tools(row) {
  return {
    "zoom-in": Boolean(row.picture),
    "zoom-out": Boolean(row.picture),
    fit: Boolean(row.picture),
    original: Boolean(row.original),
    play: row.parts.some(({ kind }) => kind === "audio" || kind === "video"),
  };
}

function load(address) {
  const image = new Image();
  image.draggable = false;
  image.src = address;
  return image;
}

function put(image, title) {
  const holder = element("picture");
  image.alt = title;
  holder.replaceChildren(image);
  place();
  image.decode().then(
    () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL),
    () => {
      if (holder.contains(image)) holder.textContent = "The picture of this row cannot be read.";
    },
  );
}

export function partOf(part) {
  if (part.kind === "text") return made("p", part.text, { className: "text" });
  if (part.kind === "problem") return made("p", part.text, { className: "trouble" });
  if (part.kind === "picture") return made("img", null, { src: part.address, alt: "another picture" });
  if (part.kind === "table") {
    const table = made("table", null);
    for (const [name, value] of part.cells) {
      const row = table.insertRow();
      row.append(made("th", name, { scope: "row" }), made("td", value));
    }
    return table;
  }
  const player = made(part.kind, null, { src: part.address, controls: true, preload: "auto" });
  player.tabIndex = -1;
  return player;
}

// ---- zoom and pan ------------------------------------------------------------------------------

function place() {
  const image = element("picture").querySelector("img");
  if (!image) return;
  image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  element("picture").classList.toggle("zoomed", view.zoom > 1);
}

export function zoom(factor, x = 0, y = 0) {
  // The point under the pointer stays where it is; x and y count from the middle.
  const next = Math.min(MOST, Math.max(1, view.zoom * factor));
  const share = next / view.zoom;
  view = { zoom: next, x: x - (x - view.x) * share, y: y - (y - view.y) * share };
  pan(0, 0);
}

export const zoomIn = () => zoom(STEP);
export const zoomOut = () => zoom(1 / STEP);

export function fit() {
  view = { zoom: 1, x: 0, y: 0 };
  place();
}

export function pan(x, y) {
  const box = element("picture").getBoundingClientRect();
  const reach = (size) => (size * (view.zoom - 1)) / 2;
  const within = (value, most) => Math.min(most, Math.max(-most, value));
  view.x = within(view.x + x, reach(box.width));
  view.y = within(view.y + y, reach(box.height));
  place();
}

const ARROWS = { ArrowLeft: [MOVE, 0], ArrowRight: [-MOVE, 0], ArrowUp: [0, MOVE], ArrowDown: [0, -MOVE] };

export function panByKey(key) {
  if (view.zoom === 1 || !(key in ARROWS)) return false;
  pan(...ARROWS[key]);
  return true;
}

export function showOriginal() {
  if (!shown?.original) return false;
  isOriginal = !isOriginal;
  const address = isOriginal ? shown.original : shown.picture;
  const title = element("picture").querySelector("img")?.alt ?? "";
  put(isOriginal ? load(address) : pictures.get(address), title);
  return isOriginal;
}

export function play() {
  const player = element("parts").querySelector("audio, video");
  if (player?.paused) player.play();
  else player?.pause();
}

function fromMiddle({ clientX, clientY }) {
  const box = element("picture").getBoundingClientRect();
  return [clientX - box.x - box.width / 2, clientY - box.y - box.height / 2];
}

const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

function moved(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const others = [...pointers.values()].filter((one) => one !== before);
  pointers.set(event.pointerId, event);
  if (others.length === 0) pan(event.clientX - before.clientX, event.clientY - before.clientY);
  else zoom(apart([event, others[0]]) / (apart([before, others[0]]) || 1), ...fromMiddle(event));
}

export function listen() {
  const holder = element("picture");
  const lift = (event) => pointers.delete(event.pointerId);
  holder.addEventListener("pointerdown", (event) => pointers.set(event.pointerId, event));
  holder.addEventListener("pointermove", moved);
  for (const name of ["pointerup", "pointercancel", "pointerleave"])
    holder.addEventListener(name, lift);
  holder.addEventListener(
    "wheel",
    (event) => {
      if (!shown?.picture) return;
      event.preventDefault();
      zoom(STEP ** (-event.deltaY / 100), ...fromMiddle(event));
    },
    { passive: false },
  );
  holder.addEventListener("dblclick", () => (view.zoom > 1 ? fit() : zoom(4)));
}
