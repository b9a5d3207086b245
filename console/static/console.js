// What moves on the operator's page: new alerts, ages, the connection, the steps. Everything shown comes from the
// server as HTML; this file only puts it in place and counts the time.
"use strict";

const words = document.body.dataset;
const byId = (id) => document.getElementById(id);
const HEARTBEATS_MISSED_MS = 15000; // the server sends one every 5 s
const REFRESH_MS = 15000; // how gateways are comes with the queue, not with the events

// --- Product time: the server's clock, which may run faster than this machine's.
let clock = { now: Number(words.now), speed: Number(words.speed), at: performance.now() };
const now = () => clock.now + (performance.now() - clock.at) * clock.speed;

function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const parts = [[86400, words.day], [3600, words.hour], [60, words.minute], [1, words.second]];
  const first = parts.findIndex(([length]) => s >= length);
  if (first < 0) return `0 ${words.second}`;
  return parts.slice(first, first + 2)
    .map(([length, word], i) => [Math.floor((i === 0 ? s : s % parts[first][0]) / length), word])
    .filter(([n], i) => i === 0 || n > 0)
    .map(([n, word]) => `${n} ${word}`).join(" ");
}

function tick() {
  for (const time of document.querySelectorAll("time[data-age]")) time.textContent = duration(now() - Number(time.dataset.age));
  for (const time of document.querySelectorAll("time[data-since]")) {
    time.textContent = `${duration(now() - Number(time.dataset.since))}${words.ago === "前" ? "" : " "}${words.ago}`;
  }
  const quiet = performance.now() - heard;
  const isLost = quiet > HEARTBEATS_MISSED_MS || (everHeard && source.readyState !== EventSource.OPEN);
  const link = byId("link");
  const age = `${duration(quiet)}${words.ago === "前" ? "" : " "}${words.ago}`;
  link.textContent = everHeard || isLost ? (isLost ? `✕ ${words.disconnected} · ${age}` : `${words.connected} · ${age}`) : words.connecting;
  link.classList.toggle("bad", isLost);
  if (isLost && byId("lost").hidden) beep(3);
  byId("lost").hidden = !isLost;
  byId("lost-age").textContent = age;
}

// --- Events
let source;
let heard = performance.now();
let everHeard = false;
let last = words.after;

