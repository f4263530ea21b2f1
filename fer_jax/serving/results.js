// Draws results: boxes on the picture, and a card for each face.

const MANY = 6; // faces that a sentence names

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}\u00a0%`;

// Shows faces in place of the previous ones. Cards are reused where possible,
// so that bars move and the focus stays while a webcam is live.
export function draw(answer, boxes, cards) {
  const { faces } = answer;
  while (cards.children.length > faces.length) cards.lastElementChild.remove();
  while (cards.children.length < faces.length) cards.append(newCard());
  while (boxes.children.length > faces.length) boxes.lastElementChild.remove();
  while (boxes.children.length < faces.length) {
    boxes.append(newBox(cards.children[boxes.children.length]));
  }
  faces.forEach((face, i) => {
    fillCard(cards.children[i], face, i + 1);
    placeBox(boxes.children[i], face, i + 1, answer);
  });
  fitLabels(boxes);
}

// Shortens the labels to numbers if they would cover each other.
export function fitLabels(boxes) {
  boxes.classList.remove("short");
  const labels = [...boxes.children].map((box) => box.firstElementChild.getBoundingClientRect());
  const cover = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const covered = labels.some((a, i) => labels.slice(i + 1).some((b) => cover(a, b)));
  boxes.classList.toggle("short", covered);
}

export function summary({ faces, seconds }) {
  const found = faces.map((face) => `${face.label} ${percent(face.probability)}`);
  const count = faces.length === 1 ? "1 face" : `${faces.length} faces`;
  const named = found.slice(0, MANY).join(", ") + (found.length > MANY ? ", …" : "");
  return `${count} in ${seconds.toFixed(2)} s: ${named}`;
}

function newCard() {
  const card = document.getElementById("card").content.firstElementChild;
  return card.cloneNode(true);
}

function newBox(card) {
  const box = document.createElement("button");
  box.type = "button";
  box.className = "box";
  const label = document.createElement("span");
  const said = document.createElement("span");
  said.className = "said";
  label.append(document.createTextNode(""), said);
  box.append(label);
  const light = (on) => () => {
    card.classList.toggle("lit", on);
    box.classList.toggle("lit", on);
  };
  for (const element of [box, card]) {
    element.onpointerenter = element.onfocus = light(true);
    element.onpointerleave = element.onblur = light(false);
  }
  box.onclick = () => {
    card.scrollIntoView({ block: "nearest" });
    card.focus({ preventScroll: true });
  };
  return box;
}

function fillCard(card, face, number) {
  const find = (name) => card.querySelector(`.${name}`);
  find("number").textContent = number;
  find("label").textContent = face.label;
  find("probability").textContent = percent(face.probability);
  find("score").textContent = face.score === null ? "" : `detected with ${percent(face.score, 1)} confidence`;
  find("crop").src = face.crop;
  find("crop").alt = `Face ${number}, as the model sees it`;
  find("look").hidden = face.gradcam === null;
  if (face.gradcam) {
    find("gradcam").src = face.gradcam;
    find("gradcam").alt = `Regions of face ${number} that support ${face.label}: brighter is more`;
    find("why").textContent = face.located ? "what supports the label" : "no region supports the label";
  }
  const rows = card.querySelector("tbody");
  const classes = Object.entries(face.probabilities);
  while (rows.children.length < classes.length) rows.append(newRow());
  classes.forEach(([name, probability], i) => {
    const row = rows.children[i];
    row.className = name === face.label ? "best" : "";
    row.children[0].textContent = name;
    row.children[1].firstElementChild.firstElementChild.style.width = `${100 * probability}%`;
    row.children[2].textContent = percent(probability);
  });
}

function newRow() {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  const bar = document.createElement("td");
  bar.setAttribute("aria-hidden", "true");
  bar.append(document.createElement("div"));
  bar.firstElementChild.className = "bar";
  bar.firstElementChild.append(document.createElement("div"));
  row.append(name, bar, document.createElement("td"));
  return row;
}

function placeBox(box, face, number, { width, height }) {
  box.hidden = face.box === null;
  if (box.hidden) return;
  const [x, y, w, h] = face.box;
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
  const left = inside(x, width), right = inside(x + w, width);
  const top = inside(y, height), bottom = inside(y + h, height);
  box.style.left = `${(100 * left) / width}%`;
  box.style.top = `${(100 * top) / height}%`;
  box.style.width = `${(100 * (right - left)) / width}%`;
  box.style.height = `${(100 * (bottom - top)) / height}%`;
  // The label stays on the picture.
  const low = bottom > 0.9 * height;
  box.classList.toggle("below", top < 0.1 * height && !low);
  box.classList.toggle("inside", top < 0.1 * height && low);
  box.classList.toggle("right", left > 0.6 * width);
  const [numbered, said] = box.firstElementChild.childNodes;
  numbered.data = number;
  said.textContent = ` ${face.label} ${percent(face.probability)}`;
  box.setAttribute("aria-label", `Face ${number}: ${face.label}, ${percent(face.probability)}`);
}
