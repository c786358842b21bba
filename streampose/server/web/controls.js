// What the user may ask of the server: another source or model, another camera, a recording.

const at = (id) => document.getElementById(id);

/** Wire the controls; `say(text, links)` shows a message, `watch(camera)` changes the camera of the stream. */
export function makeControls({ say, watch }) {
  let hello = null;
  let recording = false;

  for (const [id, field] of [["sources", "source"], ["models", "model"]]) {
    at(id).addEventListener("change", async (event) => {
      const wanted = event.target.value;
      say(`changing the ${field} to ${wanted}…`);
      busy(true);
      const answer = await ask("PUT", "v1/session", { [field]: wanted });
      busy(false);
      say(answer.problem ?? "");
      await refresh();
    });
  }
  at("cameras").addEventListener("change", (event) => watch(Number(event.target.value)));
  at("record").addEventListener("click", async () => {
    at("record").disabled = true;
    const answer = await ask(recording ? "DELETE" : "POST", "v1/recording");
    at("record").disabled = false;
    if (answer.problem) say(answer.problem);
    else if (!answer.running) {
      const listing = await ask("GET", "v1/recordings");
      const files = (listing.names ?? []).filter((name) => name.startsWith(answer.name));
      say(`recorded ${answer.frames} frames in ${answer.seconds.toFixed(1)} s${answer.error ? `, ended: ${answer.error}` : ""}:`,
        files.map((name) => [name, `v1/recordings/${encodeURIComponent(name)}`]));
    } else say("");
    showRecording(answer.problem ? null : answer);
  });

  function busy(is) {
    for (const id of ["sources", "models", "record"]) at(id).disabled = is || (id === "record" && !hello?.recordings);
  }

  /** Fill the switchers from the listings of the server. */
  async function refresh() {
    const [sources, models] = await Promise.all([ask("GET", "v1/sources"), ask("GET", "v1/models")]);
    fill("sources", "source", sources, hello.source);
    fill("models", "model", models, hello.model);
  }

  function fill(id, label, listing, text) {
    const names = listing.names ?? [];
    at(id).hidden = names.length < 1 || listing.current === null;
    at(label).hidden = !at(id).hidden;
    at(label).textContent = text;
    at(id).replaceChildren(...names.map((name) => new Option(shorten(name), name, false, name === listing.current)));
    at(id).title = text;
  }

  function showRecording(message) {
    recording = Boolean(message?.running);
    at("record").setAttribute("aria-pressed", String(recording));
    at("record-text").textContent = recording ? `stop ${clock(message.seconds)}` : "record";
  }

  return {
    hello(message) {
      hello = message;
      at("runtime").textContent = `${message.model} · ${message.runtime} · ${message.skeleton.joints.length} joints`;
      at("record").disabled = !message.recordings;
      at("record").title = message.recordings ? "Record what is shown and the poses, on the server" : "Off: start the server with --recordings FOLDER";
      at("cameras-label").hidden = message.cameras.length < 2;
      if (at("cameras").options.length !== message.cameras.length) {
        at("cameras").replaceChildren(...message.cameras.map((name, n) => new Option(shorten(name), n)));
      }
      refresh();
    },
    stats(message) { showRecording(message.recording); },
  };
}

async function ask(method, path, body) {
  try {
    const options = body ? { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : { method };
    const answer = await fetch(path, options);
    const content = await answer.json();
    return answer.ok ? content : { problem: content.detail ?? `the server answered ${answer.status}` };
  } catch {
    return { problem: "the server does not answer" };
  }
}

/** The end of a path says more than its beginning. */
function shorten(name) {
  return name.length > 40 ? `…${name.slice(-39)}` : name;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
