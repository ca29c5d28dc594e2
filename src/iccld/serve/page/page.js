"use strict";

// One page, no library: pictures go to POST /segment two at a time; ids and confidence come back as grey PNGs and are painted here.
const $ = (id) => document.getElementById(id);
const SIDE = 2048; // pixels of the longer side that are painted; downloads keep the picture's own size
const AT_ONCE = 2;
const items = []; // {file, name, state: waiting|working|done|failed, words, result, button}
let classes = []; // of /info, by id
let hidden = new Set(); // ids that are switched off
let current = -1;
let shown = null; // {width, height, ids, sure} of the picture on the stage
let running = 0;

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const shareOf = (share) => (share < 0.0005 ? "< 0.1 %" : percent(share));
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

function tell(words, isBad = false) {
  $("status").textContent = words;
  $("status").hidden = !words;
  $("status").classList.toggle("bad", isBad);
}

// 1. What the server is.
async function introduce() {
  const info = await (await fetch("info")).json();
  classes = info.classes;
  document.title = `${info.run} · iccld`;
  $("run").textContent = `iccld ${info.version} · run ${info.run}`;
  const weights = { ema: "averaged weights", model: "trained weights" }[info.weights];
  const parts = [`${classes.length} classes of ${info.label_space}`, info.stage && `stage ${info.stage}`, weights].filter(Boolean);
  $("about").textContent = `${parts.join(", ")}. Pictures go to this server, are segmented, and are kept nowhere.`;
  $("limits").textContent = `, up to ${info.limits.megabytes} MiB and ${info.limits.megapixels} megapixels`;
  if (info.finished === false) tell("This run is not finished; these are the weights that it has by now.");
}

// 2. Pictures arrive.
function add(files) {
  const pictures = files.filter(({ file }) => file.type.startsWith("image/") || /\.(png|jpe?g|webp|tiff?|bmp|gif|hei[cf])$/i.test(file.name));
  const left = files.length - pictures.length;
  tell(left ? `${left} of ${files.length} files are no pictures and were left out.` : "", left === files.length);
  if (!pictures.length) return;
  const first = items.length;
  for (const { file, path } of pictures) {
    const item = { file, name: unusedName(path || file.name), state: "waiting", words: "waiting", result: null };
    items.push(item);
    $("strip").append(stripEntry(item, items.length - 1));
  }
  $("drop").classList.add("small");
  $("work").hidden = $("keys").hidden = false;
  if (current < 0) show(first);
  for (let i = 0; i < AT_ONCE; i++) work();
}

function unusedName(path) {
  const plain = path.split(/[\\/]/).filter((part) => part && part !== "." && part !== "..").join("/") || "picture";
  const [, stem, suffix] = plain.match(/^(.*?)(\.[^./]*)?$/);
  const taken = new Set(items.map((item) => stemOf(item.name)));
  let name = stem;
  for (let i = 2; taken.has(name); i++) name = `${stem}-${i}`;
  return name + (suffix || "");
}
const stemOf = (name) => name.replace(/\.[^./]*$/, "");

function stripEntry(item, index) {
  const entry = document.createElement("li");
  const button = (item.button = document.createElement("button"));
  button.type = "button";
  const thumb = document.createElement("canvas");
  thumb.className = "thumb";
  thumb.width = 240; thumb.height = 147;
  const name = document.createElement("span");
  name.textContent = item.name;
  const state = document.createElement("span");
  state.className = "state";
  state.textContent = item.words;
  button.append(thumb, name, state);
  button.addEventListener("click", () => show(index));
  entry.append(button);
  return entry;
}

function setState(item, state, words) {
  item.state = state;
  item.words = words;
  item.button.classList.toggle("failed", state === "failed");
  item.button.querySelector(".state").textContent = words;
  if (items[current] === item) show(current);
  const done = items.filter((each) => each.state === "done").length;
  const failed = items.filter((each) => each.state === "failed").length;
  const rest = items.length - done - failed;
  if (items.length > 1) tell(rest ? `${done + failed} of ${items.length} done` : `${done} segmented${failed ? `, ${failed} failed` : ""}`, !rest && failed > 0);
  $("save-all").disabled = !done || rest > 0;
}

