// What was said, turn by turn: reads a session's events into an array of turns. No page here.
//
// turn: {who: "you" | "agent", start, end, now, ahead, unsaid, note, latency, open, words: [{at, text}]}; times in seconds of
// the call's sound. `now` was heard or spoken, `ahead` is decided and not spoken yet, `unsaid` never will be. `speaker`
// is a number from 1 on, where people are told apart. Among the turns stand what belongs to none: who is "backchannel",
// the agent's "mhm" while you go on; "sound", what is heard and no speech; "rule", a line across with a sentence in `now`.

export function begin(turns, who, start) {
  const turn = { who, start, end: start, now: "", ahead: "", unsaid: "", note: "", latency: null, open: true, words: [] };
  turns.push(turn);
  return turn;
}

export function whole(turns, who, start, text, note = "") { // what is there at once
  const words = who === "you" ? [] : [{ at: start, text: text.trim() }];
  return Object.assign(begin(turns, who, start), { now: text, note, open: false, words });
}

const last = (turns, who, open = false) => turns.findLast((turn) => turn.who === who && turn.note !== "typed" && (turn.open || !open));

// Takes one event at a time of the call; times: {you, agent}, when each side's voice began; heard: your turns of this
// session, in order, which grow. Returns the turn that changed.
export function read(turns, event, now, times = {}, heard = []) {
  const changed = change(turns, event, now, times, heard);
  if (changed?.who === "you" && event.type !== "speaker_named") label(changed, event.speaker, heard);
  return changed;
}

function label(turn, speaker, heard) { // whose it is: the last that is told is the best
  const before = turn.speaker, person = (one) => one.speaker ?? 1;
  if (speaker) turn.speaker = speaker;
  const named = heard.find((one) => one.name && one !== turn && person(one) === person(turn));
  if (named || turn.speaker !== before) turn.name = named?.name;
}

function change(turns, event, now, times, heard) {
  const text = event.text ?? "";
  const turn = (who) => last(turns, who, true) ?? begin(turns, who, times[who] ?? now);
  switch (event.type) {
    case "user_started": {
      heard.push(turn("you"));
      return heard.at(-1);
    }
    case "agent_started": {
      const open = last(turns, "agent", true);
      if (open && !isEmpty(open)) close(open, now, "");
      return turn("agent");
    }
    case "partial": return guess(last(turns, "you", true), text);
    case "heard": return append(last(turns, "you", true) ?? late(turns, now) ?? turn("you"), text, now);
    case "corrected": return correct(last(turns, "you") ?? turn("you"), text);
    case "speaker_corrected": return heard[event.turn] ?? null;
    case "speaker_named": return name(turns, event.speaker, text);
    case "said": {
      const changed = turn("agent");
      changed.ahead += text;
      return changed;
    }
    case "user_ended": return close(last(turns, "you", true), now, event.to === "other" ? "not for the agent" : "");
    case "agent_ended": return close(last(turns, "agent", true), now, "");
    case "agent_stopped": return stop(last(turns, "agent", true), text, now);
    case "backchannel": return whole(turns, "backchannel", now, text, "while you speak");
    case "sound": return whole(turns, "sound", now, text);
  }
  return null;
}

function name(turns, speaker, text) {
  const theirs = turns.filter((turn) => turn.who === "you" && (turn.speaker ?? 1) === speaker);
  for (const turn of theirs) turn.name = text;
  return theirs.at(-1) ?? null;
}

export function called(turn) { // who it is, for people
  if (turn.who === "sound") return "Sound";
  if (turn.who !== "you") return "Agent";
  return turn.name ?? (turn.speaker > 1 ? `Person ${turn.speaker}` : "You");
}

function late(turns, now) { // a word that comes just after its turn was over still belongs to it
  const turn = last(turns, "you");
  return turn && now - turn.end < 1 ? turn : null;
}

function guess(turn, text) { // the turn so far, better heard than its pieces, which are not shown until it is corrected
  return turn ? Object.assign(correct(turn, text), { guessed: true }) : null;
}

function append(turn, text, now) {
  if (turn.guessed) return turn;
  turn.now += text;
  const previous = turn.words.at(-1);
  if (previous && !text.startsWith(" ")) previous.text += text;
  else turn.words.push({ at: now, text: text.trim() });
  return turn;
}

