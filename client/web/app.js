// The page: what is pressed and typed goes into the call, what the call says is shown.
import { Call } from "./call.js";
import { leave } from "./connection.js";
import { asLines, asSubtitles, asText, clock } from "./conversation.js";
import { download, restore, stamp, store, Tracks } from "./keep.js";
import { chosen, devicesChosen, setUp, showDevices, wantsPush } from "./settings.js";
import { SoundStore } from "./sound_store.js";
import { name, SAYS } from "./state.js";
import { Timeline } from "./timeline.js";
import { View } from "./view.js";

const NOTE_MS = 6000, RAW = 200; // events that the drawer holds
const find = (id) => document.getElementById(id);

const turns = restore("turns") ?? [];
for (const turn of turns) turn.open = false;
const view = new View(find("turns"), find("scroll"), find("announce"), play);
const timeline = new Timeline(find("timeline"));
const raw = [];
const began = restore("began") ?? Date.now(), sounds = new SoundStore(began); // the tab's conversation
let tracks = new Tracks(), call = null, ended = { problem: "", why: "", way: "" }, carries = turns.length > 0;
store("began", began);

// What is to be seen

function show() { // the state, as a function of what is known
  const facts = call ? call.facts : { sound: ended.problem || "off", socket: ended.why ? "failed" : "off" };
  const state = name(facts), [tone, text, usual] = SAYS[state];
  const sentence = state === "failed" ? ended.why : text, way = state === "failed" && ended.way || usual;
  put("state", sentence);
  put("way", state === "ready" ? summary() : state === "full" && facts.line || way);
  find("state").dataset.tone = tone;
  find("state").dataset.name = state;
  if (tone === "bad") put("alert", `${sentence}. ${way}`);
  else put("alert", "");
}

function put(id, text) { // only where it differs, so that it is read out once
  if (find(id).textContent !== text) find(id).textContent = text;
}

function summary() {
  const answers = turns.map(({ latency }) => latency).filter((x) => typeof x === "number").sort((a, b) => a - b);
  if (!tracks.ticks) return "";
  const spoken = turns.filter(({ who }) => who === "you" || who === "agent").length;
  return [clock(tracks.seconds), `${spoken} ${spoken === 1 ? "turn" : "turns"}`, answers.length && `median answer ${answers[answers.length >> 1].toFixed(2)} s`]
    .filter(Boolean).join(", ");
}

function note(text) {
  put("note", text);
  clearTimeout(note.timer);
  note.timer = setTimeout(() => put("note", ""), NOTE_MS);
}

function level(id, rms) { // the loudest 50 dB
  find(id).style.setProperty("--level", Math.max(0, Math.min(1, loudness(rms))).toFixed(3));
}

function loudness(rms) {
  return 1 + Math.log10(rms + 1e-9) / 2.5;
}

function tick(heard, played) {
  find("timeline").hidden = false;
  level("you", heard);
  level("agent", played);
  timeline.add(tracks.seconds, Math.max(0, loudness(heard)), Math.max(0, loudness(played)));
  const { answer_s, waiting_ms, target_ms, gaps, lost_ms } = call.figures;
  put("clock", clock(tracks.seconds - call.from));
  put("figures", call.connection?.state !== "open" ? "" : [answer_s !== undefined && `answer ${answer_s.toFixed(2)} s`, `buffer ${Math.round(waiting_ms)}/${Math.round(target_ms)} ms`,
    `${gaps} ${gaps === 1 ? "gap" : "gaps"}`, lost_ms && `${Math.round(lost_ms)} ms lost`, late()].filter(Boolean).join(" · "));
  show();
}

function late() { // what of the last five seconds was late
  const was = (at) => at && performance.now() - at < 5000;
  return was(call.lateAt) ? "server late" : was(call.voiceLateAt) ? "your voice late" : "on time";
}

function frame() {
  if (!call) return;
  timeline.draw(turns);
  requestAnimationFrame(frame);
}

function showTurn(turn) {
  view.show(turn);
  find("hint").hidden = find("turns").children.length > 0;
  find("keep").hidden = !turns.length;
  clearTimeout(showTurn.timer);
  showTurn.timer = setTimeout(() => store("turns", turns), 500);
}

