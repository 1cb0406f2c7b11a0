// What the page says of a call, as a pure function of sound, socket, levels and events. client/call_state.py has the same
// function for the terminal; tests/client/call_states.json holds both to the same names.
//
// facts: sound    off, asking, opening, refused, absent, busy, insecure, broken, suspended, stalled, unplugged, silenced, lost, on
//        socket   off, connecting, open, quiet, cut, restarting, full, failed
//        ending, muted, waitsForKey (push to talk, not held)
//        you, agent: who can be heard now, by level; agentTurn: whether the agent's turn is open
export function name(facts) {
  const { sound = "off", socket = "off", ending, muted, waitsForKey, you, agent, agentTurn } = facts;
  if (ending) return "ending";
  if (sound === "asking") return "asking";
  if (sound !== "off" && sound !== "on") return sound;
  if (socket === "failed") return "failed";
  if (sound === "off") return "ready";
  if (socket !== "open") return socket === "off" ? "connecting" : socket;
  if (muted || waitsForKey) return `${muted ? "muted" : "key"}${agent ? "_agent" : ""}`;
  if (you && agent) return "both";
  if (agent) return "agent";
  if (you) return agentTurn ? "waits" : "you";
  return agentTurn ? "pauses" : "listening";
}

// By name: [tone, what is so, the way out]. Tones: idle, live, wait, bad.
export const SAYS = {
  ready: ["idle", "Ready", ""],
  ending: ["wait", "Ending", ""],
  asking: ["wait", "Asking for the microphone", "Allow it in the browser's question."],
  opening: ["wait", "Opening the sound", ""],
  refused: ["bad", "The browser may not use the microphone", "Allow it beside the address, then start again."],
  absent: ["bad", "There is no microphone", "Plug one in: the call begins by itself."],
  busy: ["bad", "Another program holds the microphone", "Close that program, then start again."],
  insecure: ["bad", "Browsers give the microphone only to this computer's pages or over https",
    "Open http://localhost, or start the server with: duplex serve --tls-cert CERT.pem"],
  broken: ["bad", "The sound cannot be opened", "Choose other devices in Settings, or reload the page."],
  suspended: ["bad", "The sound is stopped", "Tap anywhere to go on; the conversation waits."],
  stalled: ["bad", "The sound device does not answer", "Tap anywhere to open it again."],
  unplugged: ["bad", "The microphone is gone", "Plug one in, or tap to look for another; the conversation waits."],
  silenced: ["bad", "The system has silenced the microphone", "End the phone call or unmute it; the conversation waits."],
  lost: ["bad", "The sound device is gone", "Plug it in again; the conversation waits."],
  connecting: ["wait", "Connecting", ""],
  cut: ["wait", "Connection lost; trying again", "It is kept for half a minute."],
  quiet: ["wait", "Nothing comes from the server", "It goes on by itself when the server does."],
  restarting: ["wait", "The conversation is lost; the agent starts again", "It is told what was said."],
  full: ["wait", "All places are taken", "The page tries again every ten seconds."],
  failed: ["bad", "The connection has ended", "Start again."],
  muted: ["wait", "You are muted", ""],
  muted_agent: ["wait", "The agent speaks; you are muted", ""],
  key: ["wait", "Hold the button, or Space, to talk", ""],
  key_agent: ["live", "The agent speaks; hold the button, or Space, to talk", ""],
  both: ["live", "Both speak", ""],
  agent: ["live", "The agent speaks", ""],
  waits: ["live", "The agent waits for you", ""],
  you: ["live", "You speak", ""],
  pauses: ["live", "The agent is about to speak", ""],
  listening: ["live", "Listening", ""],
};
// Whether somebody can be heard: a level above the noise of the room in one of the last ticks. Give back what it returned.
const LEAST = 0.008, HELD_TICKS = 5;

export function listen(level, { floor = 0.002, quiet = HELD_TICKS } = {}) {
  const noise = Math.max(2e-4, Math.min(level, floor * 1.02)); // falls at once, rises 2 % a tick
  const silent = level > Math.max(LEAST, 4 * noise) ? 0 : quiet + 1;
  return { floor: Math.min(noise, 0.02), quiet: silent, voice: silent < HELD_TICKS };
}
