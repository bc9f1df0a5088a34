"use strict";
/* One study, one rater at a time, no network. The state is what localStorage holds and nothing else:
   { token, position, answers: { trial id: { choice, ms, at, layout } } }. Texts enter as text, never as markup. */

const study = JSON.parse(document.getElementById("study").textContent);
const byId = (id) => document.getElementById(id);
const medium = study.media.kind === "video" ? "video" : "picture";
const Medium = medium[0].toUpperCase() + medium.slice(1);
const SETTLE_MS = 250; // a key pressed for the last pair does not answer the next one
const SHOWN_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 140;
const AHEAD = 3; // pairs loaded before they are needed
const KEY_LABELS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const SIDES = ["left", "right"];

let rater = null;
let state = null;
let trials = []; // of this rater, in order
let screen = null;
let clock = { since: null, spent: 0 };
let ready = false; // both sides are on the screen and keys count
let busy = false; // an answer was given and the next pair is not there yet
let shownAt = 0;
let stopLockstep = null;
let keeps = true; // false where the browser stores nothing
const ahead = new Map();

/* ---- what is kept ---- */

const storageKey = (name) => `gentron-humaneval/${study.study_id}/${name}`;

function load(name) {
  try {
    const kept = JSON.parse(localStorage.getItem(storageKey(name)));
    if (kept && kept.answers && kept.token) return kept;
  } catch {
    keeps = false;
  }
  return null;
}

function keep() {
  try {
    localStorage.setItem(storageKey(rater), JSON.stringify(state));
  } catch {
    keeps = false;
  }
  if (!keeps) warn("This browser does not keep answers. Save them to a file before you close or reload the page.");
}

function newState() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return { token: Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(""), position: 0, answers: {} };
}

function warn(text) {
  byId("warning").textContent = text;
  byId("warning").hidden = false;
}

const trialsOf = (name) => study.trials.filter((trial) => trial.rater === name);
const questionOf = (trial) => study.questions.find((question) => question.name === trial.question);
const numDone = () => trials.filter((trial) => state.answers[trial.id]).length;

/* ---- files of answers ---- */

function record() {
  return {
    schema_version: 1,
    kind: "gentron-humaneval-answers",
    study_id: study.study_id,
    study_sha256: study.sha256,
    rater,
    token: state.token,
    simulated: false,
    complete: numDone() === trials.length,
    saved_at: new Date().toISOString(),
    answers: trials
      .filter((trial) => state.answers[trial.id])
      .map((trial) => ({ trial: trial.id, question: trial.question, ...state.answers[trial.id] })),
  };
}

const COLUMNS = ["study_id", "study_sha256", "rater", "token", "simulated", "trial", "question", "choice", "ms", "at", "layout"];

