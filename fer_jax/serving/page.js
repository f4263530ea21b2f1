// The page: sources of pictures, requests to the server, messages.

import { draw, fitLabels, summary } from "./results.js";
import { Camera } from "./camera.js";

const $ = (id) => document.getElementById(id);
const NOTHING = { faces: [] };
const SMALL = 320; // pixels; smaller pictures are shown enlarged

let view = "empty"; // or "picture", "camera", "taken": a frame of the webcam
let model = { max_bytes: Infinity };
let last = null; // the picture that is shown, to analyze it again
let asking = null; // aborts the request under way
let turns = 0; // of the live switch

const camera = new Camera($("video"), () => {
  leaveCamera();
  fail("The webcam was unplugged or turned off.");
});

function show(next) {
  view = next;
  const filming = view === "camera" || view === "taken";
  document.body.classList.toggle("empty", view === "empty");
  $("invite").hidden = view !== "empty";
  $("frame").hidden = view === "empty";
  $("picture").hidden = view !== "picture" && view !== "taken";
  $("video").hidden = view !== "camera";
  $("unseen").hidden = true;
  $("choose").classList.toggle("first", !filming);
  $("start").hidden = filming;
  for (const id of ["take", "live-label", "stop"]) $(id).hidden = !filming;
  $("take").textContent = view === "taken" ? "Take another" : "Take the picture";
}

function say(text) {
  // Screen readers read changes only.
  if ($("status").textContent !== text) $("status").textContent = text;
  $("error").hidden = $("instead").hidden = true;
}

function fail(message) {
  say("");
  $("error").textContent = message;
  $("error").hidden = false;
  $("live").checked = false;
}

function drawAnswer(answer) {
  draw(answer, $("boxes"), $("answers"));
}

// Aborts the request under way and removes its results from the page.
function clear() {
  asking?.abort();
  asking = null;
  $("frame").classList.remove("busy");
  say("");
  drawAnswer(NOTHING);
}

async function ask(picture, signal) {
  const query = new URLSearchParams({
    detect: Number($("detect").checked),
    explain: Number($("explain").checked),
  });
  let response, answer;
  try {
    response = await fetch(`predict?${query}`, { method: "POST", body: picture, signal });
    answer = await response.json();
  } catch {
    throw new Error("The demo does not answer: is it still running in its terminal?");
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Analyzes a picture and shows the results; returns whether there were any.
async function look(picture) {
  asking?.abort();
  const own = (asking = new AbortController());
  last = picture;
  if (view !== "camera") {
    drawAnswer(NOTHING);
    say($("detect").checked ? "Looking for faces …" : "Looking …");
    $("frame").classList.add("busy");
  }
  try {
    const answer = await ask(picture, own.signal);
    if (own.signal.aborted) return false;
    drawAnswer(answer);
    if (answer.faces.length) {
      say(summary(answer));
    } else {
      say("No face was found. Large and upright ones are found best.");
      $("instead").hidden = view === "camera";
    }
    if (!$("unseen").hidden) $("unseen").style.aspectRatio = `${answer.width} / ${answer.height}`;
    return true;
  } catch (error) {
    if (!own.signal.aborted) {
      // The browser cannot show it either: not a picture.
      if (!$("unseen").hidden) show("empty");
      drawAnswer(NOTHING);
      fail(error.message);
    }
    return false;
  } finally {
    if (asking === own) $("frame").classList.remove("busy");
  }
}

async function display(picture, next) {
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(picture);
  show(next);
  try {
    await $("picture").decode();
    $("picture").classList.toggle("small", $("picture").naturalWidth < SMALL);
  } catch {
    if (last !== picture) return;
    $("picture").hidden = true;
    $("unseen").hidden = false;
  }
}

async function usePicture(file) {
  leaveCamera();
  clear();
  if (!file) return;
  if (file.size > model.max_bytes) {
    show("empty");
    fail(`The picture is larger than ${model.max_bytes / 2 ** 20} MiB: choose a smaller one.`);
    return;
  }
  last = file;
  await display(file, "picture");
  if (last === file) await look(file);
}

async function startCamera() {
  clear();
  last = null;
  say("Waiting for the webcam …");
  $("start").disabled = true;
  try {
    await camera.start();
  } catch (error) {
    if (!last) {
      show("empty");
      fail(error.message);
    }
    return;
  } finally {
    $("start").disabled = false;
  }
  if (last) {
    camera.stop(); // A picture was chosen meanwhile.
    return;
  }
  say("");
  show("camera");
  $("take").focus();
}

function leaveCamera() {
  if (!camera.on) return;
  camera.stop();
  $("live").checked = false;
  clear();
  show("empty");
}

async function take() {
  $("live").checked = false;
  if (view === "taken") {
    clear();
    show("camera");
    return;
  }
  try {
    const frame = await camera.frame();
    clear();
    last = frame;
    await display(frame, "taken");
    await look(frame);
  } catch (error) {
    fail(error.message);
  }
}

// One frame after the results of the previous one; none while the page is
// hidden, when there are no animation frames.
async function live() {
  const turn = ++turns;
  clear();
  if (!$("live").checked) return;
  show("camera");
  const going = () => $("live").checked && view === "camera" && turn === turns;
  while (going()) {
    await new Promise(requestAnimationFrame);
    if (!going() || !(await look(await camera.frame()))) break;
  }
}

function lookAgain() {
  if (last && (view === "picture" || view === "taken")) look(last);
}

$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  usePicture($("file").files[0]);
  $("file").value = ""; // The same file can be chosen again.
};
$("start").onclick = startCamera;
$("take").onclick = take;
$("stop").onclick = () => {
  leaveCamera();
  $("start").focus();
};
$("live").onchange = live;
$("detect").onchange = $("explain").onchange = lookAgain;
$("whole").onclick = () => {
  $("detect").checked = false;
  lookAgain();
};

new ResizeObserver(() => fitLabels($("boxes"))).observe($("boxes"));
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) usePicture(event.clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) {
    usePicture(event.dataTransfer.files[0]);
  } else {
    fail("That was not a file: save the picture first, then drop its file.");
  }
});

async function introduce() {
  model = await (await fetch("model")).json();
  $("model").textContent =
    `${model.name} on ${model.dataset}, ${model.checkpoint} checkpoint, epoch ${model.epoch}: ` +
    model.classes.join(", ");
  if (!model.detection) {
    $("detect").checked = false;
    $("detect").disabled = true;
    $("missing").hidden = false;
  }
}

show("empty");
introduce();
