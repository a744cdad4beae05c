// The page: an image goes to the server, its answer is shown; the threshold works here, without the server.

import { decode, encode, measure, paint, readMask, resize } from "./mask.js";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let run = null; // facts about the run
let shown = null; // {answer, picture, mask, name} of the image that is shown
let pending = null; // AbortController of the image under way

async function start() {
  run = await (await fetch("run")).json();
  document.title = `${run.name}: try the model`;
  element("name").textContent = run.name;
  element("about").textContent =
    `Model of step ${run.step}, ${run.class_names.length} classes: ${listClasses(run.class_names)}.` +
    (run.prior ? ` Its masks come from the declared prior “${run.prior}”, not from labels alone.` : "") +
    " Images stay on this machine, and nothing is stored.";
  element("limits").textContent =
    `JPEG, PNG, TIFF, WebP, BMP or GIF; at most ${run.max_megabytes} MB and ${run.max_megapixels} megapixels, at the scale of the training images.` +
    (run.max_pixels ? ` Larger ones than ${(run.max_pixels / 1e6).toFixed(1)} megapixels are computed at that size.` : "");
  element("model-flags").textContent = run.flags.join("; ");
  element("model-flags").hidden = !run.flags.length;
  element("of-run-option").value = run.threshold;
  element("threshold").value = run.threshold;
  element("reset").textContent = `Threshold of the run: ${run.threshold.toFixed(2)}`;
  element("min-area").textContent = `regions of at least ${run.min_area} pixels`;
  tell("");
}

function listClasses(names) {
  return names.length > 12 ? `${names.slice(0, 10).join(", ")} and ${names.length - 10} more` : names.join(", ");
}

function tell(text, isBusy = false) {
  element("status").textContent = text;
  element("status").classList.toggle("busy", isBusy);
}

function fail(text) {
  tell("");
  element("error").textContent = text;
  element("error").hidden = false;
}