function cell(value) {
  const text = String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // no formula for a spreadsheet to run
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function table() {
  const { answers, ...head } = record();
  const rows = answers.map((answer) => COLUMNS.map((name) => cell(answer[name] ?? head[name] ?? "")).join(","));
  return [COLUMNS.join(","), ...rows].join("\r\n") + "\r\n";
}

function save(kind) {
  const text = kind === "csv" ? table() : JSON.stringify(record(), null, 1) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  link.download = `answers-${study.study_id}-${rater}.${kind}`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  byId("saved").textContent = `Saved as ${link.download}, in your downloads. You may save again at any time.`;
  say(`Saved as ${link.download}`);
}

/* ---- screens ---- */

const say = (text) => { byId("live").textContent = text; };

function show(name) {
  screen = name;
  for (const id of ["start", "intro", "trial", "done"]) byId(id).hidden = id !== name;
  byId("bar").hidden = name === "start";
  byId("back").hidden = name !== "trial";
  leavePair();
  const title = byId({ start: "start-title", intro: "intro-title", trial: "ask", done: "done-title" }[name]);
  title.focus({ preventScroll: true });
}

function showProgress() {
  const done = numDone();
  byId("fill").style.width = `${(100 * done) / trials.length}%`;
  const bar = document.querySelector(".track");
  bar.setAttribute("aria-valuemax", trials.length);
  bar.setAttribute("aria-valuenow", done);
  const names = study.questions.map((question) => question.name);
  const trial = trials[Math.min(state.position, trials.length - 1)];
  const tasks = names.length > 1 ? `Task ${names.indexOf(trial.question) + 1} of ${names.length}` : "";
  byId("where").textContent = state.position < trials.length ? tasks : "All done";
  byId("count").textContent = `${Math.min(state.position + 1, trials.length)} / ${trials.length}`;
  byId("save-now").disabled = done === 0;
}

function showStart() {
  const asked = new URLSearchParams(location.search).get("rater") ?? location.hash.slice(1);
  const invited = study.raters.includes(asked) ? asked : study.raters.length === 1 ? study.raters[0] : null;
  byId("start-title").textContent = study.title;
  const one = study.questions.length === 1;
  byId("start-text").textContent =
    `You will see two ${medium}s at a time and answer ${one ? "one question" : `${study.questions.length} questions, one after the other,`}` +
    ` about each pair. There are no right answers: your own judgement is what counts.`;
  const facts = byId("start-facts");
  facts.replaceChildren();
  for (const text of [
    `${trialsOf(study.raters[0]).length} pairs. Take the time that a careful look needs, and breaks when you like.`,
    "Your answers stay in this browser. Nothing is sent anywhere; at the end you save a file.",
    "After a reload you continue where you were.",
  ]) {
    const item = document.createElement("li");
    item.textContent = text;
    facts.append(item);
  }
  const select = byId("rater");
  select.replaceChildren(new Option("Choose…", ""));
  for (const name of study.raters) select.append(new Option(name, name));
  byId("rater-row").hidden = invited !== null;
  select.value = invited ?? "";
  const update = () => {
    const kept = select.value ? load(select.value) : null;
    const done = kept ? Object.keys(kept.answers).length : 0;
    byId("begin").disabled = !select.value;
    byId("begin-label").textContent = done ? "Continue" : "Begin";
    byId("start-note").textContent = done ? `${done} of ${trialsOf(select.value).length} are answered on this device.` : "";
  };
  select.onchange = update;
  update();
  show("start");
}

function begin() {
  rater = byId("rater").value;
  if (!rater) return;
  trials = trialsOf(rater);
  state = load(rater) ?? newState();
  keep();
  proceed();
}

/** The screen that fits the position: a task begins with its introduction. */
function proceed() {
  busy = false;
  showProgress();
  if (state.position >= trials.length) return showDone();
  const trial = trials[state.position];
  const isFirst = state.position === 0 || trials[state.position - 1].question !== trial.question;
  if (isFirst && !state.answers[trial.id]) showIntro(questionOf(trial));
  else showTrial();
}

function keysOf(question, list) {
  list.replaceChildren();
  const rows = question.choices.map((choice) => [choice.keys, choice.label]);
  rows.push([["Backspace"], "Back to the pair before"], [["Space"], `Enlarge; there, ← and → change between the two`]);
  if (medium === "video") rows.push([["P"], "Pause and go on"]);
  for (const [keys, label] of rows) {
    const term = document.createElement("dt");
    for (const key of keys) term.append(kbd(key));
    const what = document.createElement("dd");
    what.textContent = label;
    list.append(term, what);
  }
}

function kbd(key) {
  const element = document.createElement("kbd");
  element.textContent = KEY_LABELS[key] ?? key;
  return element;
}

function showIntro(question) {
  const place = study.questions.indexOf(question);
  byId("intro-step").textContent = study.questions.length > 1 ? `Task ${place + 1} of ${study.questions.length}` : "Your task";
  byId("intro-title").textContent = question.ask;
  byId("intro-help").textContent = question.help;
  keysOf(question, byId("intro-keys"));
  show("intro");
  prefetch();
}

function showDone() {
  show("done");
}

/* ---- a pair ---- */

function address(file) {
  return `media/${encodeURIComponent(file)}`;
}

/** An element of a file that loads; `.loaded` resolves when it can be shown. */
function element(file) {
  if (study.media.kind === "image") {
    const image = new Image();
    image.src = address(file);
    image.loaded = image.decode();
    image.loaded.catch(() => {});
    return image;
  }
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
  video.loaded = new Promise((resolve, reject) => {
    video.addEventListener("canplaythrough", resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("video")), { once: true });
  });
  video.loaded.catch(() => {});
  video.src = address(file);
  return video;
}

function elements(trial) {
  if (!ahead.has(trial.id)) ahead.set(trial.id, SIDES.map((side) => element(trial[side])));
  return ahead.get(trial.id);
}

function prefetch() {
  const next = trials.slice(state.position, state.position + AHEAD + 1);
  next.forEach(elements);
  for (const id of ahead.keys()) if (!next.some((trial) => trial.id === id)) ahead.delete(id);
}

