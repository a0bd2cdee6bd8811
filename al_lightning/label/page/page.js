// The labeling page. The server decides which row comes next and keeps every answer; here it is
// shown, and what the person does is sent. A row stays until the server has kept its answer. Keys
// that are pressed meanwhile wait in a line, and are used one by one as the rows appear.

import * as answers from "/answers.js";
import * as classes from "/classes.js";
import * as grid from "/grid.js";
import * as names from "/names.js";
import * as picture from "/picture.js";
import { element, made, request } from "/server.js";

const SECTIONS = ["row", "grid", "answers", "keys", "done", "confirm", "closed"];
const CHOSEN = ["grid", "answers", "keys", "confirm"]; // sections that a person opens
const PULSE = 5_000; // milliseconds between looks at the server
const QUICK_PULSE = 1_000; // while the model trains
const GUESSES = "al_lightning.label.hide_guesses";

let about; // of the query: what stays
let state; // what the server said last
let second = false; // whether rows come that only others answered, and labels in doubt
let chosen = null; // the section that the person has opened
let busy = true; // an answer is on its way, or the first row
let latest = 0; // number of the last request: a slower reply to an earlier one is old news
const waiting = []; // keys that were pressed while an answer was on its way
const held = []; // what waits to be done under the name that is being settled

// ---- the server --------------------------------------------------------------------------------

async function update(path, body, failed, done) {
  const number = ++latest;
  const { reply, problem } = await request(path, body);
  if (number !== latest) return;
  const unused = problem && waiting.length ? ` (${waiting.length} keys after it were not used)` : "";
  element("problem").textContent = problem ? `${failed}: ${problem}${unused}` : "";
  if (problem) {
    waiting.length = 0;
    return;
  }
  await take(reply, done);
}

async function take(reply, done) {
  state = reply;
  const isOther = state.cycle !== about.cycle || state.num_classes !== about.classes.length;
  if (!state.closed && isOther && !(await learnAbout())) return;
  if (!CHOSEN.includes(chosen) || state.closed || chosen === "confirm") chosen = null;
  show(done);
}

async function change(path, body, failed, done) {
  if (busy) return;
  if (names.isAsking()) {
    held.push(() => change(path, body, failed, done));
    return;
  }
  busy = true;
  element("result").textContent = "Keeping your answer ...";
  await update(path, { ...body, by: names.person() }, failed, done);
  busy = false;
  await drain();
}

function refresh() {
  const asked = new URLSearchParams({ by: names.person(), second });
  return update(`/state?${asked}`, null, "The query cannot be shown", "");
}

// A look at what others do: it never changes the row under a person's hands.
async function look() {
  const idle = state && !busy && !document.hidden && !names.isAsking();
  if (idle && state.closed && state.goes_on) await refresh();
  else if (idle && !state.closed) {
    const number = latest;
    const asked = new URLSearchParams({ by: names.person(), second });
    const { reply } = await request(`/state?${asked}`);
    if (!reply || busy || number !== latest) return;
    if (reply.closed || reply.cycle !== state.cycle || !state.row) await take(reply, "");
    else {
      state = { ...reply, row: state.row };
      showProgress();
    }
  }
}

let looking = Promise.resolve(); // a look goes under the name that was there when it began

async function beat() {
  looking = look();
  await looking;
  setTimeout(beat, state?.closed ? QUICK_PULSE : PULSE);
}

// ---- what a person does ------------------------------------------------------------------------

function answer(value, words) {
  const { row } = state;
  const body = { index: row.index, answer: value, settles: row.said.length > 0, second };
  if (Number.isInteger(value)) classes.note(value);
  change("/answer", body, "The answer was not kept", `Kept for ${shortTitle(row)}: ${words}.`);
}

// Several classes, or none of them, are one answer; so is what stands in the number field.
function keep() {
  if (about.task === "regression") return keepNumbers();
  const pressed = classes.pressed();
  const words = about.classes.filter((_, n) => pressed[n]).join("; ") || "none";
  answer(pressed.map(Number), words);
}

function keepNumbers() {
  const texts = element("number").value.split(";").map((text) => text.trim());
  const numbers = texts.map(Number);
  if (texts.includes("") || !numbers.every(Number.isFinite)) {
    element("problem").textContent =
      "The answer was not kept: write a number with a point, and several with ; between them";
    element("number").focus();
    return;
  }
  answer(numbers.length > 1 ? numbers : numbers[0], texts.join("; "));
}

function accept() {
  const { row } = state;
  if (row.likely_answer !== null) answer(row.likely_answer, row.guess);
}

function undo(index) {
  const body = index === undefined ? { second } : { second, index };
  const done = index === undefined ? "Your last answer was taken back." : "The answer was taken back.";
  chosen = null;
  change("/undo", body, "Nothing was taken back", done);
}

