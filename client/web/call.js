// One call: sound and socket brought together tick by tick, and what is known of it at any moment.
import { Connection, NO_SERVER } from "./connection.js";
import { read, soFar, speak, spread, whole } from "./conversation.js";
import { Sound, whyNot } from "./sound.js";
import { listen } from "./state.js";
import { RATE, TICK_MS } from "./wire.js";

const AUDIBLE = 5e-3, PART = 480; // a sample of the agent's voice; samples of a part of a tick, 20 ms
const ANSWER_S = 15, RUN_S = 6; // a voice that comes later is no answer; a turn begins at most so long before it is known
const MENDABLE = ["suspended", "stalled", "unplugged", "silenced"];
const CONTEXT = 900; // characters of the words so far that a new session is told

export class Call {
  // turns, tracks: what is kept; settings: {start(), devices, key}; on: {turn(turn), change(), note(text), event(event), heard(tick), end(why, wrongKey)}
  constructor({ turns, tracks, settings, carries, on }) {
    Object.assign(this, { turns, tracks, settings, carries, on });
    Object.assign(this, { ears: {}, began: {}, youEnd: null, due: [], heard: [], base_ms: 0, muted: false, push: false, held: false });
    Object.assign(this, { problem: "", ending: false, figures: {}, sentAt: 0, from: tracks.seconds });
    this.sound = new Sound({ beat: (data) => this.#beat(data), change: () => on.change() });
    [this.sound.input, this.sound.output] = settings.devices;
  }

  async open() {
    try {
      await this.sound.openMicrophone();
      if (this.closed) return;
      this.#connect(); // while the loudspeaker is opened
      await this.sound.openLoudspeaker();
    } catch (error) {
      if (this.closed) return;
      const problem = whyNot(error), answers = problem !== "broken" || await fetch("/healthz").then(() => true, () => false);
      if (answers) this.problem = problem;
      return this.#end(answers ? "" : NO_SERVER);
    }
    if (!this.closed) this.#hear();
  }

  #connect() {
    this.connection = new Connection({
      key: this.settings.key, start: this.settings.start,
      context: () => soFar(this.turns, CONTEXT),
      on: {
        audio: (samples) => this.sound.push(samples), event: (event) => this.#read(event), sent: (sent) => this.on.event({ sent }), change: () => this.on.change(),
        begin: (again) => this.#begin(again), end: (why, wrongKey) => this.#end(why, wrongKey),
      },
    });
    this.connection.carries = this.carries;
    this.alive = setInterval(() => this.#keepAlive(), 1000);
    this.on.change();
  }

  get now() { // seconds of sound
    return this.tracks.seconds;
  }

  get facts() { // see state.js
    const { sound, connection, ears } = this;
    return {
      sound: this.problem || sound.state, socket: connection?.state ?? "connecting", ending: this.ending, muted: this.muted,
      waitsForKey: this.push && !this.held, line: connection?.line, you: ears.you?.voice, agent: ears.agent?.voice,
      agentTurn: this.turns.some((turn) => turn.open && turn.who === "agent"),
    };
  }

  mend() {
    if (!MENDABLE.includes(this.sound.state)) return false;
    this.sound.mend();
    return true;
  }

  mute(muted) {
    this.muted = muted;
    this.#hear();
  }

  pushToTalk(push, held) {
    [this.push, this.held] = [push, held];
    this.#hear();
  }

  hush() {
    this.connection?.send({ type: "agent.stop" });
  }

  say(text) { // whether it could be sent
    if (!this.connection?.send({ type: "text", text })) return false;
    this.youEnd = this.now;
    this.on.turn(whole(this.turns, "you", this.now, text, "typed"));
    return true;
  }

  configure({ voice, speed, instructions = "" }, what) {
    this.connection?.sendOrKeep(what === "voice" ? { type: "agent.voice", voice, speed } : { type: "agent.instruct", instructions });
  }

  finish() {
    if (this.connection?.state !== "open") return this.#end("");
    this.ending = true;
    this.connection.finish();
    this.farewell = setTimeout(() => this.#end(""), 2000); // the server may say its last word
    this.on.change();
  }

  close() {
    this.closed = true;
    clearInterval(this.alive);
    clearTimeout(this.farewell);
    this.connection?.close();
    this.sound.close();
  }

  #hear() {
    this.sound.mute(this.muted || this.push && !this.held);
    this.on.change();
  }

  #begin(again) { // a session has begun: its clock is not that of the one before
    this.base_ms = this.sound.pushed_ms;
    this.due = [];
    this.heard = []; // your turns of this session
    for (const turn of this.turns) if (turn.open) Object.assign(turn, { open: false, end: this.now }), this.on.turn(turn);
    if (again) this.#rule("The agent has started again; it knows what was said");
    else if (this.turns.length && !this.carries) this.#rule(new Date().toLocaleString());
  }

  #rule(text) {
    this.on.turn(whole(this.turns, "rule", this.now, text));
  }