async function showTrial() {
  const trial = trials[state.position];
  const question = questionOf(trial);
  show("trial");
  byId("ask").textContent = question.ask;
  byId("prompt").hidden = !question.shows_prompt;
  byId("prompt").textContent = question.shows_prompt ? study.texts[trial.text] : "";
  byId("back").disabled = !mayGoBack();
  byId("pause").hidden = medium !== "video";
  byId("failed").hidden = true;
  byId("pair").hidden = false;
  byId("pair").classList.add("waiting");
  showAnswers(question, state.answers[trial.id]?.choice);
  const pair = elements(trial);
  SIDES.forEach((side, k) => {
    pair[k].classList.add("medium");
    if (study.media.kind === "image") pair[k].alt = `${Medium} ${k + 1}`;
    else pair[k].setAttribute("aria-label", `${Medium} ${k + 1}`);
    byId(side).replaceChildren(pair[k], byId(side).querySelector("figcaption") ?? "");
  });
  say(`Pair ${state.position + 1} of ${trials.length}`);
  const current = () => screen === "trial" && trials[state.position] === trial && byId("left").contains(pair[0]);
  try {
    await Promise.all(pair.map((one) => one.loaded));
  } catch {
    if (current()) showFailure(trial);
    return;
  }
  if (!current()) return;
  byId("pair").classList.remove("waiting");
  if (medium === "video") stopLockstep = lockstep(...pair);
  startClock();
  ready = true;
  for (const button of byId("answers").children) button.disabled = false;
  prefetch();
}

function showFailure(trial) {
  byId("pair").hidden = true;
  byId("failed").hidden = false;
  byId("failed-text").textContent =
    `This pair did not load. The folder “media” must lie beside this page, with all its files.`;
  byId("retry").onclick = () => {
    ahead.delete(trial.id);
    showTrial();
  };
}

function showAnswers(question, chosen) {
  const group = byId("answers");
  group.classList.toggle("four", question.choices.length === 4);
  group.replaceChildren();
  for (const choice of question.choices) {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = true;
    button.dataset.choice = choice.code;
    button.setAttribute("aria-pressed", String(choice.code === chosen));
    const label = document.createElement("span");
    label.textContent = choice.label;
    button.append(label, kbd(choice.keys[0]));
    button.onclick = () => answer(choice.code);
    group.append(button);
  }
}

function answer(code) {
  if (!ready || performance.now() - shownAt < SETTLE_MS) return;
  const trial = trials[state.position];
  ready = false;
  busy = true;
  const boxes = SIDES.map((side) => byId(side).getBoundingClientRect());
  state.answers[trial.id] = {
    choice: code,
    ms: Math.round(timeSpent()),
    at: new Date().toISOString(),
    layout: boxes[1].top >= boxes[0].bottom ? "column" : "row",
  };
  const open = trials.findIndex((one, k) => k > state.position && !state.answers[one.id]);
  state.position = open < 0 ? trials.length : open; // after a step back, where it was left
  keep();
  for (const button of byId("answers").children) {
    button.setAttribute("aria-pressed", String(button.dataset.choice === code));
    button.disabled = true;
  }
  setTimeout(proceed, SHOWN_MS);
}

const mayGoBack = () => state.position > 0 && trials[state.position - 1].question === trials[Math.min(state.position, trials.length - 1)].question;

function goBack() {
  if (busy || !mayGoBack()) return;
  state.position -= 1;
  keep();
  showProgress();
  showTrial();
}

/* ---- time: while the pair is on the screen and the page in front ---- */

function startClock() {
  shownAt = performance.now();
  clock = { since: document.hidden ? null : shownAt, spent: 0 };
}

function timeSpent() {
  return clock.spent + (clock.since === null ? 0 : performance.now() - clock.since);
}

document.addEventListener("visibilitychange", () => {
  clock = { spent: timeSpent(), since: document.hidden ? null : performance.now() };
});

function leavePair() {
  ready = false;
  if (stopLockstep) stopLockstep();
  stopLockstep = null;
  if (byId("zoom").open) byId("zoom").close();
}

/* ---- two videos as one: same start, same speed, same loop ---- */

let paused = false;

