// What the store tells by itself: one stream of server-sent events, resumed after the last
// event seen. Silence for five seconds is STALE: nothing old is shown as if it were now.

import { get } from "./api.js";

const STALE_AFTER_MS = 5000;
const EVENTS_KEPT = 500;
const POINTS_KEPT = 900;

export const live = {
  status: null, age: null, jobs: [], events: [], points: [], paused: false, connected: false, lastWord: 0, lastEvent: null,
};

const listeners = new Set();
let source = null;
let retry = null;

export const onChange = (listener) => listeners.add(listener);
const tell = () => listeners.forEach((listener) => listener());

export const isStale = () => live.lastWord > 0 && Date.now() - live.lastWord > STALE_AFTER_MS;

function heard() {
  live.lastWord = Date.now();
  live.connected = true;
}

const parse = (message) => JSON.parse(message.data);

function picture(message) {
  heard();
  const document = parse(message);
  live.status = document.data;
  live.age = document.data_age_seconds;
  live.points.push({ at: Date.parse(document.generated_at) / 1000, load: document.data.load, latency: document.data.latency_ms });
  if (live.points.length > POINTS_KEPT) live.points.shift();
  if (!live.paused) tell();
}

function happened(message) {
  heard();
  const event = parse(message).data;
  if (live.events.some((one) => one.number === event.number)) return;
  live.events.push(event);
  live.lastEvent = event.number;
  if (live.events.length > EVENTS_KEPT) live.events.shift();
  if (!live.paused) tell();
}

async function listEvents() {
  live.events = await get(`/v1/events?limit=${EVENTS_KEPT}`);
  const newest = live.events.at(-1);
  live.lastEvent = newest ? newest.number : 0;
}

export async function start(onLogout) {
  stop();
  await listEvents();
  open(onLogout);
}

function open(onLogout) {
  source = new EventSource(`/v1/stream?after=${live.lastEvent ?? 0}`);
  source.addEventListener("hello", heard);
  source.addEventListener("beat", heard);
  source.addEventListener("status", picture);
  source.addEventListener("event", happened);
  source.addEventListener("gap", () => listEvents().then(tell, () => {}));
  source.addEventListener("jobs", (message) => {
    heard();
    live.jobs = parse(message).data;
    if (!live.paused) tell();
  });
  source.onerror = () => {
    live.connected = false;
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    clearTimeout(retry);
    retry = setTimeout(async () => {
      try {
        await get("/v1/session");
        open(onLogout);
      } catch (problem) {
        if (problem.status === 401) onLogout();
        else open(onLogout);
      }
    }, 2000);
  };
}

export function stop() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

export function pause(paused) {
  live.paused = paused;
  tell();
}
