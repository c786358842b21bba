// The WebSocket of a live server: parses its messages, acknowledges frames, reconnects by itself.

const PAUSES_MS = [300, 600, 1200, 2500, 5000];

/**
 * Connect to `/v1/stream` and stay connected.
 * @param {{hello, frame, stats, state}} on  callbacks; `frame(message, ImageBitmap or null)`: while one is drawn, only the
 *   newest frame that arrives meanwhile is kept. `state` is "connecting", "connected" or "offline".
 * @returns {{watch}} `watch(camera)` asks for the frames of one camera from now on.
 */
export function connect(on) {
  let attempt = 0;
  let camera = 0;
  let current = null;

  function open() {
    on.state("connecting");
    const url = new URL(`v1/stream?video=jpeg&ack=1&camera=${camera}`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    current = socket;
    socket.binaryType = "arraybuffer";
    let waiting = null;
    let busy = false;

    async function drain() {
      if (busy) return;
      busy = true;
      while (waiting !== null) {
        const data = waiting;
        waiting = null;
        const { message, jpeg } = unpack(data);
        try {
          const picture = jpeg.length ? await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })) : null;
          on.frame(message, picture);
          picture?.close();
        } catch (problem) {
          console.warn("a frame could not be shown:", problem);
        }
        acknowledge(message, true);
      }
      busy = false;
    }

    function acknowledge({ number }, shown) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "ack", number, shown }));
    }

    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        if (message.type === "hello") {
          attempt = 0;
          on.state("connected");
        }
        on[message.type]?.(message);
        return;
      }
      if (waiting !== null) acknowledge(unpack(waiting).message, false);
      waiting = data;
      drain();
    };

    socket.onclose = async () => {
      on.state("offline");
      const pause = PAUSES_MS[Math.min(attempt++, PAUSES_MS.length - 1)];
      await new Promise((resolve) => { setTimeout(resolve, socket.replaced ? 0 : pause); });
      if (attempt > 1 && (await needsToken())) location.reload();
      else open();
    };
  }

  open();
  return {
    watch(number) {
      camera = number;
      current.replaced = true;
      current.close();
    },
  };
}

/** Whether the server answers, but wants a token first: then it shows the page on which to give it. */
async function needsToken() {
  try {
    return (await fetch("v1/skeleton")).status === 401;
  } catch {
    return false;
  }
}

/** A binary frame message: uint32 big-endian length of the JSON, the JSON, the JPEG. */
function unpack(data) {
  const length = new DataView(data).getUint32(0);
  const message = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  return { message, jpeg: new Uint8Array(data, 4 + length) };
}