// 3. The server segments.
async function work() {
  if (running >= AT_ONCE) return;
  const item = items.find((each) => each.state === "waiting");
  if (!item) return;
  running++;
  setState(item, "working", "being segmented");
  try {
    item.result = await segment(item);
    await drawThumb(item);
    setState(item, "done", `${percent(item.result.confidence, 0)} sure`);
  } catch (error) {
    setState(item, "failed", error.message);
  }
  running--;
  work();
}

async function segment(item) {
  const isShownHere = await createImageBitmap(item.file).then((bitmap) => (bitmap.close(), true), () => false);
  const query = `format=json&mask=grey&confidence=png${isShownHere ? "" : "&picture=jpeg"}`;
  for (;;) {
    let response;
    try {
      response = await fetch(`segment?${query}`, { method: "POST", body: item.file, headers: { "Content-Type": "application/octet-stream" } });
    } catch {
      throw new Error("the server cannot be reached");
    }
    if (response.status === 503) {
      await pause(Number(response.headers.get("Retry-After")) || 1);
      continue;
    }
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    const picture = answer.picture && new Blob([bytesOf(answer.picture)], { type: "image/jpeg" });
    return { size: answer.size, classes: answer.classes, confidence: answer.confidence, ids: bytesOf(answer.mask), sure: bytesOf(answer.confidence_map), picture };
  }
}

// 4. Painting.
async function greyValues(png, width, height) {
  const bitmap = await createImageBitmap(new Blob([png], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]);
}

const photoOf = (item) => createImageBitmap(item.result?.picture || item.file);

function maskPixels(ids, sure, width, height, view, isOff = () => false) {
  const pixels = new ImageData(width, height);
  const table = new Uint32Array(256); // little-endian RGBA
  for (const { id, color: [r, g, b] } of classes) table[id] = isOff(id) ? 0 : ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const words = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < words.length; i++) {
    words[i] = view === "confidence" ? (isOff(ids[i]) ? 0 : ((255 << 24) | (sure[i] * 0x010101)) >>> 0) : table[ids[i]];
  }
  return pixels;
}

function paintedSize([height, width], side = SIDE) {
  const scale = Math.min(1, side / Math.max(height, width));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

async function drawThumb(item) {
  const canvas = item.button.querySelector(".thumb");
  const [width, height] = paintedSize(item.result.size, 240);
  const mask = new OffscreenCanvas(width, height);
  mask.getContext("2d").putImageData(maskPixels(await greyValues(item.result.ids, width, height), null, width, height, "classes"), 0, 0);
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d");
  const photo = await photoOf(item);
  context.drawImage(photo, 0, 0, width, height);
  photo.close();
  context.globalAlpha = 0.55;
  context.drawImage(mask, 0, 0);
}

async function show(index) {
  const item = items[index];
  if (!item) return;
  current = index;
  items.forEach((each, i) => each.button.setAttribute("aria-current", String(i === index)));
  item.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  $("name").textContent = item.name;
  $("position").textContent = items.length > 1 ? `${index + 1} of ${items.length}` : "";
  $("previous").disabled = index === 0;
  $("next").disabled = index === items.length - 1;
  $("save").disabled = item.state !== "done";
  $("curl").textContent = curlOf(item);
  $("waiting").hidden = item.state === "done";
  $("waiting").textContent = item.state === "failed" ? item.words : `${item.words} …`;
  if (item.state !== "done") {
    shown = null;
    if (!$("stage").style.aspectRatio) shape(2, 1);
    legend(null);
    return;
  }
  const { result } = item;
  const [width, height] = paintedSize(result.size);
  const [ids, sure, photo] = await Promise.all([greyValues(result.ids, width, height), greyValues(result.sure, width, height), photoOf(item)]);
  if (items[current] !== item) return; // another one was chosen meanwhile
  for (const canvas of [$("photo"), $("mask")]) { canvas.width = width; canvas.height = height; }
  $("photo").getContext("2d").drawImage(photo, 0, 0, width, height);
  photo.close();
  shape(width, height);
  shown = { width, height, ids, sure };
  legend(result);
  paint();
}

function shape(width, height) {
  $("stage").style.aspectRatio = `${width} / ${height}`;
  $("stage").style.maxWidth = `calc(${(76 * width) / height}vh)`; // a portrait fits on the screen
}

function adjust() {
  $("opacity-value").textContent = `${$("opacity").value} %`;
  $("stage").style.setProperty("--split", `${$("split").value}%`);
  $("mask").style.opacity = $("opacity").value / 100;
}

function paint() {
  if (!shown) return;
  const view = document.querySelector("input[name=view]:checked").value;
  const pixels = maskPixels(shown.ids, shown.sure, shown.width, shown.height, view, (id) => hidden.has(id));
  $("mask").getContext("2d").putImageData(pixels, 0, 0);
}

function legend(result) {
  const present = result ? result.classes : [];
  const largest = present[0]?.share || 1;
  $("classes").replaceChildren(...present.map((entry) => legendEntry(entry, largest)));
  const absent = classes.filter(({ id }) => !present.some((entry) => entry.id === id));
  $("absent-box").hidden = !result || !absent.length;
  $("absent-count").textContent = absent.length;
  $("absent").textContent = absent.map(({ name }) => name).join(", ");
  $("confidence").textContent = result ? percent(result.confidence) : "–";
}

function legendEntry({ id, name, color, share, confidence }, largest) {
  const entry = document.createElement("li");
  entry.classList.toggle("off", hidden.has(id));
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = !hidden.has(id);
  box.addEventListener("change", () => {
    box.checked ? hidden.delete(id) : hidden.add(id);
    entry.classList.toggle("off", !box.checked);
    paint();
  });
  const make = (className, text = "") => Object.assign(document.createElement("span"), { className, textContent: text });
  const swatch = make("swatch");
  swatch.style.background = `rgb(${color})`;
  const words = make("class", name);
  const bar = document.createElement("i");
  bar.style.width = `${(100 * share) / largest}%`;
  words.append(bar);
  label.append(box, swatch, words, make("share", shareOf(share)), make("sure", percent(confidence, 0)));
  entry.append(label);
  return entry;
}

function read(event) {
  if (!shown) return;
  const box = $("stage").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * shown.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * shown.height);
  if (x < 0 || y < 0 || x >= shown.width || y >= shown.height) return;
  const i = y * shown.width + x;
  const word = document.createElement("b");
  word.textContent = classes[shown.ids[i]]?.name ?? "unknown";
  $("readout").replaceChildren(word, ` ${percent(shown.sure[i] / 255, 0)} sure, at row ${y}, column ${x}`);
}

