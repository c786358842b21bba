// What was seen in the last seconds: joint angles, the paths of joints, and how late the frames were.

const SECONDS = 10; // of the angle plot
const PATH_SECONDS = 5;
const LEAST_CONFIDENCE = 0.2;
const KEPT = 600; // frames

/** Joints that belong together: a left and a right one under their common name, or one in the middle. */
export function groupJoints(skeleton) {
  const groups = [];
  const taken = new Set();
  skeleton.joints.forEach((name, joint) => {
    if (taken.has(joint)) return;
    const pair = skeleton.flip_pairs.find((ends) => ends.includes(joint));
    const joints = pair ?? [joint];
    joints.forEach((one) => taken.add(one));
    const common = pair ? skeleton.joints[pair[0]].replace(/(^|[_\s-])(left|l)([_\s-]|$)/i, "$1$3").replace(/^[_\s-]+|[_\s-]+$/g, "") : name;
    groups.push({ name: (common || name).replaceAll("_", " "), joints, sides: pair ? ["left", "right"] : ["middle"] });
  });
  return groups;
}

/** The two neighbours between which a joint bends: its parent and its only child, or null where it has another number. */
function neighbours(skeleton, joint) {
  const parents = skeleton.bones.filter(([, child]) => child === joint);
  const children = skeleton.bones.filter(([parent]) => parent === joint);
  return parents.length === 1 && children.length === 1 ? [parents[0][0], children[0][1]] : null;
}

/** Groups of joints that have an angle. */
export function bendingGroups(skeleton) {
  return groupJoints(skeleton).filter(({ joints }) => joints.every((joint) => neighbours(skeleton, joint)));
}

/** Angle at a joint in degrees, 180 when stretched; null where it is not sure. */
export function angleAt(keypoints, skeleton, joint) {
  const [a, c] = neighbours(skeleton, joint).map((other) => keypoints[other]);
  const b = keypoints[joint];
  if (Math.min(a[3], b[3], c[3]) < LEAST_CONFIDENCE) return null;
  const [u, v] = [a, c].map((end) => [end[0] - b[0], end[1] - b[1], end[2] - b[2]]);
  const dot = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const lengths = Math.hypot(...u) * Math.hypot(...v);
  return lengths > 1e-6 ? (Math.acos(Math.max(-1, Math.min(1, dot / lengths))) * 180) / Math.PI : null;
}

/** Keeps the last seconds of the stream and draws them. */
export class History {
  constructor() {
    this.frames = [];
    this.skeleton = null;
  }

  setSkeleton(skeleton) {
    this.skeleton = skeleton;
    this.frames = [];
  }

  add(message) {
    const at = message.pts_seconds;
    const before = this.frames.at(-1)?.at;
    if (at < before || at > before + 2 * SECONDS) this.frames = []; // the source was opened again
    this.frames.push({ at, message });
    if (this.frames.length > KEPT) this.frames.shift();
  }

  /** The source's own time of the newest frame: frames that come in a burst are not of one moment. */
  get now() {
    return this.frames.at(-1)?.at ?? 0;
  }

  /** Draw the angles of a group; returns [{side, degrees}] of the newest frame. */
  drawAngles(canvas, group) {
    const { context, width, height, ratio, color } = prepare(canvas);
    const [left, bottom] = [30 * ratio, 16 * ratio];
    const { now } = this;
    const x = (at) => left + (1 - (now - at) / SECONDS) * (width - left);
    const y = (degrees) => 8 * ratio + (1 - degrees / 180) * (height - bottom - 8 * ratio);
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.lineWidth = ratio;
    for (const degrees of [0, 45, 90, 135, 180]) {
      context.strokeStyle = color("--line");
      line(context, [[left, y(degrees)], [width, y(degrees)]]);
      context.fillStyle = color("--dim");
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(`${degrees}°`, left - 4 * ratio, Math.min(y(degrees), height - bottom - 2 * ratio));
    }
    context.textBaseline = "bottom";
    for (const ago of [10, 5, 0]) {
      context.textAlign = ago === 0 ? "right" : ago === 10 ? "left" : "center";
      context.fillText(ago ? `−${ago} s` : "now", x(now - ago), height);
    }
    if (!group) return [];
    const recent = this.frames.filter(({ at }) => now - at < SECONDS);
    const first = recent.at(-1)?.message.subjects[0]?.id;
    context.save();
    context.beginPath();
    context.rect(left, 0, width - left, height);
    context.clip();
    context.lineWidth = 2 * ratio;
    context.lineJoin = "round";
    const latest = group.joints.map((joint, n) => {
      context.strokeStyle = color(`--${group.sides[n]}-ink`);
      let points = [];
      let degrees = null;
      for (const { at, message } of recent) {
        const subject = message.subjects.find(({ id }) => id === first);
        degrees = subject ? angleAt(subject.keypoints, this.skeleton, joint) : null;
        if (degrees === null) {
          line(context, points);
          points = [];
        } else points.push([x(at), y(degrees)]);
      }
      line(context, points);
      return { side: group.sides[n], degrees };
    });
    context.restore();
    return latest;
  }

