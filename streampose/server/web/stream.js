// The WebSocket of a live server: parses its messages, acknowledges frames, reconnects by itself.

const PAUSES_MS = [300, 600, 1200, 2500, 5000];

/**
 * Connect to `/v1/stream` and stay connected.
 * @param {{hello, frame, stats, state}} on  callbacks; `frame(message, ImageBitmap)` may be async: while one runs, only
 *   the newest frame that arrives meanwhile is kept. `state` is "connecting", "connected" or "offline".
 */
export function connect(on) {
  let attempt = 0;

  function open() {
    on.state("connecting");
    const url = new URL("v1/stream?video=jpeg&ack=1", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
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
          const picture = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
          on.frame(message, picture);
          picture.close();
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

    socket.onclose = () => {
      on.state("offline");
      setTimeout(open, PAUSES_MS[Math.min(attempt++, PAUSES_MS.length - 1)]);
    };
  }

  open();
}

/** A binary frame message: uint32 big-endian length of the JSON, the JSON, the JPEG. */
function unpack(data) {
  const length = new DataView(data).getUint32(0);
  const message = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  return { message, jpeg: new Uint8Array(data, 4 + length) };
}
