// The page: puts the stream's messages into the video, the 3D view, the plots and the numbers.

import { connect } from "./stream.js";
import { makeControls } from "./controls.js";
import { COLORS, drawFrame } from "./overlay.js";
import { History, bendingGroups, drawPaths, groupJoints } from "./plots.js";
import { makeSpace } from "./space.js";

const at = (id) => document.getElementById(id);
const PLOTS_MS = 80; // between two drawings of the plots
const history = new History();
const shownAt = [];
let skeleton = null;
let angleGroups = [];
let pathGroups = [];
let pictures = true;
let connection = "connecting";
let stats = null;
let plotted = 0;

const space = await makeSpace(at("space"), (text) => say("space-notice", text));
if (matchMedia("(prefers-reduced-motion: reduce)").matches) at("turn").checked = space.turning = false;
const controls = makeControls({ say: tell, watch: (camera) => stream.watch(camera) });

const stream = connect({
  hello(message) {
    pictures = message.pictures;
    at("show-picture").disabled = !pictures;
    at("show-picture").parentElement.title = pictures ? "" : "This server keeps its pictures to itself";
    if (JSON.stringify(skeleton) !== JSON.stringify(message.skeleton)) {
      skeleton = message.skeleton;
      angleGroups = choose("angle-joint", bendingGroups(skeleton), /knee|elbow/);
      pathGroups = choose("path-joint", groupJoints(skeleton), /wrist|paw|hand/);
    }
    space.setSkeleton(skeleton);
    history.setSkeleton(skeleton);
    controls.hello(message);
  },
  frame(message, picture) {
    if (skeleton === null) return;
    history.add(message);
    const show = { skeleton: at("show-skeleton").checked, boxes: at("show-boxes").checked };
    const place = drawFrame(at("video"), message, at("show-picture").checked ? picture : null, skeleton, show);
    if (at("show-trail").checked && pathGroups.length) {
      const context = at("video").getContext("2d");
      drawPaths(context, history.paths(pathGroups[at("path-joint").value]), (side) => COLORS[side], place, at("video").width / 320);
    }
    space.show(message);
    shownAt.push(performance.now());
    if (shownAt.length > 300) shownAt.shift();
    at("subjects").textContent = message.subjects.length;
    say("space-key", message.scene ? "metres, of the calibrated cameras" : "drag to orbit, wheel to zoom");
    if (performance.now() - plotted > PLOTS_MS) drawPlots();
  },
  stats(message) {
    stats = message;
    showNumbers();
    showState();
    controls.stats(message);
  },
  state(state) {
    connection = state;
    showState();
  },
});

function drawPlots() {
  plotted = performance.now();
  const latest = history.drawAngles(at("angles"), angleGroups[at("angle-joint").value]);
  at("angle-now").replaceChildren(...latest.flatMap(({ side, degrees }) => {
    const mark = Object.assign(document.createElement("i"), { className: side });
    return [mark, ` ${degrees === null ? "–" : `${degrees.toFixed(0)}°`} `];
  }));
  history.drawPaths(at("path"), pathGroups[at("path-joint").value]);
}

/** Fill a select with groups of joints and choose the first that a reader is likely to want. */
function choose(id, groups, likely) {
  const first = Math.max(0, groups.findIndex(({ name }) => likely.test(name)));
  at(id).replaceChildren(...groups.map(({ name, joints }, n) => new Option(joints.length > 1 ? `${name}s` : name, n, false, n === first)));
  return groups;
}

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
  const stages = Object.entries(stats.stages_ms).filter(([, { p50 }]) => p50 !== undefined && p50 !== null);
  at("stages").textContent = stages.map(([name, { p50 }]) => `${name} ${number(p50)}`).join(" · ");
  history.drawLatency(at("histogram"), at("latency"), stats.latency_ms);
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

function say(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

/** A message under the header, with links: [[text, address]]; empty for none. */
function tell(text, links = []) {
  say("message", text);
  for (const [name, address] of links) {
    at("message").append(" ", Object.assign(document.createElement("a"), { href: address, textContent: name, download: name }));
  }
}

at("turn").addEventListener("change", (event) => { space.turning = event.target.checked; });
at("reset").addEventListener("click", () => space.reset());
at("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  drawPlots();
});
