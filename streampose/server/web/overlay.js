// Draws a frame and its skeletons on one canvas, so that picture and skeleton are always of the same moment.

export const COLORS = { left: "#3cc8ff", right: "#ff9628", middle: "#78ff78" };

/** Colour of each joint of a skeleton: left, right or between. */
export function jointColors(skeleton) {
  const colors = skeleton.joints.map(() => COLORS.middle);
  for (const [left, right] of skeleton.flip_pairs) {
    colors[left] = COLORS.left;
    colors[right] = COLORS.right;
  }
  return colors;
}

/**
 * Draw one frame message; keypoints are pixels of the source, whose picture may have been sent smaller, or not at all.
 * Returns the function that gives a point of the source its place on the canvas.
 */
export function drawFrame(canvas, message, picture, skeleton, show) {
  const shrunk = Math.min(1, 960 / message.size[0]);
  const width = picture?.width ?? Math.round(message.size[0] * shrunk);
  const height = picture?.height ?? Math.round(message.size[1] * shrunk);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const scale = canvas.width / message.size[0];
  // Pixel centres are integers in the messages and half-integers on a canvas.
  const place = ([x, y]) => [(x + 0.5) * scale, (y + 0.5) * scale];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalAlpha = 1;
  if (picture) context.drawImage(picture, 0, 0);
  else {
    context.fillStyle = "#0a0f14";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  const colors = jointColors(skeleton);
  for (const subject of message.subjects) {
    const seen = (joint) => (subject.visibility?.[joint] === 0 ? 0 : 1);
    const points = subject.keypoints.map((point, joint) => [...place(point), point[3] * seen(joint)]);
    if (show.boxes) drawBox(context, subject, scale);
    if (show.skeleton) drawSkeleton(context, points, skeleton.bones, colors, canvas.width, subject.box, scale);
  }
  return place;
}

function drawSkeleton(context, points, bones, colors, width, box, scale) {
  const size = Math.max(1.5, Math.min(width / 220, ((box[2] - box[0]) * scale) / 45));
  context.lineCap = "round";
  for (const [color, extra] of [["#000000", 1.6], [null, 0]]) {
    for (const [parent, child] of bones) {
      const [x0, y0, c0] = points[parent];
      const [x1, y1, c1] = points[child];
      context.globalAlpha = opacity(Math.min(c0, c1)) * (color ? 0.55 : 1);
      context.strokeStyle = color ?? colors[child];
      context.lineWidth = size + extra;
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
    }
  }
  points.forEach(([x, y, confidence], joint) => {
    context.globalAlpha = opacity(confidence);
    context.fillStyle = colors[joint];
    context.beginPath();
    context.arc(x, y, size * 1.05, 0, 2 * Math.PI);
    context.fill();
  });
  context.globalAlpha = 1;
}

function drawBox(context, subject, scale) {
  const [x0, y0, x1, y1] = subject.box.map((value) => value * scale);
  context.strokeStyle = "#ffffffb0";
  context.lineWidth = 1;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.fillStyle = "#ffffff";
  context.font = "13px system-ui, sans-serif";
  context.fillText(`#${subject.id}`, Math.max(x0, 0) + 5, Math.max(y0, 0) + 16);
}

/** An unsure joint is drawn fainter, never left out. */
function opacity(confidence) {
  return 0.15 + 0.85 * Math.min(1, Math.max(0, confidence));
}