function correct(turn, text) { // other words in place of those so far, each at the time of the one it replaces
  const times = turn.words.map(({ at }) => at);
  turn.now = text;
  turn.guessed = false;
  turn.words = text.trim().split(/\s+/).map((word, i) => ({ at: times[Math.min(i, times.length - 1)] ?? turn.start, text: word }));
  return turn;
}

// Words that were heard anew have no times of their own: when each was over, by its letters, in the turn's sound.
export function spread(turn) {
  const letters = turn.words.reduce((sum, { text }) => sum + text.length + 1, 0);
  let at = turn.start;
  for (const word of turn.words) word.at = at += (turn.end - turn.start) * (word.text.length + 1) / letters;
}

export function speak(turn, text, at) { // a word of the agent's is heard now
  const found = turn.ahead.indexOf(text);
  turn.words.push({ at, text });
  if (found < 0) return;
  turn.now += turn.ahead.slice(0, found + text.length);
  turn.ahead = turn.ahead.slice(found + text.length);
}

function close(turn, now, note) {
  if (turn) Object.assign(turn, { open: false, end: now, note });
  return turn ?? null;
}

function stop(turn, text, now) {
  if (!turn) return null;
  const all = turn.now + turn.ahead;
  if (text.trim() && all.endsWith(text)) [turn.now, turn.ahead, turn.unsaid] = [all.slice(0, all.length - text.length), "", text];
  return close(turn, now, turn.unsaid ? "" : "stopped");
}

export function isEmpty(turn) {
  return !`${turn.now}${turn.ahead}${turn.unsaid}`.trim();
}

export function written(text) { // as people write it: with a capital at the beginning
  return text.replace(/^\s*\p{Ll}/u, (first) => first.toUpperCase());
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const told = (turn) => written(`${turn.now}${turn.ahead}`.trim()).replace(/\s*\n\s*/g, " ") + (turn.unsaid ? " …" : ""); // all that was said of it, in a line

export function asText(turns) { // one line for each turn
  const line = (turn) => [`[${clock(turn.start)}] ${called(turn).toLowerCase()}: ${told(turn)}`, turn.note && `(${turn.note})`,
    turn.latency !== null && `(after ${turn.latency.toFixed(2)} s)`].filter(Boolean).join(" ");
  return turns.filter((turn) => !isEmpty(turn)).map((turn) => (turn.who === "rule" ? `--- ${turn.now}` : line(turn)) + "\n").join("");
}

export function asLines(turns) { // JSON lines, one for each turn; a field that is not known is left out
  const line = (turn) => JSON.stringify({
    who: turn.who, speaker: turn.speaker, name: turn.name, start_s: round(turn.start), end_s: round(turn.end), text: told(turn),
    unsaid: turn.unsaid.trim() || undefined, note: turn.note || undefined, answer_s: turn.latency ? round(turn.latency) : undefined,
    words: turn.words.map(({ at, text }) => [round(at), text]),
  });
  return turns.filter((turn) => !isEmpty(turn)).map((turn) => line(turn) + "\n").join("");
}

export function asSubtitles(turns) { // WebVTT, with the sound that is saved
  const time = (seconds) => new Date(1000 * Math.max(0, seconds)).toISOString().slice(11, 23);
  const cue = (turn) => `${time(turn.start)} --> ${time(Math.max(turn.end, turn.start + 0.5))}\n<v ${escaped(called(turn))}>${escaped(told(turn))}\n\n`;
  const cues = turns.filter((turn) => turn.who !== "rule" && !isEmpty(turn)).sort((a, b) => a.start - b.start);
  return `WEBVTT\n\n${cues.map(cue).join("")}`;
}

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const round = (seconds) => Math.round(1000 * seconds) / 1000;

export function soFar(turns, most) { // the words so far, for a session that follows a lost one: the latest that fit
  const names = { you: "User", agent: "Assistant" };
  const lines = turns.filter(({ who }) => names[who]).map(({ who, now }) => now.trim() && `${names[who]}: ${now.trim()}`);
  let text = "";
  for (const line of lines.filter(Boolean).reverse()) {
    if (text.length + line.length + 1 > most) break;
    text = `${line}\n${text}`;
  }
  return text && `The conversation so far:\n${text}`;
}