function listen() {
  source = new EventSource(`/api/v1/events?after=${last}`);
  const hear = () => { heard = performance.now(); everHeard = true; };
  source.addEventListener("clock", (event) => {
    hear();
    const told = JSON.parse(event.data);
    clock = { now: told.now, speed: told.speed, at: performance.now() };
  });
  source.addEventListener("transition", (event) => {
    hear();
    last = event.lastEventId;
    const { transition, alert } = JSON.parse(event.data);
    if (["raised", "opened", "repeated", "rang", "reminded", "escalated"].includes(transition.change) && alert.rings_since !== null) {
      const language = document.documentElement.lang === "en" ? "en" : "zh";
      byId("announce").textContent = language === "en"
        ? `${words.newAlert}: ${alert.priority} ${alert.title.en}. ${alert.sentence.en}`
        : `${words.newAlert}：${alert.priority} ${alert.title.zh}。${alert.sentence.zh}`;
      beep(alert.priority === "P1" ? 3 : 1);
    }
    refresh();
  });
  source.addEventListener("reload", () => { hear(); refresh(); });
  source.addEventListener("open", () => { refresh(); });
  source.addEventListener("error", () => {
    // The browser tries again by itself, except after an answer that was not a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

// --- The queue, swapped without losing what somebody is typing
let refreshing = false;
let again = false;

async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const lang = document.documentElement.lang === "en" ? "en" : "zh";
    const answer = await fetch(`/queue?lang=${lang}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.ok) swap(await answer.text());
  } catch { /* the connection's own state is shown at the top */ }
  refreshing = false;
  if (again) { again = false; setTimeout(refresh, 100); }
}

function swap(html) {
  const kept = [...document.querySelectorAll("#queue input, #queue select")]
    .filter((field) => field.value !== (field.tagName === "INPUT" ? field.defaultValue : "")).map((field) => [field.id, field.value]);
  const opened = [...document.querySelectorAll("#queue details[open]")].map((details) => details.id);
  const focus = document.activeElement && document.activeElement.id;
  const caret = document.activeElement && document.activeElement.selectionStart;
  byId("queue").innerHTML = html;
  for (const [id, value] of kept) { if (byId(id)) byId(id).value = value; }
  for (const id of opened) { if (byId(id)) byId(id).open = true; }
  if (focus && byId(focus) && document.activeElement !== byId(focus)) {
    byId(focus).focus({ preventScroll: true });
    if (typeof caret === "number" && byId(focus).setSelectionRange) byId(focus).setSelectionRange(caret, caret);
  }
  title();
  tick();
}

function title() {
  const n = Number(byId("alerts").dataset.open);
  document.title = document.title.replace(/^\(\d+\) /, "");
  if (n > 0) document.title = `(${n}) ${document.title}`;
}

// --- Steps
document.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-step]");
  if (!button) return;
  const operator = byId("operator").value.trim();
  if (!operator) { trouble(words.operatorMissing); byId("operator").focus(); return; }
  const form = button.closest("form");
  const body = { by: operator };
  let path = `/api/v1/alerts/${form.dataset.alert}/${button.dataset.step}`;
  if (button.dataset.step === "resolve") {
    body.outcome = form.elements.outcome.value;
    if (form.elements.note.value.trim()) body.note = form.elements.note.value.trim();
  }
  if (button.dataset.step === "enter") {
    path = `/api/v1/homes/${form.dataset.home}/intervals`;
    Object.assign(body, { kind: form.elements.kind.value, source: form.elements.source.value });
    if (form.elements.bed && form.elements.bed.value) body.bed = form.elements.bed.value;
    if (form.elements.hours.value) body.hours = Math.max(1, Math.round(Number(form.elements.hours.value)));
  }
  if (button.dataset.step === "end") path = `/api/v1/intervals/${button.dataset.interval}/end`;
  if (button.dataset.step === "name") {
    path = `/api/v1/homes/${form.dataset.home}`;
    const value = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");
    // Only what was changed here: somebody else may have changed the rest meanwhile.
    const changed = (...names) => names.some((name) => form.elements[name] && form.elements[name].value !== form.elements[name].defaultValue);
    if (changed("name")) body.name = value("name");
    body.beds = [];
    for (const id of form.dataset.beds ? form.dataset.beds.split(" ") : []) {
      const [person, phone, address] = ["person", "phone", "address"].map((field) => `${field}-${id}`);
      const bed = { id };
      if (changed(`bed-${id}`)) bed.name = value(`bed-${id}`);
      if (changed(person, phone, address)) bed.person = { name: value(person), phone: value(phone), address: value(address) };
      if (bed.name !== undefined || bed.person) body.beds.push(bed);
    }
  }
  button.disabled = true;
  try {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (answer.ok) trouble("");
    else {
      const { error } = await answer.json();
      trouble(`${words.failed} ${error.message[document.documentElement.lang === "en" ? "en" : "zh"]}`);
    }
  } catch { trouble(`${words.failed} ${words.lost}`); }
  button.disabled = false;
  refresh();
});

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = text === "";
}

// --- Operator's name and sound, remembered on this machine
const stored = (key) => { try { return localStorage.getItem(key) || ""; } catch { return ""; } };
const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode: asked again next time */ } };

let audio = null;
let isLoud = stored("carebed.sound") === "on";

function beep(times) {
  if (!isLoud) return;
  audio ??= new AudioContext();
  for (let i = 0; i < times; i += 1) {
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    const start = audio.currentTime + i * 0.35;
    tone.frequency.value = i % 2 ? 660 : 880;
    volume.gain.setValueAtTime(0.25, start);
    volume.gain.exponentialRampToValueAtTime(0.001, start + 0.3);
    tone.connect(volume).connect(audio.destination);
    tone.start(start);
    tone.stop(start + 0.3);
  }
}

function showSound() {
  byId("sound").textContent = isLoud ? words.soundOn : words.soundOff;
  byId("sound").setAttribute("aria-pressed", String(isLoud));
}

byId("sound").addEventListener("click", () => {
  isLoud = !isLoud;
  store("carebed.sound", isLoud ? "on" : "off");
  showSound();
  beep(1);
});
byId("operator").value = stored("carebed.operator");
byId("operator").addEventListener("input", () => { store("carebed.operator", byId("operator").value.trim()); trouble(""); });

showSound();
title();
listen();
tick();
setInterval(tick, 500);
setInterval(refresh, REFRESH_MS);
