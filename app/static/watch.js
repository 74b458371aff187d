// What the browser does by itself on Watch: pictures beside each other, copying, the log's end, searching the runs, the
// title of the tab and the sound when a training has ended. Every word comes from Python, in the views.

const part = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// -- two pictures of a table, one cut over the other ------------------------------------------------------------------

// What a table of pictures holds: {words, columns: [name], rows: [{prompt, cells: [address or undefined]}]}.
function tableOf(button) {
  const matrix = button.closest('.matrix');
  const words = JSON.parse(matrix.dataset.words);
  if ('pairs' in matrix.dataset) return pairOf(button, words);
  const columns = [...matrix.querySelectorAll('thead th')].slice(1).map((head) => head.textContent);
  const rows = [...matrix.querySelectorAll('tbody tr')].map((row) => ({
    prompt: row.querySelector('th').textContent,
    cells: [...row.querySelectorAll('td')].map((cell) => cell.querySelector('[data-after]')?.dataset.after),
  }));
  return { words, columns, rows };
}

// A picture that is shown beside one other.
function pairOf(button, words) {
  const { before, after, title } = button.dataset;
  const [columns, cells] = before ? [[words.without, words.with], [before, after]] : [[words.with], [after]];
  return { words, columns, rows: [{ prompt: title, cells }] };
}

function compare(button) {
  const { words, columns, rows } = tableOf(button);
  const cell = button.closest('td');
  const alone = rows.length === 1 && rows[0].cells.includes(button.dataset.after);
  let row = alone ? 0 : [...cell.closest('tbody').rows].indexOf(cell.closest('tr'));
  let right = alone ? rows[0].cells.indexOf(button.dataset.after) : cell.cellIndex - 1;
  let left = 0;

  const name = part('h3', { id: 'compared' });
  const images = { right: part('img'), left: part('img', { class: 'before' }) };
  const choice = (label) => {
    const select = part('select', { 'aria-label': label }, ...columns.map((text, i) => part('option', { value: i }, text)));
    return [part('label', {}, part('span', {}, label), select), select];
  };
  const [leftLabel, leftSelect] = choice(words.left);
  const [rightLabel, rightSelect] = choice(words.right);
  const slider = part('input', { type: 'range', min: 0, max: 100, value: 50, 'aria-label': words.cut });
  const moving = (sign, label, rows, columns) => {
    const made = part('button', { type: 'button', class: 'act', 'aria-label': label, title: label }, sign);
    made.addEventListener('click', () => move(rows, columns));
    return made;
  };
  const close = part('button', { type: 'button', class: 'act' }, words.close);
  const dialog = part('dialog', { class: 'compare', 'aria-labelledby': 'compared', tabindex: -1 }, name,
    part('div', { class: 'pair' }, images.right, images.left), slider,
    part('div', { class: 'sides' }, leftLabel, rightLabel),
    part('div', { class: 'actions' }, moving('←', words.before, 0, -1), moving('→', words.after, 0, 1),
      ...(rows.length > 1 ? [moving('↑', words.up, -1, 0), moving('↓', words.down, 1, 0)] : []), close),
    part('p', { class: 'keys' }, words.keys));

  const filled = (index, step) => {
    while (index in columns && !rows[row].cells[index]) index += step;
    return index in columns ? index : undefined;
  };
  function move(down, on) {
    row = (row + down + rows.length) % rows.length;
    if (on) right = filled(right + on, on) ?? right;
    show();
  }
  function show() {
    right = filled(right, -1) ?? filled(0, 1);
    left = rows[row].cells[left] ? left : filled(0, 1);
    name.textContent = rows[row].prompt;
    for (const [side, index] of [['left', left], ['right', right]]) {
      if (images[side].getAttribute('src') !== rows[row].cells[index]) images[side].src = rows[row].cells[index];
      images[side].alt = `${rows[row].prompt}, ${columns[index]}`;
    }
    for (const [select, index] of [[leftSelect, left], [rightSelect, right]]) {
      select.value = index;
      for (const option of select.options) option.disabled = !rows[row].cells[option.value];
    }
    cut();
  }
  function cut() {
    images.left.style.setProperty('clip-path', `inset(0 ${100 - slider.value}% 0 0)`);
    images.left.hidden = left === right;
    slider.disabled = left === right;
  }
  slider.addEventListener('input', cut);
  leftSelect.addEventListener('change', () => { left = Number(leftSelect.value); show(); });
  rightSelect.addEventListener('change', () => { right = Number(rightSelect.value); show(); });
  close.addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('close', () => { dialog.remove(); if (button.isConnected) button.focus(); });
  dialog.addEventListener('keydown', (event) => {
    const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!way || event.target.matches('input, select')) return;
    event.preventDefault();
    move(...way);
  });
  (button.closest('.gradio-container') ?? document.body).append(dialog);
  show();
  dialog.showModal();
  dialog.focus();
}

