// The turning 3D view: three.js where WebGL works, else the same poses drawn on a 2D canvas.

import { jointColors } from "./overlay.js";

const REST_MS = 4000; // after the user let go, the view turns on by itself
const TURN = 0.35; // radians a second
const OTHER = 0.35; // how dense hypotheses are drawn

/** Make the view that this browser can show; `notice(text)` says why it is the simple one. */
export async function makeSpace(container, notice) {
  try {
    const three = await import("./vendor/three.module.min.js");
    return new WebglSpace(container, three);
  } catch (problem) {
    console.warn("3D falls back to a 2D canvas:", problem);
    container.replaceChildren();
    notice("WebGL is not available here: the 3D view is drawn in 2D");
    return new CanvasSpace(container);
  }
}

/** Keypoints of all subjects in metres-like units: a subject about 1.7 high around the origin, y up, z to the viewer;
 * `others` are the hypotheses of a lifter, whose joints may be null. */
function placeSubjects(message, skeleton, memory) {
  if (message.scene?.subjects.length) return placeScene(message, skeleton, memory);
  const first = message.subjects[0];
  if (!first) return [];
  const spread = (index) => {
    const values = first.keypoints.map((point) => point[index]);
    return Math.max(...values) - Math.min(...values);
  };
  const size = Math.max(spread(0), spread(1), spread(2), 1);
  // The extent changes with the pose: follow it slowly, so that the figure does not pump.
  memory.size = memory.id === first.id ? memory.size + 0.15 * (size - memory.size) : size;
  memory.id = first.id;
  const scale = 1.7 / memory.size;
  const origin = first.keypoints[skeleton.root];
  const placed = ([x, y, z]) => [(x - origin[0]) * scale, (origin[1] - y) * scale, -z * scale];
  return message.subjects.map((subject) => ({
    id: subject.id,
    confidence: subject.keypoints.map((point) => point[3]),
    points: subject.keypoints.map(placed),
    others: (subject.hypotheses?.poses ?? []).map((pose) => pose.map((point) => point && placed(point))),
  }));
}

/** Subjects of calibrated cameras, in metres around where the first one usually is; joints that are not known lie at its middle. */
function placeScene(message, skeleton, memory) {
  const subjects = message.scene.subjects.filter(({ points }) => points.some(Boolean));
  if (!subjects.length) return [];
  const middle = (points) => {
    const known = points.filter(Boolean);
    return [0, 1, 2].map((axis) => known.reduce((sum, point) => sum + point[axis], 0) / known.length);
  };
  const up = findUp(message, subjects, memory);
  const side = [0, 1, 2].filter((axis) => axis !== up.axis);
  const turned = (point) => [point[side[0]], point[up.axis] * up.sign, point[side[1]] * up.hand];
  const centre = turned(middle(subjects[0].points));
  memory.centre = memory.centre?.map((value, axis) => value + 0.03 * (centre[axis] - value)) ?? centre;
  return subjects.map((subject) => {
    const rest = middle(subject.points);
    return {
      id: subject.id,
      confidence: subject.points.map((point) => (point ? 1 : 0)),
      others: [],
      points: subject.points.map((point) => turned(point ?? rest).map((value, axis) => value - memory.centre[axis])),
    };
  });
}

/** Which axis of the world goes up in the picture of this camera, and whether it does so with its sign. */
function findUp(message, subjects, memory) {
  const sums = memory.up ?? [0, 0, 0];
  for (const { points, views } of subjects) {
    const seen = message.subjects.find(({ id }) => id === views[message.camera])?.keypoints;
    if (!seen) continue;
    const known = points.flatMap((point, joint) => (point ? [[point, -seen[joint][1]]] : []));
    const mean = (pick) => known.reduce((sum, entry) => sum + pick(entry), 0) / known.length;
    const height = mean(([, y]) => y);
    for (const axis of [0, 1, 2]) {
      const rest = mean(([point]) => point[axis]);
      sums[axis] = 0.98 * sums[axis] + mean(([point, y]) => (point[axis] - rest) * (y - height)) / message.size[1];
    }
  }
  memory.up = sums;
  const axis = sums.map(Math.abs).indexOf(Math.max(...sums.map(Math.abs)));
  const sign = sums[axis] < 0 ? -1 : 1;
  return { axis, sign, hand: (axis === 1 ? 1 : -1) * sign }; // keeps left and right as they are
}