// 5. Taking away.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
function curlOf(item) {
  const file = item.name.split("/").pop();
  return `curl --data-binary @${quoted(file)} ${quoted(`${location.origin}/segment`)} --output ${quoted(`${stemOf(file)}_mask.png`)}`;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

// A grey PNG of ids with the classes' colours as its palette: the samples stay, the header says what they are.
function withPalette(grey) {
  const head = grey.slice(0, 33); // signature, IHDR
  head[25] = 3;
  new DataView(head.buffer).setUint32(29, crc32(head.subarray(12, 29)));
  const colors = new Uint8Array(3 * classes.length);
  for (const { id, color } of classes) colors.set(color, 3 * id);
  const chunk = new Uint8Array(12 + colors.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, colors.length);
  chunk.set([80, 76, 84, 69], 4); // PLTE
  chunk.set(colors, 8);
  view.setUint32(8 + colors.length, crc32(chunk.subarray(4, 8 + colors.length)));
  return joined([head, chunk, grey.subarray(33)]);
}

// Stored, not deflated: what is in it is compressed already.
function zip(files) {
  const encoder = new TextEncoder();
  const parts = [], directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const title = encoder.encode(name);
    const common = new DataView(new ArrayBuffer(26));
    [20, 0x0800, 0, 0, 0x21].forEach((value, i) => common.setUint16(2 * i, value, true)); // version, UTF-8 names, stored, 1980-01-01
    [crc32(bytes), bytes.length, bytes.length].forEach((value, i) => common.setUint32(10 + 4 * i, value, true));
    common.setUint16(22, title.length, true);
    const fields = new Uint8Array(common.buffer);
    parts.push(Uint8Array.of(80, 75, 3, 4), fields, title, bytes);
    const tail = new DataView(new ArrayBuffer(14)); // comment, disk, attributes, and where the file lies
    tail.setUint32(10, offset, true);
    directory.push(Uint8Array.of(80, 75, 1, 2, 20, 0), fields, new Uint8Array(tail.buffer), title);
    offset += 30 + title.length + bytes.length;
  }
  const listed = joined(directory);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, listed.length, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, listed, new Uint8Array(end.buffer)], { type: "application/zip" });
}