async function showGrid() {
  if (busy) return;
  busy = true; // a key that comes now is for the grid
  await openGrid();
  busy = false;
  await drain();
}

async function openGrid(done = "") {
  const asked = new URLSearchParams({ by: names.person() });
  const { reply, problem } = await request(`/grid?${asked}`);
  if (problem) element("problem").textContent = `The grid cannot be shown: ${problem}`;
  else if (reply.rows.length) {
    grid.show(reply);
    open("grid", done);
  } else {
    chosen = null;
    show(done || "The model has said nothing of the rows that are left.");
  }
}

async function confirmGrid() {
  if (busy) return;
  if (names.isAsking()) {
    held.push(confirmGrid);
    return;
  }
  const rows = grid.chosen();
  if (!rows.length) return;
  const indices = rows.map((row) => row.index);
  const done = `Kept for ${indices.length === 1 ? "1 row" : `${indices.length} rows`}: ${grid.guess()}.`;
  busy = true;
  const body = { indices, answer: grid.answer(), second, by: names.person() };
  await update("/answer_all", body, "The answers were not kept", done);
  if (element("problem").textContent === "" && !state.closed) await openGrid(done);
  busy = false;
  await drain();
}

function finish() {
  change("/finish", { num_open: state.num_open }, "The query was not closed", "");
}

function lookForSecond() {
  second = true;
  refresh();
}

function open(section, done = "") {
  chosen = section;
  show(done);
}

async function openRow(index) {
  if (busy) return;
  chosen = null;
  busy = true; // a key that comes now is for the row
  const asked = new URLSearchParams({ by: names.person(), second, show: index });
  await update(`/state?${asked}`, null, "The row cannot be opened", "");
  busy = false;
  await drain();
}

function openKeys() {
  const said = [...document.querySelectorAll("button[data-key]")].map((button) =>
    made("li", `${button.getAttribute("aria-keyshortcuts")}: ${button.firstChild.textContent.trim()}`),
  );
  element("keys-list").replaceChildren(...said);
  element("keys-text").textContent = classes.areMany()
    ? "Type letters to find a class, and press Enter for the first one."
    : "Number keys choose a class.";
  classes.ownKeys((key) => {
    const taken = document.querySelector(`button[data-key="${CSS.escape(key)}"]`);
    return classes.areMany() ? undefined : taken?.firstChild.textContent.trim();
  });
  open("keys");
}

// ---- keys --------------------------------------------------------------------------------------

const isField = (target) => target.matches?.("input, select, textarea") ?? false;
const ours = () => [element("number"), element("search")];

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const { target, key } = event;
  const onButton = target instanceof HTMLButtonElement;
  const writes = ours().includes(target) && key !== "Enter" && key !== "Escape";
  if (names.isAsking()) {
    // Yes and No are buttons; any other key waits for what is said.
    if (key.length > 1 || key === " " || target === element("name")) return;
    event.preventDefault();
    waiting.push(key);
    return;
  }
  if (isField(target) && !ours().includes(target) && key !== "Escape") return; // it is typed
  if (event.repeat) {
    if (onButton) event.preventDefault(); // a key held down is one answer, not many
    if (!writes) return;
  }
  if (busy) {
    // For the next row; one by one.
    if (key.length === 1 || ["Enter", "Backspace", "Escape"].includes(key)) {
      waiting.push(key);
      event.preventDefault();
      element("result").textContent = `Keeping your answer ... ${waiting.length} keys wait.`;
    }
    return;
  }
  if (writes) return;
  const chooses = onButton && target.hasAttribute("aria-pressed"); // Enter keeps the choice
  if (key === "Enter" && chooses) event.preventDefault();
  else if (key === "Enter" && onButton) return; // the browser presses it
  if (act(key)) event.preventDefault();
}

// Use a key; return whether it meant anything.
function act(key) {
  const section = SECTIONS.find((name) => !element(name).hidden);
  if (section === "row" && picture.panByKey(key)) return true;
  const exact = section === "grid" || classes.areMany();
  const alike = (one) => (exact ? one === key : one.toLowerCase() === key.toLowerCase());
  const meant = (button) => alike(button.getAttribute("aria-keyshortcuts").replace("Shift+", ""));
  if (section === "row" && writesField(key)) return true;
  const buttons = [...document.querySelectorAll("button[aria-keyshortcuts]")];
  const found = buttons.find((button) => meant(button) && button.checkVisibility() && !button.disabled);
  found?.click();
  return Boolean(found);
}