/** Sends a file; one that is under way is given up. */
async function send(file) {
  pending?.abort();
  element("error").hidden = true;
  if (file.size > run.max_megabytes * 1e6) {
    fail(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${run.max_megabytes} MB are taken. Save it as JPEG, or shrink it.`);
    return;
  }
  const mine = (pending = new AbortController());
  element("result").classList.add("stale");
  tell(`Predicting ${file.name} …`, true);
  const watch = setInterval(() => watchActivity(mine), 500);
  try {
    const response = await fetch("predict", { method: "POST", body: file, signal: mine.signal });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    const [picture, mask] = [await decode(answer.image), await readMask(answer.mask)];
    if (pending === mine) show({ answer, picture, mask, name: file.name });
  } catch (error) {
    if (pending !== mine) return;
    element("result").hidden = true;
    fail(error instanceof TypeError ? "The server does not answer. Is it still running?" : `${file.name}: ${error.message}`);
  } finally {
    clearInterval(watch);
  }
}

/** Says when the networks are compiled: that takes much longer than a prediction. */
async function watchActivity(mine) {
  try {
    const { activity } = await (await fetch("activity", { signal: mine.signal })).json();
    // For this image or for one before it, of this page or of another.
    const text = "The server compiles the networks for a new size of images: only once, but that can take a minute …";
    if (pending === mine && activity === "compiling" && element("status").textContent !== text) tell(text, true);
  } catch {
    // The request of the image itself tells what is wrong.
  }
}

function show(result) {
  shown = result;
  pending = null;
  const { answer, name } = result;
  element("result").hidden = false;
  element("result").classList.remove("stale");
  element("class").textContent = answer.class;
  element("no-region").hidden = answer.has_region;
  element("probability").textContent = `with probability ${round(answer.probability, 2)}`;
  showProbabilities(answer.probabilities);
  showFlags(answer.flags);
  showSeen(answer);
  element("facts").textContent = `${name}: ${answer.width} x ${answer.height} pixels, ${describeReduction(answer)}${describeScale(answer)}${answer.seconds.toFixed(1)} s${answer.compiled ? ", most of them to compile" : ""}.`;
  element("threshold").value = run.threshold;
  draw();
  const flags = answer.flags.length ? `${answer.flags.length} reason${answer.flags.length > 1 ? "s" : ""} not to trust the mask` : "no flag";
  tell(`${name}: ${answer.class}, probability ${round(answer.probability, 2)}; ${element("share").textContent} foreground; ${flags}.`);
}

function describeReduction({ computed_width: width, computed_height: height, ...full }) {
  return width === full.width && height === full.height ? "" : `computed at ${width} x ${height}, `;
}

function describeScale({ microns_per_pixel: microns }) {
  if (microns) return `${microns.toPrecision(3)} microns a pixel, `;
  return run.microns_per_pixel ? `${run.microns_per_pixel.toPrecision(3)} microns a pixel assumed, as in training, ` : "";
}

/** A probability that is never rounded to 0 or 1. */
function round(probability, digits) {
  const minimum = 10 ** -digits;
  if (probability < minimum / 2) return `< ${minimum}`;
  return probability > 1 - minimum / 2 ? `> ${1 - minimum}` : probability.toFixed(digits);
}

function showProbabilities(probabilities) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 5);
  element("probabilities").replaceChildren(...sorted.map(([name, probability]) => {
    const item = document.createElement("li");
    for (const [kind, text] of [["label", name], ["value", round(probability, 3)], ["track", ""]]) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      item.append(part);
    }
    fill(item.lastChild, probability);
    return item;
  }));
}

/** Fills a bar to a share. */
function fill(track, share) {
  const filled = document.createElement("span");
  filled.className = "fill";
  filled.style.width = `${100 * share}%`;
  track.replaceChildren(filled);
}

function showFlags(flags) {
  element("trust").classList.toggle("bad", flags.length > 0);
  element("verdict").textContent = flags.length
    ? `${flags.length} reason${flags.length > 1 ? "s" : ""} not to:`
    : "No flag speaks against it. A mask remains a guess: look at it.";
  element("flags").replaceChildren(...flags.map((flag) => {
    const item = document.createElement("li");
    item.textContent = flag;
    return item;
  }));
}

function showSeen(answer) {
  const isSeen = "foreground" in answer.seen;
  element("seen").hidden = !isSeen;
  element("not-seen").hidden = isSeen;
  if (!isSeen) return;
  for (const side of ["foreground", "background"]) {
    element(`seen-${side}`).parentElement.hidden = !(side in answer.seen);
    if (!(side in answer.seen)) continue;
    element(`seen-${side}`).src = answer.seen[side];
    const entropy = answer[`${side}_entropy`], share = entropy / run.max_entropy;
    if (entropy === undefined) continue;
    element(`${side}-entropy`).textContent = `Entropy ${entropy.toFixed(2)} of ${run.max_entropy.toFixed(2)} nats: ${share > 0.5 ? "identifies no class" : "identifies a class"}`;
    fill(element(`${side}-bar`), Math.min(share, 1));
  }
  element("seen-note").textContent =
    "What is grey was hidden. If the mask found the object, the foreground has an entropy near 0 and the background one near its maximum." +
    (run.has_second_stage ? " These are the masks of the first stage, which the classifier reads; the one above is the second stage's." : "");
}

/** Draws the image and its mask, and counts, at the threshold of the slider. */
function draw() {
  if (!shown) return;
  const { mask, picture } = shown, threshold = Number(element("threshold").value), opacity = element("opacity").value;
  element("threshold-value").textContent = threshold.toFixed(2);
  element("opacity-value").textContent = `${opacity} %`;
  element("reset").disabled = threshold === Number(run.threshold.toFixed(2));
  const ratio = window.devicePixelRatio || 1, canvas = element("canvas"), frame = element("frame");
  const scale = Math.min(frame.clientWidth / mask.width, (0.75 * window.innerHeight) / mask.height);
  const [width, height] = [mask.width, mask.height].map((side) => Math.max(1, Math.round(scale * side * ratio)));
  [canvas.width, canvas.height] = [width, height];
  [canvas.style.width, canvas.style.height] = [`${width / ratio}px`, `${height / ratio}px`];
  if (shown.resized?.width !== width || shown.resized?.height !== height) shown.resized = resize(mask, width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = picture.naturalWidth * 3 > width;
  context.drawImage(picture, 0, 0, width, height);
  const options = { threshold, opacity: opacity / 100, layer: element("layer").value, outline: element("outline").checked, lineWidth: 2 * ratio };
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(paint(shown.resized, options), 0, 0);
  context.drawImage(layer, 0, 0);
  const { pixels, instances } = measure(mask, threshold, run.min_area);
  element("share").textContent = percent(pixels / mask.levels.length);
  const microns = shown.answer.microns_per_pixel, area = microns ? `, ${Number((pixels * microns ** 2).toPrecision(3)).toLocaleString("en")} µm²` : "";
  element("pixels").textContent = `${pixels} of ${mask.levels.length} pixels${area}`;
  element("instances").textContent = instances;
  canvas.setAttribute("aria-label", `${shown.name} with its mask: ${element("share").textContent} foreground, ${instances} instances`);
}

async function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encode(shown.mask, Number(element("threshold").value)));
  link.download = `${shown.name.replace(/\.[^.]*$/, "")}_mask.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

let frameRequest = 0;
function redraw() {
  cancelAnimationFrame(frameRequest);
  frameRequest = requestAnimationFrame(draw);
}

for (const id of ["threshold", "opacity", "layer", "outline"]) element(id).addEventListener("input", redraw);
window.addEventListener("resize", redraw);
element("reset").addEventListener("click", () => {
  element("threshold").value = run.threshold;
  redraw();
});
element("download").addEventListener("click", download);
element("file").addEventListener("change", (event) => {
  if (event.target.files.length) send(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
element("drop").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) send(event.clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  else fail("What was dropped is not a file. Save the image, then drop the file.");
});
start().catch(() => fail("The server does not answer. Is it still running?"));