function lockstep(first, second) {
  let running = true;
  let restarting = false;
  const both = [first, second];
  const frame = 1 / (study.media.fps ?? 25);
  const seek = (video, time) => new Promise((resolve) => {
    video.addEventListener("seeked", resolve, { once: true });
    video.currentTime = time;
  });
  const restart = async () => {
    restarting = true;
    both.forEach((video) => { video.pause(); video.playbackRate = 1; });
    await Promise.all(both.map((video) => seek(video, 0)));
    if (running && !paused) await Promise.all(both.map((video) => video.play().catch(() => {})));
    restarting = false;
  };
  const tick = () => {
    if (!running) return;
    if (!restarting && !paused) {
      const drift = first.currentTime - second.currentTime;
      if (both.some((video) => video.ended)) restart();
      else if (Math.abs(drift) > 2 * frame) second.currentTime = first.currentTime;
      // a small drift is taken back by speed: a seek would be seen
      else second.playbackRate = Math.abs(drift) > frame / 4 ? 1 + Math.max(-0.1, Math.min(0.1, drift)) : 1;
    }
    requestAnimationFrame(tick);
  };
  restart();
  requestAnimationFrame(tick);
  return () => {
    running = false;
    both.forEach((video) => video.pause());
  };
}

function togglePause() {
  if (medium !== "video" || screen !== "trial") return;
  paused = !paused;
  byId("pause").firstChild.textContent = paused ? "Play " : "Pause ";
  for (const video of document.querySelectorAll(".frame video")) {
    if (paused) video.pause();
    else video.play().catch(() => {});
  }
}

/* ---- enlarged ---- */

let zoomed = "left";

function enlarge(side) {
  if (!ready) return;
  zoomed = side;
  SIDES.forEach((name, k) => {
    const button = byId(`zoom-${name}`);
    button.textContent = `${Medium} ${k + 1}`;
    button.setAttribute("aria-pressed", String(name === side));
  });
  const source = byId(side).querySelector(".medium");
  const copy = source.cloneNode();
  if (medium === "video") {
    Object.assign(copy, { muted: true, loop: true, currentTime: source.currentTime });
    if (!paused) copy.play().catch(() => {});
  }
  byId("zoom-frame").replaceChildren(copy);
  if (!byId("zoom").open) byId("zoom").showModal();
}

byId("zoom").addEventListener("close", () => byId("zoom-frame").replaceChildren());

function zoomKey(event) {
  if (event.key === "ArrowLeft" || event.key === "1") enlarge("left");
  else if (event.key === "ArrowRight" || event.key === "2") enlarge("right");
  else if (event.key === " ") byId("zoom").close();
  else return;
  event.preventDefault();
}

/* ---- keys and buttons ---- */

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (byId("help").open) return;
  if (byId("zoom").open) return zoomKey(event);
  const onControl = event.target.closest?.("button, select, a");
  if (event.key === "Enter") {
    if (onControl && event.target.id !== "rater") return; // the browser presses it
    if (screen === "start") begin();
    else if (screen === "intro") showTrial();
    else if (screen === "done") save("json");
    return;
  }
  if (event.key === "Backspace" && (screen === "trial" || screen === "done")) {
    event.preventDefault();
    return goBack();
  }
  if (screen !== "trial") return;
  if (event.key === " ") {
    if (onControl) return;
    event.preventDefault();
    return enlarge("left");
  }
  if (event.key === "p" || event.key === "P") return togglePause();
  const question = questionOf(trials[state.position]);
  const choice = question?.choices.find((one) => one.keys.includes(event.key));
  if (choice) {
    event.preventDefault();
    answer(choice.code);
  }
}

function showHelp() {
  const trial = trials[Math.min(state.position, trials.length - 1)];
  const question = questionOf(trial);
  byId("help-title").textContent = question.ask;
  byId("help-text").textContent = question.help;
  keysOf(question, byId("help-keys"));
  byId("help").showModal();
}

byId("begin").onclick = begin;
byId("go").onclick = showTrial;
byId("back").onclick = goBack;
byId("review").onclick = goBack;
byId("pause").onclick = togglePause;
byId("enlarge").onclick = () => enlarge("left");
byId("save-now").onclick = () => save("json");
byId("save-json").onclick = () => save("json");
byId("save-csv").onclick = () => save("csv");
byId("help-open").onclick = showHelp;
byId("help-close").onclick = () => byId("help").close();
byId("zoom-close").onclick = () => byId("zoom").close();
for (const side of SIDES) {
  byId(`zoom-${side}`).onclick = () => enlarge(side);
  byId(side).onclick = () => enlarge(side);
}
document.addEventListener("keydown", onKey);
window.addEventListener("storage", (event) => {
  if (rater && event.key === storageKey(rater)) location.reload(); // answered in another tab
});
document.documentElement.style.setProperty("--ratio", String(study.media.width / study.media.height));
showStart();