  /** Paths of the group's joints in the picture: [{side, subject, points: [[x, y, age]]}] in source pixels. */
  paths(group) {
    const { now } = this;
    const recent = this.frames.filter(({ at }) => now - at < PATH_SECONDS);
    const subjects = recent.at(-1)?.message.subjects ?? [];
    return subjects.flatMap(({ id }) => group.joints.map((joint, n) => ({
      side: group.sides[n],
      points: recent.flatMap(({ at, message }) => {
        const point = message.subjects.find((subject) => subject.id === id)?.keypoints[joint];
        return point && point[3] >= LEAST_CONFIDENCE ? [[point[0], point[1], (now - at) / PATH_SECONDS]] : [];
      }),
    })));
  }

  /** Draw the paths of a group within the frame of the picture. */
  drawPaths(canvas, group) {
    const { context, width, height, ratio, color } = prepare(canvas);
    const size = this.frames.at(-1)?.message.size;
    if (!size || !group) return;
    const scale = Math.min((width - 2 * ratio) / size[0], (height - 2 * ratio) / size[1]);
    const [x0, y0] = [(width - size[0] * scale) / 2, (height - size[1] * scale) / 2];
    context.strokeStyle = color("--line");
    context.lineWidth = ratio;
    context.strokeRect(x0, y0, size[0] * scale, size[1] * scale);
    drawPaths(context, this.paths(group), (side) => color(`--${side}-ink`), ([x, y]) => [x0 + (x + 0.5) * scale, y0 + (y + 0.5) * scale], 2 * ratio);
  }

  /** Draw how the latencies are spread, and those of the last frames one by one. */
  drawLatency(histogram, timeline, { p50, p95, p99 }) {
    const values = this.frames.map(({ message }) => message.latency_ms);
    const top = niceTop(1.15 * Math.max(p99 ?? 0, 10));
    const marks = [["p50", p50, "--good"], ["p95", p95, "--wait"], ["p99", p99, "--bad"]].filter(([, value]) => value !== null && value !== undefined);
    this.drawHistogram(histogram, values, top, marks);
    const { context, width, height, ratio, color } = prepare(timeline);
    const step = width / KEPT;
    const y = (value) => height - (Math.min(value, top) / top) * (height - 2 * ratio);
    context.fillStyle = color("--accent");
    values.forEach((value, n) => context.fillRect(width - (values.length - n) * step, y(value), Math.max(1, step), height - y(value)));
    context.strokeStyle = color("--wait");
    if (marks.length > 1) line(context, [[0, y(p95)], [width, y(p95)]]);
    context.fillStyle = color("--dim");
    context.font = `${10 * ratio}px system-ui, sans-serif`;
    context.fillText(`last ${values.length} frames, to ${top} ms`, 2 * ratio, 10 * ratio);
  }

  drawHistogram(canvas, values, top, marks) {
    const { context, width, height, ratio, color } = prepare(canvas);
    const bins = new Array(40).fill(0);
    for (const value of values) bins[Math.min(bins.length - 1, Math.floor((value / top) * bins.length))] += 1;
    const most = Math.max(...bins, 1);
    const [head, foot] = [14 * ratio, 15 * ratio];
    context.fillStyle = color("--accent");
    bins.forEach((count, n) => {
      const tall = (count / most) * (height - head - foot);
      context.fillRect((n * width) / bins.length, height - foot - tall, width / bins.length - ratio, tall);
    });
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.fillStyle = color("--dim");
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      context.textAlign = part === 0 ? "left" : part === 1 ? "right" : "center";
      context.fillText(`${+(part * top).toFixed(1)}${part === 1 ? " ms" : ""}`, part * width, height - 3 * ratio);
    }
    let free = 0;
    for (const [name, value, variable] of marks) {
      const at = (Math.min(value, top) / top) * width;
      context.strokeStyle = context.fillStyle = color(variable);
      line(context, [[at, head - 3 * ratio], [at, height - foot]]);
      const text = `${name} ${value.toFixed(1)}`;
      const wide = context.measureText(text).width;
      context.textAlign = "left";
      const start = Math.min(Math.max(at - wide / 2, free), width - wide);
      context.fillText(text, start, 10 * ratio);
      free = start + wide + 6 * ratio;
    }
  }
}

/** Lines that fade with their age, and a dot where they end. */
export function drawPaths(context, paths, color, place, thickness) {
  context.lineCap = "round";
  for (const { side, points } of paths) {
    context.strokeStyle = context.fillStyle = color(side);
    for (let n = 1; n < points.length; n++) {
      context.globalAlpha = Math.max(0.05, 1 - points[n][2]);
      context.lineWidth = thickness;
      line(context, [place(points[n - 1]), place(points[n])]);
    }
    context.globalAlpha = 1;
    if (points.length) {
      context.beginPath();
      context.arc(...place(points.at(-1)), 2 * thickness, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

/** A canvas as sharp as the screen, empty; `color` gives the value of a custom property as it is at present. */
function prepare(canvas) {
  const ratio = Math.min(devicePixelRatio, 2);
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.lineWidth = ratio;
  return { context, width, height, ratio, color: resolve };
}

/** The colour of a custom property; light-dark() is resolved by giving it to an element. */
function resolve(name) {
  resolve.probe ??= document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
  resolve.probe.style.color = `var(${name})`;
  return getComputedStyle(resolve.probe).color;
}

function line(context, points) {
  if (points.length < 2) return;
  context.beginPath();
  points.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((digit) => digit * power).find((top) => top >= value);
}