  #beat({ heard, played, playedLevel, heardLevel, passed_ms, waiting_ms, target_ms, gaps, dropped_ms }) { // every tick of the sound card
    if (this.closed) return;
    this.on.heard(this.tracks.add(heard, played));
    this.ears = { you: listen(heardLevel, this.ears.you), agent: listen(playedLevel, this.ears.agent) };
    this.#noteVoices(heard, played);
    const lost_ms = (this.connection?.lostTicks ?? 0) * TICK_MS;
    this.played_ms = Math.max(0, Math.floor(passed_ms - this.base_ms - this.sound.outputLatency_ms)) + lost_ms;
    this.#speakDue(passed_ms - this.base_ms + lost_ms);
    Object.assign(this.figures, { waiting_ms, target_ms, gaps, lost_ms: lost_ms + dropped_ms });
    this.connection?.sendAudio(heard);
    this.#tellPlayback();
    this.on.tick(heardLevel, playedLevel);
  }

  #noteVoices(heard, played) { // when each voice began, and when yours was last heard
    const start = this.now - TICK_MS / 1000, least = Math.max(0.008, 4 * this.ears.you.floor);
    for (let at = 0; at < heard.length; at += PART) {
      const part = heard.subarray(at, at + PART), level = Math.sqrt(part.reduce((sum, x) => sum + x * x, 0) / part.length);
      if (level > least) {
        this.youEnd = start + (at + PART) / RATE;
        this.began.you ??= start + at / RATE;
      }
    }
    if (!this.ears.you.voice) this.began.you = null;
    const first = played.findIndex((x) => Math.abs(x) > AUDIBLE);
    if (first >= 0 && this.began.agent == null) this.#answered(start + first / RATE);
    if (!this.ears.agent.voice) this.began.agent = null;
  }

  #answered(at) { // the agent's voice begins: how long was it after yours?
    this.began.agent = at;
    const turn = this.turns.findLast(({ who }) => who === "agent");
    if (!turn || turn.voiceAt !== undefined) return;
    [turn.voiceAt, turn.start] = [at, at];
    const seconds = this.youEnd === null ? -1 : at - this.youEnd;
    if (seconds >= 0 && seconds < ANSWER_S) this.figures.answer_s = turn.latency = seconds;
    this.on.turn(turn);
  }

  #speakDue(heard_ms) { // words turn from decided to spoken when their sound is there
    while (this.due.length && this.due[0].start_ms <= heard_ms) {
      const { turn, text } = this.due.shift();
      speak(turn, text, this.now);
      this.on.turn(turn);
    }
  }

  #read(event) {
    this.on.event(event);
    if (event.type === "spoken") {
      const turn = this.turns.findLast(({ who }) => who === "agent");
      if (turn) this.due.push({ turn, text: event.text, start_ms: event.start_ms });
      return;
    }
    const you = Math.max(this.began.you ?? this.now, this.now - RUN_S);
    const turn = read(this.turns, event, this.now, { you }, this.heard);
    if (!turn) return;
    if (event.type === "speaker_named") this.heard.forEach(this.on.turn);
    if (event.type === "agent_stopped") this.due = this.due.filter((word) => word.turn !== turn);
    if (event.type === "user_ended" && this.youEnd > turn.start) turn.end = this.youEnd;
    if (turn.who === "you" && !turn.open) spread(turn);
    this.on.turn(turn);
  }

  #tellPlayback() {
    this.sentAt = performance.now();
    this.connection?.send({ type: "playback", played_ms: Math.floor(this.played_ms ?? 0) });
  }

  #keepAlive() { // where the sound stands still the session waits for it
    if (performance.now() - this.sentAt > 900) this.#tellPlayback();
    this.on.change();
  }

  #end(why, wrongKey) {
    if (this.closed) return;
    for (const turn of this.turns) if (turn.open) Object.assign(turn, { open: false, end: this.now }), this.on.turn(turn);
    this.close();
    this.on.end(why, wrongKey, this.problem);
  }
}
