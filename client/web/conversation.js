// What was said, turn by turn: reads a session's events into an array of turns. No page here.
//
// turn: {who: "you" | "agent", start, end, now, ahead, unsaid, note, latency, open, words: [{at, text}]}; times in seconds of
// the call's sound. `now` was heard or spoken, `ahead` is decided and not spoken yet, `unsaid` never will be. `speaker`
// is a number from 1 on, where people are told apart.

export function begin(turns, who, start) {
  const turn = { who, start, end: start, now: "", ahead: "", unsaid: "", note: "", latency: null, open: true, words: [] };
  turns.push(turn);
  return turn;
}

const last = (turns, who, open = false) => turns.findLast((turn) => turn.who === who && (turn.open || !open));

// Takes one event at a time of the call; times: {you, agent}, when each side's voice began. Returns the turn that changed.
export function read(turns, event, now, times = {}) {
  const text = event.text ?? "";
  const turn = (who) => last(turns, who, true) ?? begin(turns, who, times[who] ?? now);
  switch (event.type) {
    case "user_started": return turn("you");
    case "agent_started": {
      const open = last(turns, "agent", true);
      if (open && !isEmpty(open)) close(open, now, "");
      return turn("agent");
    }
    case "partial": return guess(last(turns, "you", true), text);
    case "heard": return append(last(turns, "you", true) ?? late(turns, now) ?? turn("you"), text, now, event.speaker);
    case "corrected": return correct(last(turns, "you") ?? turn("you"), text);
    case "speaker_named": return name(turns, event.speaker, text);
    case "said": {
      const changed = turn("agent");
      changed.ahead += text;
      return changed;
    }
    case "user_ended": return close(last(turns, "you", true), now, event.to === "other" ? "not for the agent" : "");
    case "agent_ended": return close(last(turns, "agent", true), now, "");
    case "agent_stopped": return stop(last(turns, "agent", true), text, now);
  }
  return null;
}

function name(turns, speaker, text) {
  const theirs = turns.filter((turn) => turn.who === "you" && (turn.speaker ?? 1) === speaker);
  for (const turn of theirs) turn.name = text;
  return theirs.at(-1) ?? null;
}

export function called(turn) { // who it is, for people
  if (turn.who === "agent") return "Agent";
  return turn.name ?? (turn.speaker > 1 ? `Person ${turn.speaker}` : "You");
}

function late(turns, now) { // a word that comes just after its turn was over still belongs to it
  const turn = last(turns, "you");
  return turn && now - turn.end < 1 ? turn : null;
}

function guess(turn, text) { // the turn so far, better heard than its pieces, which are not shown until it is corrected
  return turn ? Object.assign(correct(turn, text), { guessed: true }) : null;
}

function append(turn, text, now, speaker) {
  if (speaker) turn.speaker = speaker;
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

export function asText(turns) { // one line for each turn
  const line = ({ start, now, ahead, unsaid, note, latency }, who) => [
    `[${clock(start)}] ${who}: ${written(`${now}${ahead}`.trim())}`, unsaid && "…", note && `(${note})`,
    latency !== null && `(after ${latency.toFixed(2)} s)`].filter(Boolean).join(" ");
  return turns.filter((turn) => !isEmpty(turn)).map((turn) => (turn.who === "rule" ? `--- ${turn.now}` : line(turn, called(turn).toLowerCase())) + "\n").join("");
}

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
