// Microphone and camera. A person without either still takes part: they hear and see, and a note says so.

const AUDIO = { echoCancellation: true, noiseSuppression: true };
const VIDEO = { width: { ideal: 960 }, height: { ideal: 540 }, facingMode: "user" };
// In a mesh a picture is encoded once for each of the others.
const SMALL = { width: { ideal: 480 }, height: { ideal: 360 }, frameRate: { ideal: 20 }, facingMode: "user" };

async function open(constraints) {
  if (!navigator.mediaDevices?.getUserMedia) return null;
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    console.debug(`getUserMedia: ${error.name}`);
    return null;
  }
}

/**
 * Tracks for a call of this type: `{stream, note}`. `stream` may be empty, `note` then says what is missing. `small`:
 * the picture is for several others at once.
 */
export async function openMedia(type, { small = false } = {}) {
  const video = small ? SMALL : VIDEO;
  const stream = new MediaStream();
  const take = (opened) => opened?.getTracks().forEach((track) => stream.addTrack(track));
  if (type === "video") take(await open({ audio: AUDIO, video }));
  if (!stream.getAudioTracks().length) take(await open({ audio: AUDIO }));
  if (type === "video" && !stream.getVideoTracks().length) take(await open({ video }));
  const missing = [];
  if (!stream.getAudioTracks().length) missing.push("microphone");
  if (type === "video" && !stream.getVideoTracks().length) missing.push("camera");
  const note = missing.length ? `No ${missing.join(" and no ")} here: you take part without.` : "";
  return { stream, note };
}

/** A camera track for a call that becomes a video call, or null. */
export async function openCamera() {
  return (await open({ video: VIDEO }))?.getVideoTracks()[0] ?? null;
}

export function stopMedia(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}
