// Microphone and loudspeaker of a call: opened at the device's own rate, watched, and mended where they fail. `state` is
// one of: asking, opening, on, suspended, stalled, unplugged, silenced; Opening throws what `whyNot` names.
const STALLED_MS = 500, LOOK_MS = 250;
// Firefox on Linux hangs for ever where it is asked in a call: it locks its graph to ask the sound server, which waits for
// the graph. tests/client/page/test_page.py found it.
const ASKS_LATENCY = !navigator.userAgent.includes("Firefox"), USUAL_LATENCY_MS = 40;

export function whyNot(error) { // the name of a state, see state.js
  const names = { NotAllowedError: "refused", NotFoundError: "absent", NotReadableError: "busy", OverconstrainedError: "absent" };
  return names[error.name] ?? (error.message === "insecure" ? "insecure" : "broken");
}

export class Sound {
  // on: {beat(data), change()}; the devices are ids, "" for the usual ones
  constructor(on) {
    Object.assign(this, { on, input: "", output: "", heardAt: 0, muted: false });
    this.pushed_ms = this.before_ms = this.gapsBefore = 0; // the agent's sound so far; what contexts before this one had of it
    this.look = setInterval(() => this.#look(), LOOK_MS);
    this.plugged = () => this.state === "unplugged" && this.mend();
    navigator.mediaDevices?.addEventListener("devicechange", this.plugged);
  }

  get state() {
    const { context, track } = this;
    if (!context) return "asking";
    if (performance.now() < this.heardAt) return "opening";
    if (context.state !== "running") return "suspended"; // suspended, or interrupted by a phone call
    if (!track || track.readyState === "ended") return "unplugged";
    if (performance.now() - this.heardAt > STALLED_MS) return "stalled";
    return track.muted ? "silenced" : "on";
  }

  async openMicrophone() {
    if (!navigator.mediaDevices) throw new Error("insecure");
    this.#listen(await this.#ask());
  }

  async openLoudspeaker() { // and the way from the microphone; what is pushed before is lost
    await this.#play();
  }

  push(samples) {
    this.pushed_ms += samples.length / 24;
    this.node?.port.postMessage(samples);
  }

  mute(muted) { // silence goes on in time
    this.muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  async mend() { // after a tap, or a new device
    const { state } = this;
    try {
      if (state === "suspended") await this.context.resume();
      if (state === "stalled") await this.#play();
      if (["unplugged", "silenced"].includes(state)) this.#listen(await this.#ask());
    } catch {
      // It stays as it is, and is still told.
    }
    this.on.change();
  }

  async choose(input, output) {
    const other = input !== this.input;
    Object.assign(this, { input, output });
    if (!this.context) return;
    if (other) this.#listen(await this.#ask());
    await this.context.setSinkId?.(output);
  }

  get outputLatency_ms() {
    return ASKS_LATENCY ? 1000 * (this.context?.outputLatency || 0) : USUAL_LATENCY_MS;
  }

  close() {
    clearInterval(this.look);
    navigator.mediaDevices?.removeEventListener("devicechange", this.plugged);
    this.track?.stop();
    this.closed = true;
    if (this.context && this.context.state !== "closed") this.context.close();
  }

  #ask() {
    const usual = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const audio = this.input ? { ...usual, deviceId: { exact: this.input } } : usual;
    return navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
      if (!this.input || error.name !== "OverconstrainedError") throw error;
      this.input = ""; // the chosen one is gone: the usual one
      return this.#ask();
    });
  }

  #listen(stream) { // to this microphone, in place of the one before
    if (this.closed) return stream.getTracks().forEach((track) => track.stop());
    this.track?.stop();
    this.source?.disconnect();
    this.stream = stream;
    [this.track] = stream.getAudioTracks();
    this.track.enabled = !this.muted;
    this.track.onmute = this.track.onunmute = () => this.on.change();
    this.track.onended = () => this.mend();
    this.#connect();
  }

  async #play() { // a new context at the device's own rate: the worklet resamples
    this.context?.close();
    const context = this.context = new AudioContext({ latencyHint: "interactive" });
    this.node = null;
    this.heardAt = performance.now() + 2000; // until then it is opening, and not stalled
    context.onstatechange = () => {
      if (context !== this.context || this.closed) return;
      if (context.state !== "running" && context.state !== "closed") context.resume().catch(() => {});
      this.on.change();
    };
    await context.audioWorklet.addModule("/worklet.js");
    if (this.output) await context.setSinkId?.(this.output).catch(() => {});
    if (this.closed || context !== this.context) return context.state === "closed" ? undefined : context.close();
    [this.before_ms, this.gapsBefore] = [this.pushed_ms, this.gaps ?? 0];
    const node = this.node = new AudioWorkletNode(context, "duplex", { outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => {
      if (node !== this.node || this.closed) return;
      this.heardAt = performance.now();
      this.gaps = data.gaps + this.gapsBefore;
      this.on.beat({ ...data, passed_ms: data.passed_ms + this.before_ms, gaps: this.gaps });
    };
    node.connect(context.destination);
    this.#connect();
  }

  #connect() {
    if (!this.node || !this.stream) return;
    this.source = this.context.createMediaStreamSource(this.stream);
    this.source.connect(this.node);
  }

  #look() {
    const { state } = this;
    if (state !== this.told) this.on.change();
    this.told = state;
  }
}

export async function devices() { // {inputs, outputs}: [{id, name}], where the browser tells
  const found = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
  const of = (kind) => found.filter((one) => one.kind === kind && one.label && one.deviceId !== "default")
    .map(({ deviceId, label }) => ({ id: deviceId, name: label }));
  return { inputs: of("audioinput"), outputs: of("audiooutput") };
}