function event(told) {
  raw.push(JSON.stringify({ at: Math.round(1000 * tracks.seconds) / 1000, ...told }));
  if (raw.length > RAW) raw.shift();
  if (find("developer").open) showRaw();
  if (told.type === "lag") lag(told);
  if (told.type === "error" && ["bad_message", "refused", "too_much"].includes(told.code)) note(told.text);
  if (told.type === "session.ending") note(`The conversation ends with this turn: ${told.text}`);
}

function showRaw() { // the newest first: when, which way, what
  const line = ({ at, sent, ...told }) => {
    const { type, ...fields } = sent ?? told;
    return [at.toFixed(2).padStart(7), sent ? "→" : "←", type.padEnd(13), Object.keys(fields).length ? JSON.stringify(fields) : ""].join(" ");
  };
  put("events", raw.map((text) => line(JSON.parse(text))).reverse().join("\n"));
}

function lag({ late_ticks, silence_ms, dropped_ms, unread_ticks }) {
  if (late_ticks) call.lateAt = performance.now();
  if (silence_ms + dropped_ms) call.voiceLateAt = performance.now();
  if (late_ticks > 3) note("The server is slower than speech just now: answers come late.");
  else if (silence_ms + dropped_ms >= 240) note("Your voice reaches the server late, with gaps.");
  else if (unread_ticks) note("Some of the agent's voice was lost on the way.");
}

// Start and stop

function start() {
  if (call) return;
  ended = { problem: "", why: "", way: "" };
  call = new Call({
    turns, tracks, carries, settings: { start: chosen, devices: devicesChosen(), key: find("key").value },
    on: { turn: showTurn, change: () => call && show(), event, heard: (both) => sounds.add(...both), tick, end },
  });
  carries = false;
  call.push = wantsPush();
  buttons();
  show();
  call.open().then(showDevices);
  keepAwake();
  requestAnimationFrame(frame);
}

function end(why, wrongKey, problem) {
  call = null;
  ended = { problem, why, way: wrongKey ? "Type it in Settings and press Enter." : "" };
  store("turns", turns);
  sounds.flush();
  for (const id of ["you", "agent"]) level(id, 0);
  for (const id of ["note", "figures"]) put(id, "");
  find("hush").disabled = true;
  buttons();
  show();
  wake?.release();
  if (wrongKey) {
    find("settings").open = true;
    find("key").focus();
  }
}

function buttons() {
  document.body.classList.toggle("calling", Boolean(call));
  view.letPlay(!call);
  find("talk").querySelector("span").textContent = call ? "End" : "Start talking";
  for (const id of ["mute", "hush", "say", "hold"]) find(id).disabled = !call;
  find("mute").setAttribute("aria-pressed", Boolean(call?.muted));
  find("hold").hidden = !wantsPush();
  find("mute").hidden = wantsPush();
}

let wake = null;

async function keepAwake() { // the screen, for as long as somebody talks
  wake = await navigator.wakeLock?.request("screen").catch(() => null) ?? null;
}

function mute() {
  call?.mute(!call.muted);
  buttons();
}

function hold(held) {
  if (!call || !wantsPush()) return;
  call.pushToTalk(true, held);
  find("hold").classList.toggle("held", held);
}

const playing = new Audio();

function play(turn, button) { // what was said and heard in a turn; in a call the agent would hear it, too
  const again = button.classList.contains("on") && !playing.paused;
  document.querySelector(".play.on")?.classList.remove("on");
  URL.revokeObjectURL(playing.src);
  playing.pause();
  if (call) return note("A turn is played once the call is over.");
  if (again || !tracks.ticks) return;
  button.classList.add("on");
  playing.src = URL.createObjectURL(tracks.wav(turn.start, Math.max(turn.end, turn.start + 1)));
  playing.onended = () => button.classList.remove("on");
  playing.play().catch(() => note("The sound cannot be played here."));
}

function fresh() { // throws the conversation away; a call goes on with a new one
  const goesOn = Boolean(call);
  call?.close();
  if (goesOn) end("", false, "");
  turns.length = 0;
  tracks = new Tracks();
  sounds.clear();
  playing.pause();
  view.clear();
  carries = false;
  store("turns", turns);
  find("hint").hidden = false;
  find("keep").hidden = find("timeline").hidden = true;
  if (goesOn) start();
  else show();
}