class WebglSpace {
  constructor(container, three) {
    this.three = three;
    this.container = container;
    this.memory = {};
    this.figures = [];
    this.renderer = new three.WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    container.replaceChildren(this.renderer.domElement);
    this.scene = new three.Scene();
    this.camera = new three.PerspectiveCamera(38, 1, 0.05, 50);
    this.scene.add(new three.HemisphereLight(0xffffff, 0x56697c, 2.2));
    const sun = new three.DirectionalLight(0xffffff, 1.6);
    sun.position.set(2, 4, 3);
    this.scene.add(sun);
    const grid = new three.GridHelper(4, 16, 0x4d6172, 0x2a3844);
    grid.position.y = -1;
    this.scene.add(grid);
    this.orbit = new three.OrbitControls(this.camera, this.renderer.domElement);
    this.orbit.enableDamping = true;
    this.orbit.autoRotateSpeed = (TURN * 60) / (2 * Math.PI);
    this.orbit.minDistance = 1;
    this.orbit.maxDistance = 12;
    this.turning = true;
    this.renderedAt = this.rendered = this.cost = 0;
    let rest = 0;
    this.orbit.addEventListener("start", () => { clearTimeout(rest); this.touched = true; });
    this.orbit.addEventListener("end", () => { rest = setTimeout(() => { this.touched = false; }, REST_MS); });
    this.reset();
    new ResizeObserver(() => this.resize()).observe(container);
    this.resize();
    this.renderer.setAnimationLoop((now) => this.render(now));
  }