async function overlayOf(item) {
  const [height, width] = item.result.size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const photo = await photoOf(item);
  context.drawImage(photo, 0, 0, width, height);
  photo.close();
  const mask = new OffscreenCanvas(width, height);
  mask.getContext("2d").putImageData(maskPixels(await greyValues(item.result.ids, width, height), null, width, height, "classes"), 0, 0);
  context.globalAlpha = 0.5;
  context.drawImage(mask, 0, 0);
  return new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 })).arrayBuffer());
}

function table(done) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = done.map(({ name, result }) => {
    const shares = classes.map(({ id }) => result.classes.find((entry) => entry.id === id)?.share ?? 0);
    return [cell(name), result.confidence, ...shares].join(",");
  });
  return [["picture", "confidence", ...classes.map(({ name }) => cell(name))].join(","), ...rows].join("\n") + "\n";
}

async function saveAll() {
  const done = items.filter((item) => item.state === "done");
  const files = [{ name: "shares.csv", bytes: new TextEncoder().encode(table(done)) }];
  $("save-all").disabled = true;
  for (const [i, item] of done.entries()) {
    tell(`packing ${i + 1} of ${done.length}`);
    files.push({ name: `masks/${stemOf(item.name)}.png`, bytes: withPalette(item.result.ids) });
    files.push({ name: `overlays/${stemOf(item.name)}.jpg`, bytes: await overlayOf(item) });
  }
  download(zip(files), "masks.zip");
  tell(`${done.length} pictures packed`);
  $("save-all").disabled = false;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch { // no secure context: mark it, so that the reader copies
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Marked";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

// 6. Hands.
async function filesBelow(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: path + entry.name }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred at a time
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) break;
    for (const each of batch) if (!each.name.startsWith(".")) found.push(...(await filesBelow(each, `${path}${entry.name}/`)));
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function drop(event) {
  event.preventDefault();
  $("veil").hidden = true;
  const entries = [...event.dataTransfer.items].map((each) => each.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...event.dataTransfer.files].map((file) => ({ file }));
  const found = entries.length ? (await Promise.all(entries.map((entry) => filesBelow(entry)))).flat() : plain;
  add(found);
}

function switchAll(isOn) {
  hidden = new Set(isOn ? [] : classes.map(({ id }) => id));
  legend(items[current]?.result ?? null);
  paint();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=range], input[type=radio]")) return;
  if (event.key === "ArrowLeft" && current > 0) show(current - 1);
  else if (event.key === "ArrowRight" && current < items.length - 1) show(current + 1);
  else if (event.key === "m") $("mask").hidden = !$("mask").hidden;
  else if (event.key === "c") {
    const [on, off] = document.querySelectorAll("input[name=view]");
    (on.checked ? off : on).checked = true;
    paint();
  } else return;
  event.preventDefault();
}

function listen() {
  $("choose").addEventListener("click", () => $("files").click());
  $("choose-folder").addEventListener("click", () => $("folder").click());
  for (const input of [$("files"), $("folder")]) {
    input.addEventListener("change", () => {
      add([...input.files].map((file) => ({ file, path: file.webkitRelativePath })));
      input.value = "";
    });
  }
  addEventListener("dragover", (event) => { event.preventDefault(); $("veil").hidden = false; });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("veil").hidden = true; });
  addEventListener("drop", drop);
  addEventListener("paste", (event) => add([...event.clipboardData.files].map((file) => ({ file }))));
  addEventListener("keydown", key);
  for (const id of ["split", "opacity"]) $(id).addEventListener("input", adjust);
  document.querySelectorAll("input[name=view]").forEach((input) => input.addEventListener("change", paint));
  $("stage").addEventListener("pointermove", read);
  $("stage").addEventListener("pointerdown", read);
  $("previous").addEventListener("click", () => show(current - 1));
  $("next").addEventListener("click", () => show(current + 1));
  $("all").addEventListener("click", () => switchAll(true));
  $("none").addEventListener("click", () => switchAll(false));
  $("save").addEventListener("click", () => {
    const item = items[current];
    download(new Blob([withPalette(item.result.ids)], { type: "image/png" }), `${stemOf(item.name).split("/").pop()}_mask.png`);
  });
  $("save-all").addEventListener("click", saveAll);
  $("copy").addEventListener("click", copy);
}

listen();
adjust();
introduce().catch(() => tell("the server cannot be reached", true));