// Put a key into the field of numbers or of the search, where it belongs there.
function writesField(key) {
  const number = about.task === "regression" ? element("number") : null;
  const field = classes.areMany() ? element("search") : number;
  if (!field) return false;
  if (key === "Escape" && field === element("search")) return clearSearch();
  if (key === "Enter") {
    if (field === element("search") && field.value) classes.chooseFirst();
    else if (field !== element("search")) keep();
    return true;
  }
  const begins = field === number ? /^[-+.;\d]$/ : /^[\p{Ll}\p{Lo}/]$/u;
  const takesAll = field === number && field.matches(":focus");
  if (key === "Backspace") field.value = field.value.slice(0, -1);
  else if (key.length === 1 && (field.value || takesAll || (begins.test(key) && !classes.isOwn(key))))
    field.value += key === "/" ? "" : key;
  else return false;
  field.focus();
  field.dispatchEvent(new Event("input"));
  return true;
}

function clearSearch() {
  classes.find("");
  element("search").blur();
  return true;
}

async function drain() {
  while (waiting.length && !busy && !names.isAsking()) {
    const key = waiting.shift();
    // Enter was meant for a row, and closes no query.
    const closes = key === "Enter" && !element("done").hidden;
    if (!closes) act(key);
  }
}

// ---- what is shown -----------------------------------------------------------------------------

const rows = (num) => (num === 1 ? "1 row" : `${num} rows`);
const shortTitle = (row) => (row.number ? `row ${row.number}` : `the row with index ${row.index}`);
const hidesGuesses = () => localStorage.getItem(GUESSES) === "true";

function title(row) {
  const place = row.number
    ? `Row ${row.number} of ${about.num_rows}`
    : row.doubt === undefined ? "A row that was not asked for" : "A label in doubt";
  return `${place}: ${row.name ?? `index ${row.index}`}`;
}

function show(done) {
  const section = state.closed ? "closed" : chosen ?? (state.row ? "row" : "done");
  const before = SECTIONS.find((name) => !element(name).hidden);
  for (const name of SECTIONS) element(name).hidden = name !== section;
  element("always").hidden = !["row", "done", "grid"].includes(section);
  element("finish-early").hidden = section !== "row";
  element("result").textContent = done;
  if (section === "closed") showClosed();
  else showProgress();
  if (section === "row") showRow(state.row);
  if (section === "done") showDone();
  if (section === "confirm") showConfirm();
  showTools(section);
  announce(section, done);
  // What had the focus may be hidden now.
  if (before && before !== section) element(`${section}-title`).focus();
  if (section === "row" && about.task === "regression") element("number").focus();
}

function showProgress() {
  const { num_open, num_differing, num_yours, num_tabs } = state;
  const num = about.num_rows - num_open;
  element("progress").max = about.num_rows;
  element("progress").value = num;
  const differ = num_differing ? `, people differ on ${num_differing}` : "";
  element("progress-text").textContent =
    `${num} of ${rows(about.num_rows)} answered${differ}, ${num_yours} by you`;
  element("tabs").textContent =
    num_tabs > 1 ? `You have this page open in ${num_tabs} tabs; the same rows come in each.` : "";
}

function showRow(row) {
  element("row-title").textContent = title(row);
  element("guess").replaceChildren(...guesses(row).map((text) => made("span", text)));
  element("second-hint").hidden = !row.second;
  element("second-hint").textContent = row.yours
    ? `You answered: ${row.yours}. Another answer replaces it.`
    : "Somebody else answered this row; give a second opinion.";
  element("doubt-hint").hidden = row.doubt === undefined;
  element("doubt-hint").textContent =
    `The label is ${row.doubt}, which the model gives a chance of ${row.likely}. ` +
    "Choose the same class to keep it, or another one.";
  element("differing").hidden = row.said.length === 0;
  element("said").replaceChildren(...row.said.map(({ by, answer }) => made("li", `${by}: ${answer}`)));
  classes.clear(hidesGuesses() ? null : row.guess);
  element("search").blur();
  element("number").value = "";
  const folder = `${about.folder}/queries/cycle_${about.cycle}/images`;
  picture.showRow(row, state.next_pictures, title(row), folder);
}

function guesses(row) {
  if (hidesGuesses()) return [];
  const found = [];
  if (row.guess !== null) found.push(`model's guess: ${row.guess}`);
  if (row.score !== null) found.push(`uncertainty (${about.strategy}) ${row.score}`);
  return found;
}

function showTools(section) {
  const isRow = section === "row";
  const hasGuess = isRow && state.row.likely_answer !== null && !hidesGuesses();
  const seen = {
    accept: hasGuess,
    "hide-guess": isRow,
    "open-grid": (isRow || section === "done") && about.task !== "regression" && !hidesGuesses(),
    "open-answers": isRow || section === "done",
    "open-keys": isRow,
    ...(isRow ? picture.tools(state.row) : picture.tools({ parts: [] })),
  };
  for (const [id, isSeen] of Object.entries(seen)) element(id).hidden = !isSeen;
  element("hide-guess").setAttribute("aria-pressed", hidesGuesses());
  element("original").setAttribute("aria-pressed", false);
}

