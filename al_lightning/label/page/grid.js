// The grid: rows that the model believes to be of one class, confirmed at once.

import { element, made } from "/server.js";
import { partOf } from "/picture.js";

const KEYS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const FEW = 24; // so many have room to be larger
const NUM_CELLS = 3; // of a table that a tile shows

let grid = null;

export function show(found) {
  grid = found;
  element("grid-title").textContent = `${grid.rows.length} of ${grid.num} that look like: ${grid.guess}`;
  element("tiles").classList.toggle("pictures", grid.rows.every((row) => row.picture));
  element("tiles").classList.toggle("few", grid.rows.length <= FEW);
  element("tiles").replaceChildren(...grid.rows.map(tile));
  count();
}

function tile(row, position) {
  const one = made("button", null, { type: "button", className: "tile" });
  one.setAttribute("aria-pressed", "true");
  one.setAttribute("aria-keyshortcuts", KEYS[position]);
  one.setAttribute("aria-label", row.name ?? `index ${row.index}`);
  if (row.picture) one.append(made("img", null, { src: row.picture, alt: "", draggable: false }));
  for (const part of row.picture ? [] : row.parts) {
    if (part.kind === "table") one.append(partOf({ ...part, cells: part.cells.slice(0, NUM_CELLS) }));
    else if (part.kind === "text" || part.kind === "problem") one.append(partOf(part));
  }
  one.append(made("kbd", KEYS[position], { ariaHidden: "true" }));
  one.addEventListener("click", () => {
    one.setAttribute("aria-pressed", one.getAttribute("aria-pressed") !== "true");
    count();
  });
  return one;
}

export function chosen() {
  const tiles = [...element("tiles").children];
  return grid.rows.filter((_, n) => tiles[n].getAttribute("aria-pressed") === "true");
}

export const guess = () => grid.guess;
export const answer = () => grid.answer;

function count() {
  const num = chosen().length;
  element("confirm-grid-text").textContent = `${num} ${num === 1 ? "is" : "are"} ${grid.guess}`;
  element("confirm-grid").disabled = num === 0;
}