function closeMenu(back = false) { // of what can be saved; back: to its button
  find("save").open = false;
  if (back) find("save").querySelector("summary").focus();
}

function key(event) {
  if (call?.mend()) return;
  if (event.key === "Escape" && find("save").open) return closeMenu(true);
  const typing = event.target.matches("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (event.key === " " && wantsPush() && call) {
    event.preventDefault();
    if (!event.repeat) hold(true);
  }
  if (event.repeat) return;
  const click = { m: "mute", Escape: "hush" }[event.key];
  if (click) find(click).click();
  if (event.key === "d") find("developer").open = !find("developer").open;
  if (event.key === "t" && call) {
    event.preventDefault();
    find("say").focus();
  }
}

setUp({
  voice: () => call?.configure(chosen(), "voice"),
  instructions: () => call?.configure(chosen(), "instructions"),
  devices: () => call?.sound.choose(...devicesChosen()).catch(() => note("That device cannot be used.")),
  push: () => {
    call?.pushToTalk(wantsPush(), false);
    buttons();
  },
});
turns.forEach(showTurn);
find("key").value ||= restore("key") ?? "";
const left = restore("left");
if (left) leave(left);
store("left", null);
const loaded = sounds.load().then((ticks) => {
  for (const [you, agent] of ticks) tracks.append(you, agent);
  show();
});
show();

find("form").addEventListener("submit", (submitted) => submitted.preventDefault());
find("say").addEventListener("keydown", ({ key: pressed, isComposing }) => {
  const text = find("say").value.trim();
  if (pressed !== "Enter" || isComposing || !call || !text) return;
  if (call.say(text)) find("say").value = "";
  else note("Not sent: there is no connection just now.");
});
find("say").addEventListener("paste", ({ clipboardData }) => {
  const { value, selectionStart, selectionEnd, maxLength } = find("say"), room = maxLength - value.length + selectionEnd - selectionStart;
  if (clipboardData.getData("text").length > room) note(`A text has at most ${maxLength} characters: the rest was left out.`);
});
find("key").addEventListener("keydown", ({ key: pressed }) => pressed === "Enter" && loaded.then(start));
find("talk").addEventListener("click", () => (call ? call.finish() : loaded.then(start)));
find("mute").addEventListener("click", mute);
find("hush").addEventListener("click", () => call?.hush());
find("hold").addEventListener("pointerdown", () => hold(true));
for (const over of ["pointerup", "pointercancel", "pointerleave"]) find("hold").addEventListener(over, () => hold(false));
find("sound").addEventListener("click", () => (tracks.ticks ? download(tracks.wav(), `duplex-${stamp()}.wav`)
  : note("This browser keeps no sound over a reload.")));
for (const [id, as, type] of [["text", asText, "txt"], ["subtitles", asSubtitles, "vtt"], ["lines", asLines, "jsonl"]]) {
  find(id).addEventListener("click", () => download(new Blob([as(turns)], { type: "text/plain" }), `duplex-${stamp()}.${type}`));
}
find("save").addEventListener("click", ({ target }) => target.closest("#save div button") && closeMenu(true));
find("save").addEventListener("focusout", ({ relatedTarget }) => relatedTarget && !find("save").contains(relatedTarget) && closeMenu());
document.addEventListener("pointerdown", ({ target }) => find("save").contains(target) || closeMenu());
find("fresh").addEventListener("click", fresh);
find("copy").addEventListener("click", () => navigator.clipboard?.writeText(raw.join("\n")).then(() => note("Copied.")));
find("developer").addEventListener("toggle", showRaw);
document.addEventListener("keydown", key);
document.addEventListener("keyup", (event) => {
  if (event.key !== " ") return;
  if (call && wantsPush() && event.target.matches("button")) event.preventDefault(); // Firefox would press it
  hold(false);
});
document.addEventListener("pointerdown", () => call?.mend(), true);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !call) return;
  if (call.sound.state === "suspended") call.mend();
  keepAwake();
});
navigator.mediaDevices?.addEventListener("devicechange", () => ended.problem === "absent" && !call && start());
addEventListener("pagehide", () => {
  store("left", call?.connection?.left ?? null);
  store("turns", turns);
  store("key", find("key").value);
  sounds.flush();
  call?.close();
});