  reset() {
    this.camera.position.set(1.1, 0.5, 3.9);
    this.orbit.target.set(0, -0.05, 0);
    this.orbit.update();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  /** At most 30 pictures a second; without a graphics processor coarser and fewer, so that the page has time for the rest. */
  render(now = performance.now()) {
    if (now - this.renderedAt < Math.max(30, 4 * this.cost)) return;
    this.renderedAt = now;
    this.orbit.autoRotate = this.turning && !this.touched;
    this.orbit.update();
    this.renderer.render(this.scene, this.camera);
    if (this.rendered++ % 20 === 1) this.measure();
  }

  /** How long a picture takes, until its pixels are there. */
  measure() {
    const gl = this.renderer.getContext();
    const begun = performance.now();
    this.renderer.render(this.scene, this.camera);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    this.cost = Math.min(performance.now() - begun, 250);
    if (this.cost > 20 && this.renderer.getPixelRatio() > 0.5) this.renderer.setPixelRatio(this.renderer.getPixelRatio() / 2);
  }

  setSkeleton(skeleton) {
    for (const figure of this.figures) this.scene.remove(figure.group);
    this.figures = [];
    this.skeleton = skeleton;
  }

  show(message) {
    const subjects = placeSubjects(message, this.skeleton, this.memory);
    while (this.figures.length < subjects.length) this.figures.push(this.makeFigure());
    this.figures.forEach((figure, n) => {
      figure.group.visible = n < subjects.length;
      if (figure.group.visible) this.pose(figure, subjects[n]);
    });
  }

  makeFigure() {
    const { Group, Mesh, MeshLambertMaterial, SphereGeometry, CylinderGeometry } = this.three;
    const group = new Group();
    const colors = jointColors(this.skeleton);
    const material = (color) => new MeshLambertMaterial({ color, transparent: true });
    const ball = new SphereGeometry(0.032, 16, 12);
    const stick = new CylinderGeometry(0.017, 0.017, 1, 12);
    const joints = colors.map((color) => new Mesh(ball, material(color)));
    const bones = this.skeleton.bones.map(([, child]) => new Mesh(stick, material(colors[child])));
    group.add(...joints, ...bones);
    this.scene.add(group);
    return { group, joints, bones, colors, others: [] };
  }

  /** Thin sticks for one more hypothesis of a figure. */
  makeOther(figure) {
    const { Mesh, MeshLambertMaterial, CylinderGeometry } = this.three;
    const stick = new CylinderGeometry(0.008, 0.008, 1, 4);
    const sticks = this.skeleton.bones.map(
      ([, child]) => new Mesh(stick, new MeshLambertMaterial({ color: figure.colors[child], transparent: true, opacity: OTHER })),
    );
    figure.group.add(...sticks);
    return sticks;
  }

  /** Put a stick of length 1 between two points. */
  lay(stick, from, to) {
    const along = to.clone().sub(from);
    const length = Math.max(along.length(), 1e-4);
    stick.position.copy(from).addScaledVector(along, 0.5);
    stick.scale.set(1, length, 1);
    stick.quaternion.setFromUnitVectors(new this.three.Vector3(0, 1, 0), along.divideScalar(length));
  }

  pose(figure, { points, confidence, others }) {
    const vector = (point) => point && new this.three.Vector3(...point);
    const ends = points.map(vector);
    const opacity = (value) => 0.2 + 0.8 * Math.min(1, value);
    figure.joints.forEach((joint, n) => {
      joint.position.copy(ends[n]);
      joint.material.opacity = opacity(confidence[n]);
    });
    figure.bones.forEach((bone, n) => {
      const [parent, child] = this.skeleton.bones[n];
      this.lay(bone, ends[parent], ends[child]);
      bone.material.opacity = opacity(Math.min(confidence[parent], confidence[child]));
    });
    while (figure.others.length < others.length) figure.others.push(this.makeOther(figure));
    figure.others.forEach((sticks, number) => {
      const other = others[number]?.map(vector);
      sticks.forEach((stick, n) => {
        const [parent, child] = this.skeleton.bones[n];
        stick.visible = Boolean(other?.[parent] && other[child]);
        if (stick.visible) this.lay(stick, other[parent], other[child]);
      });
    });
  }
}

class CanvasSpace {
  constructor(container) {
    this.canvas = document.createElement("canvas");
    container.replaceChildren(this.canvas);
    this.container = container;
    this.memory = {};
    this.subjects = [];
    this.turning = true;
    this.reset();
    this.canvas.addEventListener("pointerdown", (event) => { this.touched = true; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      this.angle += event.movementX * 0.01;
      this.tilt = Math.min(1.4, Math.max(-1.4, this.tilt + event.movementY * 0.01));
    });
    this.canvas.addEventListener("pointerup", () => setTimeout(() => { this.touched = false; }, REST_MS));
    this.canvas.addEventListener("wheel", (event) => {
      this.zoom = Math.min(4, Math.max(0.3, this.zoom * Math.exp(-event.deltaY * 0.001)));
      event.preventDefault();
    }, { passive: false });
    let before = performance.now();
    const tick = (now) => {
      if (this.turning && !this.touched) this.angle += (TURN * (now - before)) / 1000;
      before = now;
      this.render();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  reset() {
    this.angle = -0.3;
    this.tilt = 0.15;
    this.zoom = 1;
  }

  setSkeleton(skeleton) {
    this.skeleton = skeleton;
    this.subjects = [];
  }

  show(message) {
    this.subjects = placeSubjects(message, this.skeleton, this.memory);
  }

  render() {
    const { canvas, container } = this;
    const ratio = Math.min(devicePixelRatio, 2);
    const [width, height] = [container.clientWidth * ratio, container.clientHeight * ratio];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const unit = (this.zoom * Math.min(width, height)) / 2.7;
    const [sin, cos, sinTilt, cosTilt] = [Math.sin(this.angle), Math.cos(this.angle), Math.sin(this.tilt), Math.cos(this.tilt)];
    const project = ([x, y, z]) => {
      const [turnedX, turnedZ] = [x * cos + z * sin, z * cos - x * sin];
      const depth = turnedZ * cosTilt + y * sinTilt;
      const near = unit * (4 / (4 - depth));
      return [width / 2 + turnedX * near, height / 2 - (y * cosTilt - turnedZ * sinTilt) * near, depth];
    };
    context.lineWidth = ratio;
    context.strokeStyle = "#2f3f4d";
    for (let line = -8; line <= 8; line++) {
      for (const ends of [[[line / 4, -1, -2], [line / 4, -1, 2]], [[-2, -1, line / 4], [2, -1, line / 4]]]) {
        stroke(context, project(ends[0]), project(ends[1]));
      }
    }
    if (!this.skeleton) return;
    const colors = jointColors(this.skeleton);
    context.lineCap = "round";
    for (const { points, confidence, others } of this.subjects) {
      context.globalAlpha = OTHER;
      context.lineWidth = 0.01 * unit;
      for (const other of others) {
        for (const [parent, child] of this.skeleton.bones) {
          context.strokeStyle = colors[child];
          if (other[parent] && other[child]) stroke(context, project(other[parent]), project(other[child]));
        }
      }
      const ends = points.map(project);
      const bones = this.skeleton.bones.map(([a, b]) => [a, b, ends[a][2] + ends[b][2]]).sort((a, b) => a[2] - b[2]);
      for (const [parent, child] of bones) {
        context.globalAlpha = 0.2 + 0.8 * Math.min(confidence[parent], confidence[child], 1);
        context.strokeStyle = colors[child];
        context.lineWidth = 0.032 * unit;
        stroke(context, ends[parent], ends[child]);
      }
    }
    context.globalAlpha = 1;
  }
}

function stroke(context, from, to) {
  context.beginPath();
  context.moveTo(from[0], from[1]);
  context.lineTo(to[0], to[1]);
  context.stroke();
}
