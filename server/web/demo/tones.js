// Soft tones by WebAudio: the ring of an incoming call, the ringback of an outgoing one, a note at the end.
// A browser lets a page sound only after a gesture. Without one nothing sounds and nothing fails.

let context = null;
let timer = null;

/** Call it from a click or a key: from then on tones can sound. */
export function wakeTones() {
  try {
    context ??= new AudioContext();
    if (context.state === "suspended") context.resume().catch(() => {});
  } catch {
    context = null;
  }
}

function note(frequency, start, seconds, volume) {
  const oscillator = context.createOscillator();
  const gain = context.createGain();
  const at = context.currentTime + start;
  oscillator.type = "sine";
  oscillator.frequency.value = frequency;
  gain.gain.setValueAtTime(0, at);
  gain.gain.linearRampToValueAtTime(volume, at + 0.04);
  gain.gain.exponentialRampToValueAtTime(0.0001, at + seconds);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(at);
  oscillator.stop(at + seconds + 0.05);
}

const MELODIES = {
  incoming: { everyMs: 2600, notes: [[659, 0, 0.5], [784, 0.18, 0.5], [988, 0.36, 0.9]], volume: 0.09 },
  outgoing: { everyMs: 3600, notes: [[425, 0, 1.1]], volume: 0.035 },
};

export function ring(kind) {
  hush();
  const melody = MELODIES[kind];
  const play = () => {
    if (context?.state !== "running") return;
    for (const [frequency, start, seconds] of melody.notes) note(frequency, start, seconds, melody.volume);
  };
  play();
  timer = setInterval(play, melody.everyMs);
}

export function hush() {
  clearInterval(timer);
  timer = null;
}

/** Two falling notes: the call is over. */
export function farewell() {
  if (context?.state !== "running") return;
  note(523, 0, 0.25, 0.05);
  note(392, 0.16, 0.4, 0.05);
}

/** Follow the loudness of a stream: `heard(level 0..1)` some 12 times a second. Gives a function that stops it. */
export function follow(stream, heard) {
  if (!context || !stream.getAudioTracks().length) return () => {};
  try {
    const source = context.createMediaStreamSource(stream);
    const analyser = context.createAnalyser();
    analyser.fftSize = 512;
    source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const ticking = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      heard(Math.min(1, Math.sqrt(power) * 4));
    }, 80);
    return () => {
      clearInterval(ticking);
      source.disconnect();
      heard(0);
    };
  } catch {
    return () => {};
  }
}
