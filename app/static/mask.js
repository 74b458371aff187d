// A canvas over a picture: what is painted on it is learned. `props.value` is {project, picture, src, mask, width, height,
// words, told, failed}; 'click' takes {act: 'save' | 'keep' | 'remove', project, picture, mask} to Python, `mask` a PNG
// that is opaque where it is painted. 'keep' saves a picture that is left.
const PAINT = [47, 128, 96];
const MOST_UNDO = 12;
const root = element.querySelector('.mask');
let now = null; // the value that is shown
let area, pen, ring, status, undoButton, redoButton, modes, range, removeButton;
let past = [], future = [], dirty = false, erasing = false, at = [0, 0], held = false;

const part = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const button = (text, click, cls = '') => part('button', { type: 'button', class: `act ${cls}`.trim(), onclick: click }, text);

function build(value) {
  const { words } = value;
  area = part('canvas', {
    width: value.width, height: value.height, tabindex: '0', role: 'application',
    'aria-label': words.canvas, 'aria-describedby': 'mask-keys',
  });
  pen = area.getContext('2d', { willReadFrequently: true });
  ring = part('div', { class: 'ring', 'aria-hidden': 'true' });
  status = part('span', { class: 'told', role: 'status' });
  modes = [button(words.paint, () => mode(false)), button(words.erase, () => mode(true))];
  undoButton = button(words.undo, () => step(past, future));
  redoButton = button(words.redo, () => step(future, past));
  range = part('input', { type: 'range', min: '1', max: '40', value: '10', oninput: move });
  removeButton = button(words.remove, remove);
  const stage = part('div', { class: 'stage' }, part('img', { src: value.src, alt: value.picture, draggable: 'false' }), area, ring);
  stage.style.aspectRatio = `${value.width} / ${value.height}`;
  stage.style.width = `min(100%, calc(70vh * ${value.width / value.height}))`;
  root.replaceChildren(
    part('div', { class: 'tools' }, ...modes, part('label', {}, words.size, range), undoButton, redoButton,
      button(words.all, () => fill(true)), button(words.none, () => fill(false))),
    stage,
    part('p', { class: 'quiet', id: 'mask-keys' }, words.keys),
    part('div', { class: 'tools' }, button(words.save, () => save('save'), 'primary'), removeButton, status),
  );
  listen();
  [past, future, at] = [[], [], [value.width / 2, value.height / 2]];
  mode(erasing);
  if (value.mask) lay(value.mask);
  else move();
}

// The mask that is there already: white becomes paint.
function lay(src) {
  const image = new Image();
  const [onto, { width, height }] = [pen, area];
  image.onload = () => {
    onto.clearRect(0, 0, width, height);
    onto.drawImage(image, 0, 0, width, height);
    const pixels = onto.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data[i + 3] = pixels.data[i];
      [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2]] = PAINT;
    }
    onto.putImageData(pixels, 0, 0);
    move();
  };
  image.src = src;
}

function listen() {
  const place = (event) => {
    const box = area.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * area.width, ((event.clientY - box.top) / box.height) * area.height];
  };
  area.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    area.setPointerCapture(event.pointerId);
    begin();
    held = true;
    at = place(event);
    line(at);
  });
  area.addEventListener('pointermove', (event) => {
    const before = at;
    at = place(event);
    if (held) line(before);
    move();
  });
  for (const end of ['pointerup', 'pointercancel']) area.addEventListener(end, () => { held = false; });
  area.addEventListener('keydown', (event) => {
    const far = Math.max(1, radius() / 2);
    const way = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[event.key];
    if (way) {
      const before = at;
      at = [Math.min(Math.max(at[0] + way[0], 0), area.width), Math.min(Math.max(at[1] + way[1], 0), area.height)];
      if (held) line(before);
      move();
    } else if (event.key === ' ' && !event.repeat) {
      begin();
      held = true;
      line(at);
    } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z') step(...(event.shiftKey ? [future, past] : [past, future]));
    else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'y') step(future, past);
    else if (event.key !== ' ') return;
    event.preventDefault();
  });
  for (const end of ['keyup', 'blur']) area.addEventListener(end, (event) => { if (end === 'blur' || event.key === ' ') held = false; });
}

const radius = () => (range.value / 200) * Math.max(area.width, area.height);
const whole = () => pen.getImageData(0, 0, area.width, area.height);

// What is painted before a change can be brought back.
function begin() {
  past = [...past, whole()].slice(-MOST_UNDO);
  future = [];
  dirty = true;
  tell(now.words.unsaved);
}

function line(from) {
  pen.globalCompositeOperation = erasing ? 'destination-out' : 'source-over';
  pen.strokeStyle = `rgb(${PAINT})`;
  pen.lineCap = pen.lineJoin = 'round';
  pen.lineWidth = 2 * radius();
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(at[0], at[1] + 0.01);
  pen.stroke();
  move();
}

function fill(paint) {
  begin();
  pen.globalCompositeOperation = 'source-over';
  pen.clearRect(0, 0, area.width, area.height);
  pen.fillStyle = `rgb(${PAINT})`;
  if (paint) pen.fillRect(0, 0, area.width, area.height);
  move();
}

function step(from, onto) {
  if (!from.length) return;
  onto.push(whole());
  pen.putImageData(from.pop(), 0, 0);
  dirty = true;
  tell(now.words.unsaved);
  move();
}

function mode(erase) {
  erasing = erase;
  modes.forEach((each, i) => each.setAttribute('aria-pressed', String(erase === Boolean(i))));
  move();
}

// The ring is where the brush is, and the buttons are what can be done.
function move() {
  const share = (value, whole) => `${(100 * value) / whole}%`;
  Object.assign(ring.style, {
    left: share(at[0], area.width), top: share(at[1], area.height),
    width: share(2 * radius(), area.width), height: share(2 * radius(), area.height),
  });
  ring.classList.toggle('erasing', erasing);
  undoButton.disabled = !past.length;
  redoButton.disabled = !future.length;
  removeButton.hidden = !now?.mask;
}

function tell(text, failed = false) {
  status.textContent = text;
  status.classList.toggle('obstacle', failed);
}

function save(act) {
  dirty = false;
  trigger('click', { act, project: now.project, picture: now.picture, mask: area.toDataURL('image/png') });
}

function remove() {
  dirty = false;
  trigger('click', { act: 'remove', project: now.project, picture: now.picture });
}

function draw(value) {
  const same = now?.picture && value?.picture === now.picture && value.project === now.project && value.src === now.src;
  if (!same && dirty) save('keep');
  const removed = same && now.mask && !value.mask;
  now = value;
  if (!value?.picture) {
    dirty = false;
    root.replaceChildren(part('p', { class: 'quiet' }, value?.told || value?.words.empty || ''));
    return;
  }
  if (!same) build(value);
  else if (removed) pen.clearRect(0, 0, area.width, area.height);
  if (value.failed) dirty = true;
  tell(value.told || (dirty ? value.words.unsaved : ''), value.failed);
  move();
}

draw(props.value);
watch('value', () => draw(props.value));