document.addEventListener('click', (event) => {
  const button = event.target.closest?.('.matrix [data-after]');
  if (button) compare(button);
});

// Arrow keys lead from one picture of the table to the next.
document.addEventListener('keydown', (event) => {
  const cell = event.target.closest?.('.matrix td');
  const [down, on] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [];
  if (!cell || down === undefined) return;
  const row = cell.closest('tbody').rows[cell.closest('tr').sectionRowIndex + down];
  const next = row?.cells[cell.cellIndex + on]?.querySelector('[data-after]');
  if (!next) return;
  event.preventDefault();
  next.focus();
});

// -- copying ----------------------------------------------------------------------------------------------------------

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // not over plain http from another computer
    const field = part('textarea', { style: 'position: fixed; opacity: 0' });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    return done;
  }
}

// [data-copy] copies what that selector finds around it.
document.addEventListener('click', async (event) => {
  const button = event.target.closest?.('[data-copy]');
  const found = button?.closest('.error, .copied')?.querySelector(button.dataset.copy.split(' ').at(-1));
  if (!found) return;
  const words = button.textContent;
  button.textContent = (await copy(found.textContent)) ? button.dataset.copied : button.dataset.failed;
  setTimeout(() => { button.textContent = words; }, 1500);
});

// -- what is drawn anew -----------------------------------------------------------------------------------------------

function follow(log) {
  const last = log.querySelector('pre.log');
  if (last && (document.querySelector('#follow input')?.checked ?? true)) last.scrollTop = last.scrollHeight;
}

function search(past) {
  const asked = past.querySelector('[data-search]')?.value.trim().toLowerCase() ?? '';
  const rows = [...past.querySelectorAll('.runs > li')];
  for (const row of rows) row.hidden = !row.querySelector('.what').textContent.toLowerCase().includes(asked);
  const none = past.querySelector('.none');
  if (none) none.hidden = rows.some((row) => !row.hidden);
}

const after = { log: follow, past: search };
document.addEventListener('drawn', (event) => after[event.target.closest('.block')?.id]?.(event.target));
document.addEventListener('input', (event) => {
  if (event.target.matches?.('[data-search]')) search(event.target.closest('.block'));
});
// A part that was folded away is drawn at its end when it is opened.
document.addEventListener('change', (event) => {
  if (event.target.closest?.('#follow')) follow(document.getElementById('log'));
});

// -- the tab's title, and the sound -----------------------------------------------------------------------------------

const usual = document.title;
let trained = ''; // the run that was training when this tab looked last
let told = false; // whether the title tells of an end

function beep() {
  if (localStorage.getItem('lora-sd-sound') !== 'true') return;
  const audio = new AudioContext();
  [[660, 0], [880, 0.18]].forEach(([frequency, at]) => {
    const tone = new OscillatorNode(audio, { frequency });
    const volume = new GainNode(audio, { gain: 0 });
    const begin = audio.currentTime + at;
    volume.gain.setTargetAtTime(0.2, begin, 0.01);
    volume.gain.setTargetAtTime(0, begin + 0.15, 0.05);
    tone.connect(volume).connect(audio.destination);
    tone.start(begin);
    tone.stop(begin + 0.6);
  });
  setTimeout(() => audio.close(), 1500);
}

function signal(now) {
  if (trained && now.run !== trained && now.ended === trained) {
    document.title = now.end;
    told = true;
    beep();
  }
  trained = now.run;
  if (now.run) [document.title, told] = [now.title, false];
  else if (!told) document.title = usual;
}

// Whoever does something on the page has seen how it ended.
for (const kind of ['pointerdown', 'keydown']) {
  document.addEventListener(kind, () => {
    if (told) [document.title, told] = [usual, false];
  });
}

(window.drawView ??= {}).signal = signal;
if (window.shownViews?.signal) signal(window.shownViews.signal);