function showDone() {
  const { num_second, num_doubts } = state;
  const opinion = num_second ? `Second opinion on ${rows(num_second)}` : "";
  const doubt = num_doubts === 1 ? "1 label in doubt" : num_doubts ? `${num_doubts} labels in doubt` : "";
  element("second").textContent = [opinion, doubt].filter(Boolean).join(", ");
  element("second").hidden = num_second + num_doubts === 0;
}

function showConfirm() {
  const { num_open, num_differing } = state;
  element("finish-now").hidden = num_differing > 0;
  element("confirm-text").textContent = num_differing
    ? `People differ on ${rows(num_differing)}; that must be settled first.`
    : `${rows(num_open)} without an answer would return to the pool.`;
}

function showClosed() {
  const { closed, progress, is_over, goes_on } = state;
  const trains = progress ? "The model trains" : "The query is closed";
  element("closed-title").textContent = is_over ? "The run is over" : trains;
  element("closed-text").textContent = closed;
  element("training").hidden = !progress;
  element("training-text").textContent = progress?.words ?? "";
  if (progress?.done === null) element("training-bar").removeAttribute("value");
  else element("training-bar").value = progress?.done ?? 0;
  const results = (state.results ?? []).map(([num, metrics]) => made("li", `${num} labels: ${metrics}`));
  element("training-results").replaceChildren(...results.reverse());
  element("may-close").hidden = goes_on;
  element("tabs").textContent = "";
}

function announce(section, done) {
  const row = section === "row" ? [title(state.row), ...guesses(state.row)] : [];
  const differ = section === "row" && state.row.said.length ? ["people differ on this row"] : [];
  const heading = section === "row" ? [] : [element(`${section}-title`).textContent];
  element("announcer").textContent = `${done} ${[...row, ...differ, ...heading].join(", ")}`.trim();
}

// ---- the beginning -----------------------------------------------------------------------------

async function learnAbout() {
  const { reply, problem } = await request("/about");
  if (problem) {
    element("problem").textContent = `The query cannot be shown: ${problem}`;
    return false;
  }
  about = reply;
  second = false;
  names.learn(about.people);
  element("title").textContent = about.cycle === null ? "Labeling" : `Labeling, cycle ${about.cycle}`;
  classes.begin(about, answer);
  element("number-field").hidden = about.task !== "regression";
  element("keep").hidden = !["multilabel", "regression"].includes(about.task);
  for (const button of document.querySelectorAll("button[data-key]")) {
    const letter = button.dataset.key;
    const isLetter = classes.areMany() && /[a-z]/.test(letter);
    const key = isLetter ? letter.toUpperCase() : letter;
    button.setAttribute("aria-keyshortcuts", isLetter ? `Shift+${key}` : key);
    button.querySelector("kbd")?.remove();
    button.append(made("kbd", key, { ariaHidden: "true" }));
  }
  return true;
}

async function begin() {
  if (!(await learnAbout())) return;
  const leave = () => {
    chosen = null;
    show("");
  };
  const clicks = {
    keep,
    skip: () => answer("skip", "skip"),
    invalid: () => answer("invalid", "invalid"),
    undo: () => undo(),
    accept,
    "finish-all": finish,
    "finish-now": finish,
    "finish-early": () => open("confirm"),
    "go-on": leave,
    second: lookForSecond,
    "open-grid": showGrid,
    "confirm-grid": confirmGrid,
    "leave-grid": leave,
    "open-answers": () => answers.load().then(() => open("answers")),
    "leave-answers": leave,
    "open-keys": openKeys,
    "leave-keys": () => learnAbout().then(leave),
    "zoom-in": picture.zoomIn,
    "zoom-out": picture.zoomOut,
    fit: picture.fit,
    original: () => element("original").setAttribute("aria-pressed", picture.showOriginal()),
    play: picture.play,
    "hide-guess": () => {
      localStorage.setItem(GUESSES, !hidesGuesses());
      show("");
    },
  };
  for (const [id, click] of Object.entries(clicks)) element(id).addEventListener("click", click);
  element("search").addEventListener("input", () => classes.find(element("search").value));
  document.addEventListener("keydown", pressed);
  answers.listen(openRow, undo);
  picture.listen();
  const digit = (key) => (names.isAsking() ? waiting.push(key) : act(key));
  await names.begin(about, () => looking, whenNamed, digit);
  if (!state) await refresh();
  element("tools").hidden = false;
  busy = false;
  await drain();
  beat();
}

async function whenNamed() {
  if (!held.length) await refresh();
  while (held.length) await held.shift()();
  await drain();
}

begin();
