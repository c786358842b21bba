// The page: puts the stream's messages into the video, the 3D view and the numbers.

import { connect } from "./stream.js";
import { drawFrame } from "./overlay.js";
import { makeSpace } from "./space.js";

const at = (id) => document.getElementById(id);
const KEPT = 300;
const latencies = [];
const shownAt = [];
let skeleton = null;
let connection = "connecting";
let stats = null;

const space = await makeSpace(at("space"), (text) => say("space-notice", text));

connect({
  hello(message) {
    skeleton = message.skeleton;
    space.setSkeleton(skeleton);
    at("source").textContent = message.source;
    at("model").textContent = `${message.model} · ${message.runtime} · ${skeleton.joints.length} joints`;
  },
  frame(message, picture) {
    if (skeleton === null) return;
    drawFrame(at("video"), message, picture, skeleton, {
      picture: at("show-picture").checked, skeleton: at("show-skeleton").checked, boxes: at("show-boxes").checked,
    });
    space.show(message);
    keep(latencies, message.latency_ms);
    keep(shownAt, performance.now());
    at("subjects").textContent = message.subjects.length;
  },
  stats(message) {
    stats = message;
    showNumbers();
    showState();
  },
  state(state) {
    connection = state;
    showState();
  },
});

function showNumbers() {
  const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const recent = shownAt.filter((time) => time > performance.now() - 2000);
  const span = recent.length > 1 ? (recent.at(-1) - recent[0]) / 1000 : 0;
  at("shown-fps").textContent = number(span ? (recent.length - 1) / span : 0);
  at("inference-fps").textContent = number(stats.inference_fps);
  at("capture-fps").textContent = number(stats.capture_fps);
  at("p50").textContent = number(stats.latency_ms.p50);
  at("p95").textContent = number(stats.latency_ms.p95);
  at("shown-p95").textContent = number(stats.shown_latency_ms?.p95);
  at("dropped").textContent = stats.dropped;
  at("stages").textContent = Object.entries(stats.stages_ms).map(([name, { p50 }]) => `${name} ${number(p50)}`).join(" · ");
  drawLatency(at("latency"), stats.latency_ms);
}

function showState() {
  const state = connection === "connected" ? (stats?.state ?? "starting") : connection;
  at("connection").dataset.state = state;
  at("connection").textContent = state === "offline" ? "offline, reconnecting" : state;
  document.title = `${state} · streampose live`;
  const trouble = {
    offline: "The server does not answer. Trying again…",
    reconnecting: `The source is lost: ${stats?.error ?? "no frames"}. Trying again…`,
    ended: "The source has ended.",
    failed: `The session failed: ${stats?.error ?? ""}`,
  };
  say("notice", trouble[state] ?? "");
}

function drawLatency(canvas, { p50, p95 }) {
  const ratio = Math.min(devicePixelRatio, 2);
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  Object.assign(canvas, { width, height });
  if (!latencies.length) return;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const top = 1.25 * Math.max(p95 ?? 0, 10);
  const y = (value) => height - (Math.min(value, top) / top) * (height - 2 * ratio);
  const step = width / KEPT;
  context.fillStyle = resolve(style, "--accent");
  latencies.forEach((value, n) => context.fillRect(n * step, y(value), Math.max(1, step - 0.5), height - y(value)));
  context.font = `${11 * ratio}px system-ui, sans-serif`;
  for (const [value, name, color] of [[p50, "p50", "--good"], [p95, "p95", "--wait"]]) {
    if (value === null) continue;
    context.strokeStyle = context.fillStyle = resolve(style, color);
    context.beginPath();
    context.moveTo(0, y(value));
    context.lineTo(width, y(value));
    context.stroke();
    context.fillText(`${name} ${value.toFixed(1)} ms`, width - 90 * ratio, y(value) - 3 * ratio);
  }
}

/** The colour of a custom property; light-dark() is resolved by giving it to an element. */
function resolve(style, name) {
  resolve.probe ??= document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
  resolve.probe.style.color = style.getPropertyValue(name);
  return getComputedStyle(resolve.probe).color;
}

function keep(list, value) {
  list.push(value);
  if (list.length > KEPT) list.shift();
}

function say(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

at("turn").addEventListener("change", (event) => { space.turning = event.target.checked; });
at("reset").addEventListener("click", () => space.reset());
at("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});
